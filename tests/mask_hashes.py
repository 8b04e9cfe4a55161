"""One hash for each way of making masks, of fixed arguments.

``python mask_hashes.py [NAME ...]`` prints them with what smnm.backends() says, so that other
processes can be compared with this one.
"""

import hashlib
import json
import math
import sys
from collections.abc import Iterable

import torch

import smnm_kernels as smnm
from smnm_kernels import baseline_masks

IDS = torch.tensor([0, 1, 2, 3, -1, 2**32, 2**62, -(2**62)])
SEED = 2**63 - 25
BOTH = {
    "video": {"kind": "green3d", "grid": (4, 6, 5), "mask_ratio": 0.8},
    "audio": {"kind": "rbn", "grid": (1, 32, 4), "mask_ratio": 0.75},
}

#: Of sample ids; those of banks and of given noise have none.
CALLS = {
    "white noise": lambda ids: [smnm.noise(ids, (3, 5, 7), "white", seed=SEED)],
    "red noise": lambda ids: [smnm.noise(ids, (4, 6, 5), "red", seed=SEED)],
    "blue noise": lambda ids: [smnm.noise(ids, (1, 14, 14), "blue", seed=SEED)],
    "green noise": lambda ids: [smnm.noise(ids, (8, 14, 14), "green", seed=SEED)],
    "random masks": lambda ids: smnm.noise_masks(ids, (8, 14, 14), "white", 0.9, seed=SEED),
    "tube masks": lambda ids: smnm.noise_masks(
        ids, (8, 14, 14), "white", 0.9, tube=True, seed=SEED
    ),
    "red2d masks": lambda ids: smnm.noise_masks(ids, (8, 14, 14), "red", 0.9, tube=True, seed=SEED),
    "blue3d masks": lambda ids: smnm.noise_masks(ids, (8, 14, 14), "blue", 0.9, seed=SEED),
    "green3d masks": lambda ids: smnm.noise_masks(ids, (8, 14, 14), "green", 0.9, seed=SEED),
    "green3d variant-3 masks": lambda ids: smnm.noise_masks(
        ids, (4, 10, 9), "green", 0.75, sigma="variant-3", seed=SEED
    ),
    "slow green3d masks": lambda ids: smnm.noise_masks(
        ids, (4, 10, 9), "green", 0.75, time_scale=2, seed=SEED
    ),
    "audio green masks": lambda ids: smnm.noise_masks(
        ids, (1, 64, 8), "green", n_keep=102, freq_major=True, seed=torch.tensor(SEED)
    ),
    "rbn masks": lambda ids: smnm.rbn_masks(ids, (1, 64, 8), 0.8, seed=SEED),
    "rbn random masks": lambda ids: smnm.rbn_masks(
        ids, (1, 14, 14), 0.75, tie_break="random", windows=(5,), weights=(0.7, 0.2, 0.1, 0.05)
    ),
    "small masks": lambda ids: smnm.noise_masks(ids, (2, 3, 4), "white", 0.5, seed=SEED),
    "small rbn": lambda ids: smnm.rbn_masks(ids[:2], (1, 4, 3), 0.5, seed=SEED),
    "rbn overfull bank": lambda ids: [
        smnm.rbn_bank(torch.arange(35).flip(0)[None], 4, 17, (1, 7, 5), tie_break="random")
    ],
    "grid masks": lambda ids: baseline_masks(ids, (2, 14, 14), "grid", 0.75, seed=SEED),
    "block masks": lambda ids: baseline_masks(ids, (2, 14, 14), "block", 0.75, seed=SEED),
    "inverse_block masks": lambda ids: baseline_masks(
        ids, (1, 64, 8), "inverse_block", 0.8, freq_major=True, seed=SEED
    ),
    "time_frequency masks": lambda ids: baseline_masks(
        ids, (1, 64, 8), "time_frequency", 0.75, seed=SEED
    ),
    "multi_block masks": lambda ids: smnm.multi_block_masks(
        ids, (2, 14, 14), 0.75, scale=(0.1, 0.3), seed=SEED
    ),
    "bands masks": lambda ids: baseline_masks(
        ids, (1, 64, 8), "bands", 0.7, freq_major=True, seed=SEED
    ),
    "frames masks": lambda ids: baseline_masks(ids, (8, 5, 5), "frames", n_keep=66, seed=SEED),
    "running_cell masks": lambda ids: baseline_masks(
        ids, (4, 5, 6), "running_cell", 0.6, seed=SEED
    ),
    "video and audio": lambda ids: together(ids, None),
    "video and audio, hidden time": lambda ids: together(ids, 0.5),
    "threshold": lambda ids: smnm.threshold(
        (torch.arange(198) * 37 % 101 - 50).to(torch.float64).div(8).view(2, 99), 0.6
    ),
    "weighted masks": lambda ids: smnm.weighted_masks(ids, _numbers(8, 300), 0.7, seed=SEED),
    "weighted masks, inverted": lambda ids: smnm.weighted_masks(
        ids, _numbers(8, 300), n_keep=40, invert=True, seed=SEED
    ),
    "guided masks": lambda ids: smnm.guided_masks(
        ids, _numbers(8, 100), 0.6, masked="lowest", temperature=0.5, hint_ratio=0.25, seed=SEED
    ),
    "highest scores": lambda ids: smnm.guided_masks(ids, _numbers(8, 100), 0.6),
    "dispersion": lambda ids: [
        smnm.patch_dispersion(_numbers(2, 3, 2, 12, 20), (1, 4, 5), metric)
        for metric in ("mad", "variance")
    ],
    "motion masks": lambda ids: smnm.MaskSampler(
        "motion", (3, 4, 5), 0.6, hint_ratio=0.3, seed=SEED
    ).masks(ids, _numbers(8, 2, 6, 8, 10)),
    "dispersion masks": lambda ids: smnm.dispersion_masks(
        ids, _numbers(8, 1, 1, 64, 32), (1, 8, 8), 0.7, hint_ratio=0.3, freq_major=True, seed=SEED
    ),
    "activity masks": lambda ids: smnm.activity_masks(
        ids, _sounds(), (1, 8, 4), 0.7, smoothing=6, freq_major=True, seed=SEED
    ),
    "padded green3d masks": lambda ids: smnm.noise_masks(
        ids, (4, 6, 5), "green", 0.8, seed=SEED, valid=_valid(4, 6, 5)
    ),
    "padded tube masks": lambda ids: smnm.noise_masks(
        ids, (4, 6, 5), "white", 0.8, tube=True, seed=SEED, valid=_valid(4, 6, 5)
    ),
    "padded rbn masks": lambda ids: smnm.rbn_masks(
        ids,
        (1, 32, 4),
        0.75,
        freq_major=True,
        tie_break="random",
        seed=SEED,
        valid=_valid(1, 32, 4),
    ),
    "padded dispersion masks": lambda ids: smnm.dispersion_masks(
        ids, _numbers(8, 1, 1, 64, 32), (1, 8, 8), 0.7, hint_ratio=0.5, valid=_valid(1, 8, 4)
    ),
}


def _valid(*grid) -> torch.Tensor:
    """bool [8, *grid]: the first three quarters of all tokens, but for every eleventh; fewer row by
    row."""
    n = math.prod(grid)
    token, row = torch.arange(n), torch.arange(8)[:, None]
    return ((token < n * (24 - row) // 32) & (token % 11 != row)).view(8, *grid)


def _sounds() -> torch.Tensor:
    """[8, 1, 1, 160, 16]: two sounds in a small pattern, at other places in each row but the last,
    which is still."""
    frame, row = torch.arange(160)[:, None], torch.arange(8).view(8, 1, 1, 1, 1)
    sound = ((frame + 9 * row) % 80 < 24) & (row < 7)
    return 2.5 * sound - 6 + _numbers(8, 1, 1, 160, 16) / 16


def _numbers(*shape) -> torch.Tensor:
    """float32 that every machine computes alike, zeros among them, from 2**-10 to 8."""
    n = torch.arange(math.prod(shape)) * 7919 % 8193
    return torch.where(n % 11 == 0, 0, n).float().div(1024).view(shape)


def together(ids, hidden_time) -> list[torch.Tensor]:
    sampler = smnm.AudioVideoSampler(**BOTH, hidden_time=hidden_time, seed=SEED)
    return [form for masks in sampler.masks(ids) for form in masks]


def hashed(tensors) -> str:
    """Of every byte, in little-endian order: the order of all machines torch runs on."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def mask_hashes(names: Iterable[str] = CALLS) -> dict[str, str]:
    """Of the calls of these names."""
    return {name: hashed(CALLS[name](IDS)) for name in names}


if __name__ == "__main__":
    made = mask_hashes(sys.argv[1:] or CALLS)
    print(json.dumps({"backends": smnm.backends(), "hashes": made}))
