"""The console command before its package is imported: one line instead of a traceback."""

import subprocess
import sys

import pytest
from testing import ROOT

INTERRUPTED = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"


def run(tmp_path, package, cli="", before=""):
    """(exit code, errors) of the command with another package in place of ours."""
    (tmp_path / "smnm_kernels").mkdir()
    (tmp_path / "smnm_kernels/__init__.py").write_text(package)
    (tmp_path / "smnm_kernels/cli.py").write_text(cli)
    code = f"{before}import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]; "
    code += "from smnm_command import main; sys.exit(main())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("raise ValueError('SMNM_BACKEND must be one of these')", "SMNM_BACKEND must be one of"),
        ("raise ImportError('SMNM_VECTORS=x cannot be used')", "SMNM_VECTORS=x cannot be used"),
        ("raise ImportError('smnm_kernels needs torch >= 2.10')", "smnm_kernels needs torch"),
    ],
)
def test_an_environment_that_the_package_refuses_is_one_line(tmp_path, package, said):
    code, errors = run(tmp_path, package)
    assert code == 2
    assert errors.startswith(f"smnm: error: {said}")
    assert errors.count("\n") == 1


def test_a_fault_has_its_traceback(tmp_path):
    code, errors = run(tmp_path, "raise ValueError('a fault')")
    assert code == 1
    assert "Traceback" in errors


def test_an_interrupt_while_modules_are_imported_is_one_line(tmp_path):
    # Some modules make an ImportError of all that happens in an import.
    caught = f"try:\n    {INTERRUPTED}\nexcept BaseException:\n    raise ImportError"
    assert run(tmp_path, caught) == (130, "smnm: interrupted before any work\n")


def test_the_command_at_work_gets_its_interrupts(tmp_path):
    cli = f"""
def main(loaded):
    loaded()
    try:
        {INTERRUPTED}
    except KeyboardInterrupt:
        return 7
"""
    assert run(tmp_path, "", cli) == (7, "")


def test_interrupts_that_are_ignored_stay_ignored(tmp_path):
    package = f"import signal\nassert signal.getsignal(2) is signal.SIG_IGN\n{INTERRUPTED}"
    cli = "def main(loaded):\n    loaded()\n    return 7"
    before = "import signal; signal.signal(2, signal.SIG_IGN); "
    assert run(tmp_path, package, cli, before) == (7, "")
