"""Sections of ``smnm bench`` on the GPU, without the packages that the command line needs.

    python bench/gpu_sections.py {masks,training} [--seconds 60] [--rows training.jsonl]

Rows are saved as soon as they are measured. With the rows of an earlier run, only the parts that it
did not finish are measured. A part is a batch size of the masks or a model of the training steps.
"""

import argparse
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from gpu_table import section_line
from saved_rows import SavedRows

from smnm_kernels.timing.mask_making import mask_making
from smnm_kernels.timing.training import models_for, rows_of_model

BATCHES = (64, 256, 1, 1024)
REPEATS = 3


def parts(
    section: str, quick: bool, seconds: float, device: torch.device
) -> dict[str, Callable[[], Iterable[dict]]]:
    if section == "masks":
        batches = (2,) if quick else BATCHES
        share = seconds / len(batches)
        return {
            f"masks, B = {batch}": partial(mask_making, (batch,), share, REPEATS, device, print)
            for batch in batches
        }
    models = models_for(quick, device)
    share = seconds / len(models)
    return {
        model.shape: partial(rows_of_model, model, not quick, share, device) for model in models
    }


def measure(part: str, make: Callable[[], Iterable[dict]], saved: SavedRows) -> None:
    """Measures a part, unless an earlier run finished it. An error is saved as a row, too."""
    earlier = [row for row in saved.rows if row["part"] == part]
    if any("ended" in row for row in earlier):
        return
    saved.keep([row for row in saved.rows if row not in earlier])
    try:
        for row in make():
            saved.add({"part": part, **row})
            print(section_line(saved.rows[-1]), flush=True)
        saved.add({"part": part, "ended": True})
    except Exception as error:
        saved.add({"part": part, "error": f"{type(error).__name__}: {error}"})
        print(section_line(saved.rows[-1]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("section", choices=["masks", "training"])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--quick", action="store_true", help="small, and without compiled steps")
    parser.add_argument("--rows", type=Path, help="save the rows in this file, and go on with it")
    options = parser.parse_args()
    saved, device = SavedRows(options.rows), torch.device(options.device)
    for part, make in parts(options.section, options.quick, options.seconds, device).items():
        measure(part, make, saved)
    sys.exit(saved.have(lambda row: "error" in row))


if __name__ == "__main__":
    main()
