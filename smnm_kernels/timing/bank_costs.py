"""The section "bank" of `smnm bench`: what a bank of noise costs besides the time of crops. That is
memory, loading, and masks that repeat."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import smnm_kernels as smnm
from smnm_kernels.analysis.quality import distinct
from smnm_kernels.tables.colors import parse_sigma
from smnm_kernels.tables.noise import noise_quantiles, noise_table
from smnm_kernels.timing import peers

from .facts import device_name
from .mask_making import AUDIO, VIDEO

#: ColorMAE's bank has 3072 images. No size of a bank of volumes is published; this one has as many.
VOLUMES, SIDE = 3072, 64
CLIPS_OF_KINETICS_400 = 240_436
BATCH = 64


def bank_costs(quick: bool, progress: Callable[[str], None]) -> list[dict]:
    """A row for each way to get masks."""
    n_masks = 2_000 if quick else 20_000
    n_volumes = 16 if quick else 64
    progress(f"bank: {n_volumes} volumes of {SIDE}^3")
    bank = smnm.NoiseBank.precompute(n_volumes, (SIDE,) * 3, "green")
    seconds_to_make, seconds_to_load = _seconds_to_make_and_load(bank)
    scale = VOLUMES / n_volumes
    volume_bytes = 4 * SIDE**3
    progress(f"bank: {n_masks} masks of each kind")
    grid, n_tokens = VIDEO.grid, VIDEO.n_tokens
    batches = n_masks // BATCH
    made = []
    for what, draw, note in (
        (
            "smnm green3d",
            lambda i: smnm.noise_masks(_ids(i), grid, "green", VIDEO.ratio).visible,
            "no bank: every mask has its own noise",
        ),
        (
            "noise bank, crop and flips per sample",
            lambda i: _visible(peers.bank_masking(bank.volumes, BATCH, grid, VIDEO.ratio)),
            "crops of one volume overlap: other masks, of the same noise",
        ),
        (
            "noise bank, one crop for the batch (ColorMAE)",
            lambda i: _visible(
                peers.shared_crop_bank_masking(bank.volumes, BATCH, grid, VIDEO.ratio)
            ),
            "sample i of every batch shows volume i; ColorMAE's own are images",
        ),
    ):
        torch.manual_seed(0)
        visible = torch.cat([draw(i) for i in range(batches)]).unflatten(1, grid)
        found = distinct(visible)
        ours = what.startswith("smnm")
        if not ours:
            note += f"; bytes and seconds: {scale:g} times those of {n_volumes} volumes"
        made.append(
            {
                "section": "bank",
                "device": device_name(torch.device("cpu")),
                "shape": str(VIDEO),
                "what": what,
                "volumes_measured": 0 if ours else n_volumes,
                "masks": len(visible),
                "distinct_masks": found.masks,
                "repeat_rate": round(found.repeat_rate, 5),
                # For a bank of VOLUMES:
                "bytes_per_process": _table_bytes() if ours else VOLUMES * volume_bytes,
                "seconds_to_make": _seconds_for_tables()
                if ours
                else round(scale * seconds_to_make, 1),
                "seconds_to_load": 0.0 if ours else round(scale * seconds_to_load, 2),
                "uses_of_a_noise_value_per_epoch": 1.0
                if ours
                else round(CLIPS_OF_KINETICS_400 * n_tokens / (VOLUMES * SIDE**3), 2),
                "note": note,
            }
        )
    return made


def _ids(batch: int) -> torch.Tensor:
    return torch.arange(batch * BATCH, (batch + 1) * BATCH)


def _visible(masks: peers.MaeMasks) -> torch.Tensor:
    return masks[2] == 0


def _seconds_to_make_and_load(bank: smnm.NoiseBank) -> tuple[float, float]:
    """(seconds to make, seconds to load) of the volumes of this bank. They are made with scipy, as
    published code does it; eight are timed. They are loaded from a file in the page cache."""
    peers.scipy_green(1, (SIDE,) * 3, (1.0, 2.0))
    start = time.perf_counter()
    peers.scipy_green(8, (SIDE,) * 3, (1.0, 2.0))
    making = (time.perf_counter() - start) / 8 * len(bank.volumes)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bank.npy"
        bank.save(path)
        start = time.perf_counter()
        smnm.NoiseBank.load(path).volumes.clone()
        return making, time.perf_counter() - start


def _seconds_for_tables() -> float:
    """Seconds to make the table of a grid, color and sigma, which their first mask waits for."""
    start = time.perf_counter()
    noise_table.__wrapped__(VIDEO.grid, "green", tuple(parse_sigma("green", None)))
    return round(time.perf_counter() - start, 3)


def _table_bytes() -> int:
    """Bytes of our tables for video and audio: filters, sigma pairs, quantiles."""
    tensors = [noise_quantiles()]
    for shape in (VIDEO, AUDIO):
        table = noise_table(shape.grid, "green", tuple(parse_sigma("green", None)))
        tensors += [table.taps, table.pairs, table.scale]
    return sum(math.prod(t.shape) * t.element_size() for t in tensors)
