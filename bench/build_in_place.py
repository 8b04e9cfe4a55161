"""Builds the extensions into this checkout with any setuptools, as ``setup.py build_ext --inplace``
does with one that is recent enough for pyproject.toml."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Without pyproject.toml beside setup.py: its licence field is refused by setuptools before 77.
folder = ROOT / "build/in_place"
folder.mkdir(parents=True, exist_ok=True)
for name in ("setup.py", "csrc"):
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(f"../../{name}")
build = ("build_ext", "--build-lib", ROOT, "--build-temp", folder / "objects")
try:
    sys.exit(subprocess.run((sys.executable, "setup.py", *build), cwd=folder).returncode)
except KeyboardInterrupt:
    sys.exit("stopped while it was compiling")
