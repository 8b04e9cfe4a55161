"""A training step on the GPU with and without mask making: python bench/gpu_training.py --save FILE

The training section of ``smnm bench``, without the packages that the command line needs.
"""

import argparse
import json
from pathlib import Path

import torch

from smnm_kernels.bench.training import training


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=40)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="without the compiled steps")
    parser.add_argument("--save", type=Path, help="write the rows to this JSON file")
    options = parser.parse_args()
    device = torch.device(options.device)
    rows = training(options.quick, options.seconds, device, print)
    for row in rows:
        if "us" in row:
            print(step_line(row))
    if options.save:
        options.save.write_text(json.dumps(rows, indent=1) + "\n")


def step_line(row: dict) -> str:
    text = f"{row['shape']:32} {row['what']:42} {row['us'] / 1e3:9.2f} ms {row['ratio']:.3f}x"
    if "waits" in row:
        text += f"  waits {row['waits']}, copies to the device {row['copies_to_device']}"
    return text


if __name__ == "__main__":
    main()
