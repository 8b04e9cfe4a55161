"""What stands in several files about the package is the same in all of them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def only(pattern: str, name: str) -> str:
    found = re.findall(pattern, (ROOT / name).read_text(), re.M)
    assert len(found) == 1, f"{name} has {found}"
    return found[0]


def test_version():
    version = only(r'^version = "(.+)"$', "pyproject.toml")
    assert only(r"^version: (.+)$", "CITATION.cff") == version
    # An unreleased version is in preparation; others have a section of their own.
    changes = (ROOT / "CHANGELOG.md").read_text()
    release, _, unreleased = version.partition(".dev")
    expected = rf"## \[Unreleased\]\n\nTo be {release}\." if unreleased else rf"## \[{release}\]"
    assert re.search(expected, changes)


@pytest.mark.parametrize("tool", ["ruff", "clang-format", "mypy"])
def test_tools_that_judge_are_pinned(tool):
    assert re.search(rf'"{tool}==[\d.]+"', (ROOT / "pyproject.toml").read_text())


def test_every_source_is_built():
    """setup.py takes all of csrc/cpu and csrc/cuda: what compiles nowhere lies in neither."""
    sources = {path.relative_to(ROOT / "csrc") for path in (ROOT / "csrc").rglob("*.c*")}
    assert {path.parts[0] for path in sources} == {"cpu", "cuda"}
    assert all(len(path.parts) == 2 for path in sources)
    assert {path.suffix for path in sources} == {".cpp", ".cu"}
