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
    tables: dict[str, float] = {
        "volumes_measured": 0,
        "bytes_per_process": _table_bytes(),
        "seconds_to_make": _seconds_for_tables(),
        "seconds_to_load": 0.0,
        "uses_of_a_noise_value_per_epoch": 1.0,
    }
    uses = CLIPS_OF_KINETICS_400 * VIDEO.n_tokens / (VOLUMES * SIDE**3)
    volumes: dict[str, float] = {
        "volumes_measured": n_volumes,
        "bytes_per_process": VOLUMES * 4 * SIDE**3,
        "seconds_to_make": round(scale * seconds_to_make, 1),
        "seconds_to_load": round(scale * seconds_to_load, 2),
        "uses_of_a_noise_value_per_epoch": round(uses, 2),
    }
    of_volumes = f"bytes and seconds: {scale:g} times those of {n_volumes} volumes"
    call = (bank.volumes, BATCH, VIDEO.grid, VIDEO.ratio)
    progress(f"bank: {n_masks} masks of each kind")
    return [
        _row(
            "smnm green3d",
            lambda i: smnm.noise_masks(_ids(i), VIDEO.grid, "green", VIDEO.ratio).visible,
            n_masks,
            tables,
            "no bank: every mask has its own noise",
            ours=True,
        ),
        _row(
            "noise bank, crop and flips per sample",
            lambda _: _visible(peers.bank_masking(*call)),
            n_masks,
            volumes,
            f"crops of one volume overlap: other masks, of the same noise; {of_volumes}",
            ours=False,
        ),
        _row(
            "noise bank, one crop for the batch (ColorMAE)",
            lambda _: _visible(peers.shared_crop_bank_masking(*call)),
            n_masks,
            volumes,
            "sample i of every batch shows volume i; ColorMAE's own are images; " + of_volumes,
            ours=False,
        ),
    ]


def _row(
    what: str,
    draw: Callable[[int], torch.Tensor],
    n_masks: int,
    costs: dict[str, float],
    note: str,
    *,
    ours: bool,
) -> dict:
    """One way to get masks: its costs, and how many of n_masks masks are distinct.

    Args:
        draw: index of a batch -> visible bool [BATCH, N].
    """
    torch.manual_seed(0)
    batches = [draw(i) for i in range(n_masks // BATCH)]
    visible = torch.cat(batches).unflatten(1, VIDEO.grid)
    found = distinct(visible)
    return {
        "section": "bank",
        "device": device_name(torch.device("cpu")),
        "shape": str(VIDEO),
        "what": what,
        "ours": ours,
        "masks": len(visible),
        "distinct_masks": found.masks,
        "repeat_rate": round(found.repeat_rate, 5),
        **costs,
        "note": note,
    }


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
