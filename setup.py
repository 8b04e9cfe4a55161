"""Builds the C++ and CUDA libraries where torch and a compiler are at hand, and installs without
what cannot be built: the package then runs on what is there, in the end on its NumPy reference, and
says so.

The libraries are loaded by torch.ops.load_library and know nothing of Python: no pybind11 module
among them, whose ABI would tie every wheel to one Python. With LibTorch's stable ABI, one wheel a
platform serves every Python and every torch from 2.10 on.
"""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent
# torch's stable ABI as of 2.10: one build serves every later torch.
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"
# The last is for clang, which does not know the one before it.
WARNINGS = ("-Wno-psabi", "-Wno-maybe-uninitialized", "-Wno-unknown-warning-option")
CUDA_LIBRARY = "smnm_kernels._cuda"
# Machine code for these, where nvcc knows them, and PTX for what comes after.
CUDA_ARCHITECTURES = (75, 80, 90, 100)


def extension_arguments() -> dict:
    # Under pip's build isolation the torch of the environment that is installed into is not on
    # the path. Building against that one, instead of downloading another, is the whole point.
    for path in (sysconfig.get_path("platlib"), sysconfig.get_path("purelib")):
        if path not in sys.path:
            sys.path.append(path)
    try:
        import torch
        from torch.utils import cpp_extension
    except Exception as error:  # not there, or there and broken
        warn("its libraries", f"torch's extension builder could not be imported ({error})")
        return {}

    class BuildIfPossible(cpp_extension.BuildExtension):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:  # no compiler, no headers, an unknown platform
                self.extensions = []
                warn("its libraries", first_line(error))

        def build_extensions(self) -> None:
            try:
                super().build_extensions()
            except Exception as error:
                without_cuda = [ext for ext in self.extensions if ext.name != CUDA_LIBRARY]
                if without_cuda == self.extensions:
                    raise
                warn(CUDA_LIBRARY, first_line(error))  # torch refuses this nvcc
                self.extensions = without_cuda
                super().build_extensions()

        def build_extension(self, extension: object) -> None:
            try:
                super().build_extension(extension)
            except Exception as error:  # the other extensions are of use without it
                self.extensions = [other for other in self.extensions if other is not extension]
                warn(extension.name, first_line(error))

    extensions = [
        cpp_extension.CppExtension(
            "smnm_kernels._cpu",
            sources("cpu/*.cpp"),
            depends=sources("common/*.h") + sources("cpu/*.h"),
            extra_compile_args={"cxx": ["-O3", "-std=c++17", *WARNINGS, STABLE_ABI]},
            py_limited_api=True,  # or torch would link what needs Python
        )
    ]
    if torch.version.cuda is not None:
        try:
            extensions.append(cuda_extension(cpp_extension))
        except Exception as error:  # no nvcc
            warn(CUDA_LIBRARY, first_line(error))
    build = BuildIfPossible.with_options(no_python_abi_suffix=True)
    return {"ext_modules": extensions, "cmdclass": {"build_ext": build, **wheel_command()}}


def sources(pattern: str) -> list[str]:
    """Files of csrc, in the same order everywhere."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "csrc").glob(pattern))


def cuda_extension(cpp_extension: object) -> object:
    if cpp_extension.CUDA_HOME is None:
        raise FileNotFoundError("no nvcc: set CUDA_HOME to where CUDA is installed")
    nvcc_arguments = ["-O3", "-std=c++17", "-DUSE_CUDA", STABLE_ABI]
    if not os.environ.get("TORCH_CUDA_ARCH_LIST"):
        nvcc_arguments += architecture_arguments(f"{cpp_extension.CUDA_HOME}/bin/nvcc")
    return cpp_extension.CUDAExtension(
        CUDA_LIBRARY,
        sources("cuda/*.cu"),
        depends=sources("common/*.h") + sources("cuda/*.h"),
        extra_compile_args={"cxx": ["-O3"], "nvcc": nvcc_arguments},
        py_limited_api=True,
    )


def architecture_arguments(nvcc: str) -> list[str]:
    listed = subprocess.run([nvcc, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    known = [arch for arch in CUDA_ARCHITECTURES if f"compute_{arch}" in listed.stdout.split()]
    codes = [f"-gencode=arch=compute_{arch},code=sm_{arch}" for arch in known]
    return [*codes, f"-gencode=arch=compute_{known[-1]},code=compute_{known[-1]}"]


def wheel_command() -> dict:
    try:
        from setuptools.command.bdist_wheel import bdist_wheel
    except ImportError:  # before 70.1; then build_ext --inplace is all that is asked of it
        return {}

    class WheelOfAnyPython(bdist_wheel):
        def get_tag(self) -> tuple[str, str, str]:
            *_, platform = super().get_tag()
            return "py3", "none", platform

    return {"bdist_wheel": WheelOfAnyPython}


def first_line(error: Exception) -> str:
    return (str(error).strip() or repr(error)).splitlines()[0]


def warn(part: str, reason: str) -> None:
    print(f"warning: building smnm_kernels without {part}: {reason}", file=sys.stderr)


setup(**extension_arguments())
