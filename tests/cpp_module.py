"""The C++ that only tests need: compiled once for every state of the sources, kept in build/."""

import hashlib
import importlib.util
import sysconfig
from functools import cache
from pathlib import Path
from types import ModuleType

import torch
from filelock import FileLock
from testing import ROOT, compiled


@cache
def load() -> ModuleType:
    """The module smnm_cpp. It registers torch.ops.smnm_by_rounds. Skips without a compiler."""
    torch_folder = Path(torch.__file__).parent
    flags = (
        *("-O1", "-shared", "-fPIC", "-Wno-psabi", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
        *(f"-I{torch_folder}/include", f"-I{sysconfig.get_path('include')}"),
        *("-Wl,--no-as-needed", f"-L{torch_folder}/lib", "-lc10", "-ltorch", "-ltorch_cpu"),
    )
    state = hashlib.sha256(repr((flags, torch.__version__)).encode())
    for folder in ("csrc", "tests/cpp"):
        for path in sorted((ROOT / folder).rglob("*.*")):
            state.update(path.read_bytes())
    made = ROOT / "build/tests" / state.hexdigest()[:16] / "smnm_cpp.so"
    made.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(made.with_suffix(".lock")):
        if not made.exists():
            unfinished = made.with_suffix(".unfinished")
            what = "a C++ compiler and Python's headers"
            compiled(ROOT / "tests/cpp/module.cpp", unfinished, *flags, what=what).replace(made)
    spec = importlib.util.spec_from_file_location("smnm_cpp", made)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
