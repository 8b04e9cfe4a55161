"""Making masks on the CPU, as ratios in one run: python bench/cpu_masks.py --help.

Each round times every candidate once, in turn, so that a slow spell of the machine falls on all of
them; the ratios are medians over rounds of the paired times.
"""

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch
from peers import bank_masking, mae_random_masking, rand_topk

import smnm_kernels as smnm

BATCH = 64
IDS = torch.arange(BATCH)


def candidates() -> dict[str, dict]:
    """Per shape: what is timed, the first being what the others are divided by. B = 64, but where
    the shape says one sample."""
    video, audio, image = (8, 14, 14), (1, 64, 8), (1, 14, 14)
    bank = smnm.NoiseBank.precompute(16, (64, 64, 64), "green")
    green = smnm.noise(IDS, video, "green")
    return {
        "video 8x14x14, ratio 0.9, B=64": {
            "MAE random masking": lambda: mae_random_masking(BATCH, 1568, 0.9),
            "rand + topk": lambda: rand_topk(BATCH, 1568, 0.9),
            "noise bank, crop and flips, argsorts": lambda: bank_masking(
                bank.volumes, BATCH, video, 0.9
            ),
            "smnm NoiseBank.masks": lambda: bank.masks(IDS, video, 0.9),
            "smnm green3d": lambda: smnm.noise_masks(IDS, video, "green", 0.9),
            "smnm red3d": lambda: smnm.noise_masks(IDS, video, "red", 0.9),
            "smnm blue3d": lambda: smnm.noise_masks(IDS, video, "blue", 0.9),
            "smnm random": lambda: smnm.noise_masks(IDS, video, "white", 0.9),
            "smnm threshold alone": lambda: smnm.threshold(green, 0.9),
        },
        "audio 1x64x8, ratio 0.8, B=64": {
            "MAE random masking": lambda: mae_random_masking(BATCH, 512, 0.8),
            "smnm rbn, ties to the first": lambda: smnm.rbn_masks(IDS, audio, 0.8),
            "smnm rbn, random ties": lambda: smnm.rbn_masks(IDS, audio, 0.8, tie_break="random"),
        },
        "image 1x14x14, ratio 0.75, B=64": {
            "MAE random masking": lambda: mae_random_masking(BATCH, 196, 0.75),
            "smnm green2d": lambda: smnm.noise_masks(IDS, image, "green", 0.75),
            "smnm rbn, ties to the first": lambda: smnm.rbn_masks(IDS, image, 0.75),
        },
        "one sample of 64x128x128, ratio 0.9": {
            "rand + argsort": lambda: torch.rand(2**20).argsort(),
            "smnm green3d": lambda: smnm.noise_masks(IDS[:1], (64, 128, 128), "green", 0.9),
        },
    }


def measure(rounds: int) -> list[dict]:
    rows = []
    for shape, timed in candidates().items():
        times: dict[str, list[float]] = {name: [] for name in timed}
        for round_ in range(rounds + 5):
            for name, call in timed.items():
                start = time.perf_counter()
                call()
                if round_ >= 5:
                    times[name].append(1e3 * (time.perf_counter() - start))
        base = next(iter(times.values()))
        for name, own in times.items():
            quartiles = statistics.quantiles(own, n=4)
            rows.append(
                {
                    "shape": shape,
                    "what": name,
                    "ms": round(quartiles[1], 4),
                    "ms_quartiles": [round(quartiles[0], 4), round(quartiles[2], 4)],
                    "of_first": round(
                        statistics.median(a / b for a, b in zip(own, base, strict=True)), 4
                    ),
                }
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--save", type=Path, help="write the rows to this JSON file")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    result = {
        "command": f"python bench/cpu_masks.py --threads {options.threads} --rounds "
        f"{options.rounds}",
        "batch": BATCH,
        "threads": options.threads,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "build": smnm.build_info(),
        "rows": measure(options.rounds),
    }
    shape = None
    for row in result["rows"]:
        if row["shape"] != shape:
            shape = row["shape"]
            print(f"\n{shape}, {options.threads} threads, torch {torch.__version__}")
        print(f"  {row['what']:<38} {row['ms']:8.3f} ms   {row['of_first']:.3f}x")
    if options.save:
        options.save.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
