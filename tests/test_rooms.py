"""CONTRIBUTING says which room may import which; the code keeps to it."""

import ast
import re
from pathlib import Path

import pytest
from testing import ROOT

PACKAGE = ROOT / "smnm_kernels"
#: ``train.loop`` and ``train.model`` are import paths that were documented before the rooms.
FRONT_DOORS = {"", "train", "train/loop", "train/model"}


def rooms_in_order() -> list[str]:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    [block] = re.findall(r"```rooms\n(.*?)```", text, re.DOTALL)
    return [line.split()[0] for line in block.splitlines()]


def room_of(module: str) -> str:
    parts = module.split(".")
    return "/".join(parts[:2] if parts[0] == "train" else parts[:1])


def imports(path: Path, package: Path = PACKAGE) -> set[str]:
    """Modules of the package that a file imports anywhere, without the package's name."""
    folder = list(path.relative_to(package).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {".".join(name[1:]) for name in names if name[0] == "smnm_kernels"}
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level:
            base = folder[: len(folder) - node.level + 1]
        elif node.module and node.module.split(".")[0] == "smnm_kernels":
            base = []
        else:
            continue
        module = node.module.split(".") if node.module else []
        base += module if node.level else module[1:]
        for alias in node.names:
            inner = package.joinpath(*base, alias.name)
            is_module = inner.is_dir() or inner.with_suffix(".py").exists()
            found.add(".".join([*base, alias.name] if is_module else base))
    return found


def files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_file_lies_in_a_room():
    rooms = set(rooms_in_order())
    assert {room_of(module_of(path)) for path in files()} - FRONT_DOORS == rooms


@pytest.mark.parametrize("room", rooms_in_order())
def test_a_room_imports_from_rooms_above_it(room):
    order = rooms_in_order()
    above = {*order[: order.index(room) + 1], ""}
    for path in files():
        if room_of(module_of(path)) == room:
            below = {module for module in imports(path) if room_of(module) not in above}
            assert not below, f"{path.relative_to(ROOT)} imports {below}"


def test_below_the_samplers_nothing_imports_the_front_door():
    """It gathers what they make, so that would be a cycle."""
    order = rooms_in_order()
    inner = {*order[: order.index("loading") + 1], "adapters", "analysis"}
    for path in files():
        if room_of(module_of(path)) in inner:
            assert "" not in imports(path), path


def test_imports_are_seen(tmp_path):
    path = tmp_path / "kinds" / "kind.py"
    path.parent.mkdir()
    (tmp_path / "ops.py").touch()
    path.write_text(
        "import smnm_kernels.files\nimport os\nfrom .. import ops\nfrom ..masks import Masks\n"
        "def f():\n    from smnm_kernels.tables.noise import noise_table\n    from . import rbn\n"
    )
    assert imports(path, tmp_path) == {"files", "ops", "masks", "tables.noise", "kinds"}
