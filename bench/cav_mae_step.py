"""A step of CAV-MAE beside a step of VideoMAE of the same width and depth, and the masks' share.

    python bench/cav_mae_step.py --widths 192 384 --batch-size 4 --steps 10

As `sigma_step.py`: steps in turns, on clips and sounds of noise. The decoders have one size. Beside
the ratio of times stands that of multiply-adds, forward and backward, by count.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import torch
from sigma_step import VIDEOMAE, Step, timed_rows
from torch.utils.flop_counter import FlopCounterMode

from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.settings import VIDEOMAE as VIDEOMAE_SETTINGS
from smnm_kernels.train.run.machine import find_device
from smnm_kernels.train.tasks.presets import PRESETS

CLIP, HIDDEN, FRAME = "CAV-MAE, clip", "CAV-MAE, clip, half the time hidden", "CAV-MAE, one frame"


def steps_of(width: int, batch_size: int, device: torch.device) -> dict[str, Step]:
    """On 16 frames of 96 x 96 and 1.28 s of sound."""
    video, both = PRESETS["video"]["tiny"], PRESETS["audio-video"]["tiny"]
    depth = 4 if width == 192 else 12
    decoder = {"decoder_dim": 128, "decoder_depth": 2, "decoder_heads": 4}
    size = {"dim": width, "depth": depth, "heads": width // 64, **decoder}
    clip = CavMae(CAV_MAE.with_clips().resized(**size))
    one_frame = replace(
        both,
        clip=replace(both.clip, video=replace(both.clip.video, frames=1)),
        objective=CavMae(CAV_MAE.resized(**size)),
        masks=PRESETS["audio-video"]["snm-cav-mae"].masks,
    )
    presets = {
        VIDEOMAE: replace(video, objective=MaskedAutoencoding(VIDEOMAE_SETTINGS.resized(**size))),
        CLIP: replace(both, objective=clip),
        HIDDEN: replace(both, objective=clip, hidden_time=0.5),
        FRAME: one_frame,
    }
    return {name: Step(preset, batch_size, device) for name, preset in presets.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--widths", nargs="+", type=int, default=[192], choices=[192, 384])
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    device = find_device(given.device)
    where = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{where}, {torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print(
        "| width, batch | objective | a step, of VideoMAE's | masks, of the step | multiply-adds |"
    )
    print("|---|---|---|---|---|")
    for width in given.widths:
        steps = steps_of(width, given.batch_size, device)
        work = {name: _work(step) for name, step in steps.items()}
        label = f"{width}, {given.batch_size}"
        for name, row in zip(steps, timed_rows(label, steps, given.steps), strict=True):
            print(f"{row} {work[name] / work[VIDEOMAE]:.2f} |", flush=True)


def _work(step: Step) -> int:
    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


if __name__ == "__main__":
    main()
