"""One process of a group: ``python sampler_rank.py STORE RANK WORLD_SIZE OUT`` saves its masks."""

import sys

import torch
import torch.distributed as dist

import smnm_kernels as smnm

CASES = [
    ("green3d", (4, 6, 6), {"mask_ratio": 0.9, "seed": 5}),
    ("tube", (4, 6, 6), {"mask_ratio": 0.75}),
    ("rbn", (1, 16, 8), {"mask_ratio": 0.8, "seed": -1, "tie_break": "random"}),
]
BATCH_SIZES = (3, 1, 4, 0, 2)


def main(store, rank, world_size, out):
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=int(rank), world_size=int(world_size)
    )
    drawn = {}
    for kind, grid, arguments in CASES:
        sampler = smnm.MaskSampler(kind, grid, **arguments)
        drawn[kind] = [sampler(batch_size).visible for batch_size in BATCH_SIZES]
        drawn[f"{kind} state"] = sampler.state_dict()
    torch.save(drawn, out)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
