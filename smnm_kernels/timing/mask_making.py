"""The section "masks" of `smnm bench`: how long our masks take, beside those of training code that
does without them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import torch

import smnm_kernels as smnm
from smnm_kernels.arguments import Grid
from smnm_kernels.errors import RunError
from smnm_kernels.timing import peers

from .paired_times import Contender, Times, measure, measure_in_turn, rows


class Shape(NamedTuple):
    name: str
    grid: Grid
    ratio: float

    @property
    def n_tokens(self) -> int:
        return math.prod(self.grid)

    def __str__(self) -> str:
        return f"{self.name} {'x'.join(map(str, self.grid))}, ratio {self.ratio:g}"


VIDEO = Shape("video", (8, 14, 14), 0.9)
AUDIO = Shape("audio", (1, 64, 8), 0.8)
IMAGE = Shape("image", (1, 14, 14), 0.75)
SHAPES = (VIDEO, AUDIO, IMAGE)
#: Size of the banks that are timed. Of a bank of thousands of volumes, caches would hold less.
BANK_VOLUMES, BANK_SHAPE = 16, (64, 64, 64)
RANDOM = "MAE random masking"
#: Share of the time that goes to single calls.
IN_TURN = 0.4


def contenders(shape: Shape, batch: int, device: torch.device) -> list[Contender]:
    """The contenders of one shape and batch size. MAE's random masking comes first, so the times of
    the others are divided by its time."""
    grid, ratio = shape.grid, shape.ratio
    on_host = device.type == "cpu"

    def ours(kind: str, **more: Any) -> Contender:
        sampler = smnm.MaskSampler(kind, grid, ratio, **more).to(device)
        ties = ", random ties" if more else ""
        return Contender(f"smnm {kind}{ties}", partial(sampler, batch), ours=True)

    found = [
        Contender(RANDOM, partial(peers.mae_random_masking, batch, shape.n_tokens, ratio, device)),
        Contender(
            "rand + topk",
            partial(peers.rand_topk, batch, shape.n_tokens, ratio, device),
            "no ids_restore",
        ),
    ]
    dims = "3d" if grid[0] > 1 else "2d"
    found += [ours(f"{color}{dims}") for color in ("green", "red", "blue")]
    found += [ours("random")]
    if grid[0] == 1:
        found += [ours("rbn"), ours("rbn", tie_break="random")]
    found += [ours("inverse_block" if grid[0] == 1 else "multi_block")]
    if shape is AUDIO:
        found += _draws(shape, batch, device)
    if shape is AUDIO and on_host:
        found += _rbn_peers(shape, batch)
    if shape is not AUDIO:
        found += _noise_peers(shape, batch, device)
    return found


def _draws(shape: Shape, batch: int, device: torch.device) -> Iterator[Contender]:
    """Of spectrograms of 16 x 16 values a patch."""
    data = torch.randn(batch, 1, 1, 16 * shape.grid[1], 16 * shape.grid[2], device=device)
    weights = smnm.patch_dispersion(data, (1, 16, 16))
    ids = torch.arange(batch, device=device)
    yield Contender(
        "smnm weighted draw",
        lambda: smnm.weighted_masks(ids, weights, shape.ratio),
        "of weights that are there",
        ours=True,
    )
    sampler = smnm.MaskSampler("dispersion", shape.grid, shape.ratio).to(device)
    yield Contender("smnm dispersion", lambda: sampler(batch, data), "reads the input", ours=True)
    yield Contender("sum of the input", data.sum, "no masks: one read of the input")
    activity = smnm.MaskSampler("activity", shape.grid, shape.ratio).to(device)
    yield Contender("smnm activity", lambda: activity(batch, data), "reads the input", ours=True)


def _rbn_peers(shape: Shape, batch: int) -> Iterator[Contender]:
    call = (batch, shape.grid, shape.ratio)
    yield Contender(
        "inverse block (data2vec 2.0)", partial(peers.inverse_block_masking, *call), "no ids"
    )
    yield Contender("R-BN in NumPy", partial(peers.rbn_numpy, *call), "no ids")
    yield Contender("R-BN in Python", partial(peers.rbn_python, *call), "no ids")


def _noise_peers(shape: Shape, batch: int, device: torch.device) -> Iterator[Contender]:
    call = (batch, shape.grid, shape.ratio)
    bank = _bank(1 if shape.grid[0] == 1 else BANK_SHAPE[0])
    volumes = bank.volumes
    if device.type == "cuda":
        bank = bank.to(device)
        yield Contender(
            "noise bank on the device, crops and flips by one indexing",
            partial(peers.resident_bank_masking, bank.volumes, *call),
            "repeats its volumes",
        )
        yield Contender(
            "noise bank on the host, copied",
            lambda: [t.to(device) for t in peers.bank_masking(volumes, *call)],
            "repeats its volumes",
            graph=False,
        )
    else:
        yield Contender(
            "noise bank, crop and flips per sample",
            partial(peers.bank_masking, volumes, *call),
            "repeats its volumes",
        )
        yield Contender(
            "noise bank, crops and flips by one indexing",
            partial(peers.resident_bank_masking, volumes, *call),
            "repeats its volumes",
        )
        yield Contender(
            "noise bank, crop and resize per sample",
            partial(peers.resized_bank_masking, volumes, *call),
            "repeats its volumes; resizing changes the spectrum",
        )
        yield Contender(
            "noise bank, one crop for the batch (ColorMAE)",
            partial(peers.shared_crop_bank_masking, volumes, *call),
            "the same patterns in every batch",
        )
    yield Contender(
        "smnm NoiseBank.masks",
        partial(bank.masks, torch.arange(batch, device=device), shape.grid, shape.ratio),
        "repeats its volumes",
        ours=True,
    )
    yield Contender(
        "green, circulant products at the grid",
        partial(peers.circulant_green_masking, *call, device),
        "wraps around; one sigma for the batch; no ids_restore",
        graph=False,
    )
    yield Contender(
        "green, FFT on a padded canvas",
        partial(peers.fft_green_masking, *call, device),
        "one sigma for the batch; no ids_restore",
        graph=False,
    )
    yield Contender(
        "green, separable convolutions",
        partial(peers.conv_green_masking, *call, device),
        "one sigma for the batch; no ids_restore",
        graph=False,
    )
    if device.type == "cpu":
        yield Contender(
            "green, scipy per sample",
            partial(peers.scipy_green_masking, *call),
            "mirrors at the edges; one sigma for the batch; no ids_restore",
        )
        yield Contender(
            "tube generator and collate (VideoMAE)",
            partial(peers.tube_generator_masking, *call),
            "random tubes; keeps a few tokens more; no ids",
        )


@cache
def _bank(depth: int) -> smnm.NoiseBank:
    return smnm.NoiseBank.precompute(BANK_VOLUMES, (depth, *BANK_SHAPE[1:]), "green")


def check_ops(device: torch.device) -> None:
    """Compares masks of noise and R-BN with their definition on this device: times of a wrong op
    would be worth nothing.

    Raises:
        RunError: if masks differ.
    """
    ids = torch.tensor([0, 1, 5, 2**40], device=device)
    for shape in SHAPES:
        for name, ours, theirs in _pairs(ids, shape):
            if not all(torch.equal(a.cpu(), b) for a, b in zip(ours, theirs, strict=True)):
                raise RunError(f"{name} on {shape} does not equal its definition on this machine")


def _pairs(ids: torch.Tensor, shape: Shape) -> Iterator[tuple[str, tuple, tuple]]:
    for color in ("white", "red", "blue", "green"):
        call = (shape.grid, color, shape.ratio)
        yield (
            color,
            smnm.noise_masks(ids, *call),
            smnm.reference.noise_masks(ids.cpu(), *call),
        )
    weights = torch.arange(4 * shape.n_tokens, device=ids.device).view(4, -1) % 37
    yield (
        "weighted draw",
        smnm.weighted_masks(ids, weights, shape.ratio),
        smnm.reference.weighted_masks(ids.cpu(), weights.cpu(), shape.ratio),
    )
    if shape.grid[0] == 1:
        for ties in ("first", "random"):
            yield (
                f"rbn, ties {ties}",
                smnm.rbn_masks(ids, shape.grid, shape.ratio, tie_break=ties),
                smnm.reference.rbn_masks(ids.cpu(), shape.grid, shape.ratio, tie_break=ties),
            )


def mask_making(
    batches: tuple[int, ...],
    seconds: float,
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None],
) -> list[dict]:
    """Rows for every shape and batch, each measured ``repeats`` times for ``seconds`` in all.

    Repeats of one measurement lie apart in time, so that their spread tells what a later run would
    find.
    """
    groups = {
        (shape, batch): contenders(shape, batch, device) for shape in SHAPES for batch in batches
    }
    times: dict[tuple[Shape, int], dict[str, Times]] = {key: {} for key in groups}
    for repeat in range(repeats):
        for (shape, batch), group in groups.items():
            progress(f"masks: {shape}, B={batch}, repeat {repeat + 1} of {repeats}")
            share = seconds / repeats / len(groups)
            torch.manual_seed(0)  # the peers' time depends on the sigmas that they draw
            measure(group, times[shape, batch], share * (1 - IN_TURN), device)
            measure_in_turn(group, times[shape, batch], share * IN_TURN, device)
    made = []
    for (shape, batch), group in groups.items():
        made += rows(group, times[shape, batch], section="masks", shape=str(shape), batch=batch)
    return made
