"""The C++ that only tests need: compiled once for every state of the sources, kept in build/."""

import importlib.util
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from testing import ROOT, compiled, kept


@cache
def load() -> ModuleType:
    """The module smnm_cpp. It registers torch.ops.smnm_by_rounds. Skips without a compiler."""
    torch_folder = Path(torch.__file__).parent
    flags = (
        *("-O1", "-shared", "-fPIC", "-Wno-psabi", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
        *(f"-I{torch_folder}/include", f"-I{sysconfig.get_path('include')}"),
        *("-Wl,--no-as-needed", f"-L{torch_folder}/lib", "-lc10", "-ltorch", "-ltorch_cpu"),
    )

    def make(folder: Path) -> None:
        what = "a C++ compiler and Python's headers"
        compiled(ROOT / "tests/cpp/module.cpp", folder / "smnm_cpp.so", *flags, what=what)

    made = kept("module", flags, make) / "smnm_cpp.so"
    spec = importlib.util.spec_from_file_location("smnm_cpp", made)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
