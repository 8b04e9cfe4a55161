"""The scripts of bench/ start: all that they import is there."""

import runpy
import sys

import pytest
from testing import ROOT, need_packages

SCRIPTS = [
    path for path in sorted(ROOT.glob("bench/*.py")) if "ArgumentParser(" in path.read_text()
]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_says_what_it_is_for(script, monkeypatch, capsys):
    need_packages("triton", "av", "tyro", "safetensors")
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code in (0, None)
    assert "usage:" in capsys.readouterr().out


def test_scripts_are_found():
    assert len(SCRIPTS) >= 8
