"""The C++ sources use macros that the oldest supported torch has, too. CI builds with the newest
headers alone; functions that are newer than TORCH_TARGET_VERSION these hide, macros they do not."""

import re
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "csrc"
#: In the headers of torch 2.11, the oldest that was built with. Build with it before adding one.
OLD_ENOUGH = {
    *("AOTI_TORCH_SUCCESS", "STABLE_TORCH_LIBRARY_FRAGMENT", "STABLE_TORCH_LIBRARY_IMPL"),
    *("TORCH_BOX", "TORCH_ERROR_CODE_CHECK", "TORCH_TARGET_VERSION", "TORCH_VERSION"),
}


def test_macros_of_torch_are_old_enough():
    used = {}
    for path in SOURCES.rglob("*"):
        if path.suffix in {".h", ".cpp", ".cu", ".cuh"}:
            code = re.sub(r"//.*", "", path.read_text())
            for name in re.findall(r"\b(?:STD_|STABLE_|AOTI_)?TORCH_[A-Z_]+\b", code):
                used.setdefault(name, path.name)
    assert used.keys() >= {"TORCH_BOX", "STABLE_TORCH_LIBRARY_IMPL"}
    assert {n: at for n, at in used.items() if n not in OLD_ENOUGH} == {}
