"""Builds the C++ extension where torch and a compiler are at hand, and installs without it where
they are not: the package then runs on its NumPy reference and says so."""

import sys
import sysconfig

from setuptools import setup

# torch's stable ABI as of 2.10: one build serves every later torch.
STABLE_ABI = "-DTORCH_TARGET_VERSION=0x020a000000000000"


def extension_arguments() -> dict:
    # Under pip's build isolation the torch of the environment that is installed into is not on
    # the path. Building against that one, instead of downloading another, is the whole point.
    for path in (sysconfig.get_path("platlib"), sysconfig.get_path("purelib")):
        if path not in sys.path:
            sys.path.append(path)
    try:
        import pybind11
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except Exception as error:  # not there, or there and broken
        warn(f"torch's extension builder could not be imported ({error})")
        return {}

    class BuildIfPossible(BuildExtension):
        def run(self) -> None:
            try:
                super().run()
            except Exception as error:  # no compiler, no headers, an unknown platform
                self.extensions = []
                warn((str(error).strip() or repr(error)).splitlines()[0])

    extension = CppExtension(
        "smnm_kernels._cpu",
        [
            f"csrc/{name}.cpp"
            for name in ("module", "ops_cpu", "noise", "philox_cpu", "rbn", "select")
        ],
        include_dirs=[pybind11.get_include()],
        extra_compile_args={
            "cxx": ["-O3", "-std=c++17", "-Wno-psabi", "-Wno-maybe-uninitialized", STABLE_ABI]
        },
    )
    return {"ext_modules": [extension], "cmdclass": {"build_ext": BuildIfPossible}}


def warn(reason: str) -> None:
    print(f"warning: building smnm_kernels without its C++ extension: {reason}", file=sys.stderr)


setup(**extension_arguments())
