"""The result of ``gpu_check.py``: its file, its logs and its facts about the machine.

python bench/gpu_result.py FILE    saves a row of the machine and the versions
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from saved_rows import SavedRows

ROOT = Path(__file__).parent.parent
RESULT, LOGS = "gpu_check.json", "logs.tar.gz"
#: States of a step: it ended by itself; it was cut short; it cannot run here; there was no time.
RUNNING, ENDED, STOPPED = "running", "ended", "stopped"
SKIPPED, LEFT_OUT = "skipped", "left out"
#: Characters of a log that the result keeps, and bytes that the archive keeps.
TAIL, TAIL_OF_PROFILE = 3000, 100_000
MOST_OF_A_LOG, MOST_OF_A_FILE = 500_000, 8_000_000


def facts() -> dict:
    import torch

    import smnm_kernels as smnm
    from smnm_kernels.timing import facts

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return facts.facts(device) | {
        "driver": driver(),
        "nvcc": (re.findall(r"release ([\d.]+)", output("nvcc", "--version") or "") or [None])[0],
        "backends": smnm.backends(),
    }


def driver() -> str | None:
    """Its version, which all GPUs of a machine share."""
    query = ("--query-gpu=driver_version", "--format=csv,noheader")
    return output("nvidia-smi", "-i", "0", *query)


class Gpu(NamedTuple):
    name: str
    #: As in "9.0".
    capability: str


def gpu() -> Gpu | None:
    """The GPU that torch takes, or None where it finds none. nvidia-smi numbers GPUs otherwise. The
    check itself keeps no CUDA context, so torch is asked in another process."""
    asked = "name, capability = cuda.get_device_name(0), cuda.get_device_capability(0)"
    told = 'print(name, "{}.{}".format(*capability), sep="\\n")'
    answer = output(sys.executable, "-c", f"from torch import cuda; {asked}; {told}")
    return Gpu(*answer.splitlines()) if answer else None


def output(*command: str) -> str | None:
    """What the command prints, or None where it fails or prints nothing."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


@cache
def hash_of_sources(paths: tuple[str, ...]) -> str:
    """A hash of these files and of the files in these folders. It tells two states of the project
    apart if there is no git or files are changed."""
    hashed = hashlib.sha256()
    for path in (ROOT / name for name in paths):
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.suffix in (".py", ".cpp", ".h", ".cu"):
                hashed.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return hashed.hexdigest()[:12]


def read(path: Path) -> dict | None:
    """The result in this file, or None if there is none."""
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and "about" in result else None


def write(path: Path, result: dict) -> None:
    """Writes the result, whole or not at all, with a line for each row."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(_json(result) + "\n")
    temporary.replace(path)


def _json(made: object, depth: int = 0) -> str:
    """JSON that is broken into lines, down to the rows."""
    inner = "\n" + " " * (depth + 1)
    outer = "\n" + " " * depth
    if isinstance(made, dict) and made and depth < 2:
        items = (f"{json.dumps(key)}: {_json(value, depth + 1)}" for key, value in made.items())
        return "{" + inner + f",{inner}".join(items) + outer + "}"
    if isinstance(made, list) and made:
        return "[" + inner + f",{inner}".join(map(json.dumps, made)) + outer + "]"
    return json.dumps(made)


def text_of_log(path: Path) -> str:
    """Paths are relative to the project."""
    return path.read_text(errors="replace").replace(f"{ROOT.resolve()}/", "")


def tail_of(step: str) -> int:
    return TAIL_OF_PROFILE if step == "ncu_details" else TAIL


def archive(folder: Path, path: Path) -> None:
    """Writes the logs of the steps, whole or not at all."""
    temporary = path.with_suffix(".tmp")
    with tarfile.open(temporary, "w:gz", compresslevel=4) as tar:
        for file in sorted(folder.iterdir()):
            data = file.read_bytes()
            if file.suffix == ".log" and len(data) > MOST_OF_A_LOG:
                half = MOST_OF_A_LOG // 2
                data = data[:half] + b"\n[...]\n" + data[-half:]
            if len(data) <= MOST_OF_A_FILE:
                entry = tarfile.TarInfo(f"logs/{file.name}")
                entry.size, entry.mtime = len(data), int(file.stat().st_mtime)
                tar.addfile(entry, io.BytesIO(data))
    temporary.replace(path)


def unpack(path: Path, folder: Path) -> None:
    """The logs of an earlier call, where they are."""
    if path.exists():
        with tarfile.open(path) as tar:
            for entry in tar.getmembers():
                (folder / Path(entry.name).name).write_bytes(tar.extractfile(entry).read())


if __name__ == "__main__":
    SavedRows(Path(sys.argv[1])).add(facts())
