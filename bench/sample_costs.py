"""What one more sample costs on each vector path of this processor, on one thread.

python bench/sample_costs.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time

import torch

import smnm_kernels as smnm

CASES = {
    "green3d 8x14x14": ((8, 14, 14), "green"),
    "red3d 8x14x14": ((8, 14, 14), "red"),
    "blue3d 8x14x14": ((8, 14, 14), "blue"),
    "random 8x14x14": ((8, 14, 14), "white"),
    "green2d 1x64x8": ((1, 64, 8), "green"),
    "green2d 1x14x14": ((1, 14, 14), "green"),
}
MORE, ROUNDS, CALLS = 64, 15, 3


def costs() -> dict[str, float]:
    """Microseconds that another sample adds to ``noise_masks``, the lowest of some rounds."""
    torch.set_num_threads(1)
    made = {}
    for name, (grid, color) in CASES.items():
        one, many = (
            min(seconds(torch.arange(n), grid, color) for _ in range(ROUNDS)) for n in (1, 1 + MORE)
        )
        made[name] = 1e6 * (many - one) / MORE
    return made


def seconds(ids: torch.Tensor, grid: tuple[int, int, int], color: str) -> float:
    start = time.perf_counter()
    for _ in range(CALLS):
        smnm.noise_masks(ids, grid, color, 0.9)
    return (time.perf_counter() - start) / CALLS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--this-path", action="store_true", help="JSON, of the path that runs here")
    options = parser.parse_args()
    if options.this_path:
        print(json.dumps(costs()))
        return
    info = smnm.build_info()
    if info is None:
        sys.exit("the C++ library is not built: python setup.py build_ext --inplace")
    rows = {path: of_path(path) for path in info["vector_paths"]}
    print(f"us for one more sample; torch {torch.__version__}, compiler {info['compiler']}\n")
    print("| | " + " | ".join(rows) + " |")
    print("|---" * (1 + len(rows)) + "|")
    for name in CASES:
        print(f"| {name} | " + " | ".join(f"{row[name]:.1f}" for row in rows.values()) + " |")


def of_path(path: str) -> dict[str, float]:
    """In a process of its own: the path is chosen once."""
    done = subprocess.run(
        [sys.executable, __file__, "--this-path"],
        env=os.environ | {"SMNM_VECTORS": path},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
