"""What nvcc makes of every CUDA source, without a GPU: registers, shared memory and spills.

python bench/cuda_report.py [--targets 80 90 100] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
from filelock import FileLock

TARGETS = (80, 90, 100)
SOURCES = Path(__file__).parent.parent / "csrc"
_ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(sm_\d+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")
_KERNEL = re.compile(r".*\d([a-z]\w*_kernel)(?:I(\w+?)EEv)?")
_ARGUMENT = re.compile(r"Lb([01])E?|Li(\d+)E?|([il])")


def nvcc() -> str | None:
    """The compiler of CUDA_HOME, or the one on the path, or None."""
    home = os.environ.get("CUDA_HOME")
    return shutil.which("nvcc", path=f"{home}/bin" if home else None)


class Compiled(NamedTuple):
    """What nvcc makes of one source for one target."""

    #: Its instructions name lines of the source.
    ptx: str
    #: What ptxas says of each kernel.
    log: str


def compiled(source: Path, target: int) -> Compiled:
    """Kept in build/ for every state of the sources and the compiler: it takes half a minute.

    Compiles against the headers of any torch from 2.10 on, that of a machine without CUDA too.
    Raises FileNotFoundError without nvcc, RuntimeError where nvcc complains.
    """
    if nvcc() is None:
        raise FileNotFoundError("nvcc was not found: set CUDA_HOME to where CUDA is installed")
    command = [
        nvcc(),
        *("-c", str(source), "-O3", "-std=c++17", "-Xcompiler", "-fPIC", "-lineinfo"),
        *("-Xptxas", "-v", f"-gencode=arch=compute_{target},code=sm_{target}"),
        *("-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
        f"-I{Path(torch.__file__).parent}/include",
    ]
    version = subprocess.run([nvcc(), "--version"], capture_output=True, text=True, check=True)
    state = hashlib.sha256(repr((command, version.stdout, torch.__version__)).encode())
    for path in sorted(path for path in SOURCES.rglob("*") if path.is_file()):
        state.update(path.read_bytes())
    folder = SOURCES.parent / "build/cuda" / f"{source.stem}-{target}-{state.hexdigest()[:16]}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=folder.parent) as work:
                command += ["-o", f"{work}/{source.stem}.o", "--keep", "--keep-dir", work]
                done = subprocess.run(command, capture_output=True, text=True)
                if done.returncode != 0 or "warning" in done.stderr:
                    raise RuntimeError(f"nvcc did not take {source.name} as it is:\n{done.stderr}")
                made = Path(work, "made")
                made.mkdir()
                Path(work, f"{source.stem}.ptx").rename(made / "ptx")
                (made / "log").write_text(done.stderr)
                made.rename(folder)
    return Compiled((folder / "ptx").read_text(), (folder / "log").read_text())


def cuda_report(targets: tuple[int, ...] = TARGETS) -> list[dict]:
    """A row per kernel and target (a compute capability times ten); FileNotFoundError without nvcc.

    Shared memory is what the kernel declares: what a launch adds depends on its arguments.
    """
    sources = sorted(SOURCES.glob("cuda/*.cu"))
    pairs = [(source, target) for source in sources for target in targets]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(lambda pair: compiled(*pair), pairs)
        return [row for one in made for row in _rows(one.log)]


def _rows(log: str) -> list[dict]:
    rows = []
    for part in re.split(r"(?=Compiling entry function)", log)[1:]:
        mangled, architecture = _ENTRY.search(part).groups()
        name, arguments = _KERNEL.search(mangled).groups()
        stack, stores, loads = map(int, _STACK.search(part).groups())
        shared = _SHARED.search(part)
        rows.append(
            {
                "kernel": name + _template_arguments(arguments),
                "arch": architecture,
                "registers": int(_USED.search(part)[1]),
                "shared": int(shared[1]) if shared else 0,
                "stack": stack,
                "spill_stores": stores,
                "spill_loads": loads,
            }
        )
    return rows


def _template_arguments(mangled: str | None) -> str:
    """A kernel's template arguments (bools, ints and int types), as written in C++."""
    if mangled is None:
        return ""
    types = {"i": "int", "l": "long"}
    return "<{}>".format(
        ", ".join(
            ("false", "true")[int(flag)] if flag else number or types[kind]
            for flag, number, kind in _ARGUMENT.findall(mangled)
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--targets", type=int, nargs="+", default=TARGETS)
    parser.add_argument("--json", action="store_true", help="one line of JSON per kernel")
    options = parser.parse_args()
    rows = cuda_report(tuple(options.targets))
    if options.json:
        print("\n".join(map(json.dumps, rows)))
        return
    print("".join(f"| {heading} " for heading in rows[0]) + "|")
    print("|---" * len(rows[0]) + "|")
    for row in rows:
        print("".join(f"| {cell} " for cell in row.values()) + "|")
    if spilling := [
        row for row in rows if row["stack"] or row["spill_stores"] or row["spill_loads"]
    ]:
        names = ", ".join(f"{row['kernel']} for {row['arch']}" for row in spilling)
        sys.exit(f"kernels spill registers: {names}")


if __name__ == "__main__":
    main()
