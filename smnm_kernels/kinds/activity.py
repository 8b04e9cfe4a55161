"""Activity masks: whole sounds of a spectrogram are masked, found by their onsets and offsets.

All decisions are made in integers, so that masks are the same bits on every device.
``reference.activity`` is the definition, in loops; it says what each step means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from smnm_kernels import ops
from smnm_kernels.arguments import (
    Grid,
    Seed,
    as_constant,
    is_int,
    parse_flag,
    parse_grid,
    parse_n_keep,
    parse_thousandths,
)
from smnm_kernels.masks import ActivityMasks, Masks
from smnm_kernels.tables.constants import (
    DEVIATION_UNIT_BITS,
    EXACT_WHITE_SCALE,
    MAX_FRAME,
    MAX_SMOOTHING,
    MAX_VALUE_BITS,
    NOISE_FACTOR,
    STRUCTURE_SEED,
    WHITE_BITS,
)

from .kind import Kind
from .weighted import check_input, parse_patch

#: Defaults: frames that are averaged on each side of an on- or offset, the least step in shares of
#: the envelope's range, and the frames of the shortest sound.
SMOOTHING, THETA, MIN_LENGTH = 20, 0.2, 8

#: Below all steps of an envelope.
_LOWEST = -(2**62)


@dataclass(frozen=True)
class ActivityKind(Kind):
    """Whole sounds are masked (see ``smnm_kernels.activity_masks``)."""

    grid: Grid
    n_keep: int
    freq_major: bool
    #: Frames that are averaged on each side of a step.
    smoothing: int
    #: Thousandths of the envelope's range.
    theta: int
    #: Frames.
    min_length: int
    needs_data: ClassVar[bool] = True

    @staticmethod
    def parse(
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        smoothing: int = SMOOTHING,
        theta: float = THETA,
        min_length: int = MIN_LENGTH,
        freq_major: bool = False,
    ) -> ActivityKind:
        """From the arguments of ``smnm_kernels.activity_masks``."""
        sides = parse_grid(as_constant(grid))
        if sides[0] != 1:
            raise ValueError(
                f"grid for activity masks must be (1, time, mel bands) or (time, mel bands), got "
                f"{sides}"
            )
        return ActivityKind(
            sides,
            parse_n_keep(math.prod(sides), mask_ratio, as_constant(n_keep)),
            parse_flag("freq_major", freq_major),
            *_parse_detection(as_constant(smoothing), as_constant(theta), as_constant(min_length)),
        )

    @property
    def name(self) -> str:
        return "activity"

    @property
    def repeats_over_time(self) -> bool:
        return False

    @staticmethod
    def of_data(
        data: Tensor,
        patch: Sequence[int],
        mask_ratio: float | None = None,
        **parameters: Any,
    ) -> ActivityKind:
        """From the arguments of ``smnm_kernels.activity_masks``, on the grid that its input has."""
        check_input(data)
        _, grid = parse_patch(data, patch)
        return ActivityKind.parse(grid, mask_ratio, **parameters)

    def segments(self, data: Tensor, valid: Tensor | None = None) -> Tensor:
        """See ``smnm_kernels.activity_segments``."""
        return self._segments(data, None if valid is None else self._parse_valid(data, valid))

    def _segments(self, data: Tensor, valid: Tensor | None) -> Tensor:
        """``segments``, with ``valid`` bool [B, N] row-major."""
        _, n_rows, n_bands = as_constant(self.grid)
        smoothing, theta = as_constant(self.smoothing), as_constant(self.theta)
        min_length = as_constant(self.min_length)
        check_spectrogram(data, self.grid)
        envelope = _envelope(data)
        if valid is None:
            active = _active_frames(envelope, _noise_of(envelope), smoothing, theta)
        else:
            rows = valid.unflatten(1, (n_rows, n_bands)).any(2)
            seen = rows[:, :, None].expand(-1, -1, envelope.shape[1] // n_rows).flatten(1)
            noise = _noise_of(envelope, seen)
            active = _active_frames(_held(envelope, seen), noise, smoothing, theta) & seen
        return _rows_of_segments(_of_length(active, min_length), n_rows, min_length)

    def draw_with_segments(
        self,
        sample_ids: Tensor,
        seed: Seed,
        data: Tensor | None,
        valid: Tensor | None = None,
    ) -> ActivityMasks:
        """``draw``, with the segments that it found."""
        self._check_data(sample_ids, data)
        row_major = None if valid is None else self._parse_valid(sample_ids, valid)
        masks, segments = self._draw(sample_ids, seed, data, row_major)
        return ActivityMasks(*self.in_token_order(masks), segments)

    def _draw_row_major(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        return self._draw(sample_ids, seed, data, valid)[0]

    def _draw(
        self, sample_ids: Tensor, seed: Seed, data: Tensor | None, valid: Tensor | None
    ) -> tuple[Masks, Tensor]:
        assert data is not None
        _, n_rows, n_bands = as_constant(self.grid)
        n_keep = as_constant(self.n_keep)
        segments = self._segments(data, valid)
        bits = _random_bits(sample_ids, seed ^ STRUCTURE_SEED, 2 * n_rows + 1)
        if valid is None:
            n_valid = torch.full_like(segments, n_bands)
        else:
            n_valid = valid.unflatten(1, (n_rows, n_bands)).sum(2)
        keys = torch.where(
            (segments > 0).any(1, keepdim=True),
            _keys_by_segment(segments, bits),
            _keys_of_a_block(n_valid, n_keep, bits[:, -1:]),
        )
        order = keys.sort(dim=1, stable=True).indices
        places = torch.arange(n_rows, device=order.device).expand_as(order)
        rank = torch.empty_like(order).scatter_(1, order, places)
        # Rows of lower rank are masked first. Within the last one that is masked, chance decides.
        # These integers have at most 52 bits, which float64 holds exactly.
        chance = _random_bits(sample_ids, seed, n_rows * n_bands).unflatten(1, (n_rows, n_bands))
        priority = ((rank[:, :, None] << WHITE_BITS) + chance).flatten(1).double()
        if valid is not None:
            priority = priority.masked_fill(~valid, -1.0)
        return Masks(*ops.threshold(priority, n_keep)), segments


def _parse_detection(smoothing: int, theta: float, min_length: int) -> tuple[int, int, int]:
    """(smoothing, theta in thousandths, min_length), checked."""
    allowed = f"smoothing must be an int of frames in [1, {MAX_SMOOTHING}]"
    if not is_int(smoothing):
        raise TypeError(f"{allowed}, got {smoothing!r}")
    if not 1 <= smoothing <= MAX_SMOOTHING:
        raise ValueError(f"{allowed}, got {smoothing}")
    if not is_int(min_length):
        raise TypeError(f"min_length must be a positive int of frames, got {min_length!r}")
    if min_length < 1:
        raise ValueError(f"min_length must be a positive int of frames, got {min_length}")
    in_range = "theta must be a decimal in [0, 1] with at most three places"
    return int(smoothing), parse_thousandths(theta, 1000, in_range), int(min_length)


def check_spectrogram(data: Tensor, grid: Grid) -> None:
    """Numbers [B, C, 1, frames, bands], frames and bands multiples of the grid's."""
    check_input(data)
    _, channels, length, frames, bands = data.shape
    _, n_rows, n_bands = grid
    if length != 1:
        raise ValueError(
            f"data for activity masks must have T = 1, [B, C, 1, frames, bands], got "
            f"{list(data.shape)}"
        )
    if frames % n_rows or bands % n_bands:
        raise ValueError(
            f"data must have frames and bands that are multiples of the grid {grid}, got "
            f"{list(data.shape)}"
        )
    if channels * bands > MAX_FRAME:
        raise ValueError(
            f"data must have at most {MAX_FRAME} values in a frame of all channels, got "
            f"{list(data.shape)}"
        )


def _envelope(data: Tensor) -> Tensor:
    """int64 [B, frames]: the sum of each frame's values, rounded down to multiples of a unit."""
    most = 2.0**MAX_VALUE_BITS
    values = data.detach().float()[:, :, 0].nan_to_num(-most, most, -most)  # memory of its own
    units = values.clamp_(-most, most).mul_(2.0**DEVIATION_UNIT_BITS).floor_()
    return units.sum((1, 3), dtype=torch.float64).long()  # whole numbers of at most 40 bits


def _held(envelope: Tensor, seen: Tensor) -> Tensor:
    """The envelope, in frames that are not seen that of the last one before, or else of the first
    one."""
    first = _next(seen)[:, :1].clamp(max=seen.shape[1] - 1)
    last = _latest(seen)
    return envelope.gather(1, torch.where(last < 0, first, last))


def _noise_of(envelope: Tensor, seen: Tensor | None = None) -> Tensor:
    """int64 [B]: the median change from frame to frame, of those between frames that are seen; the
    lower one of two in the middle."""
    change = (envelope[:, 1:] - envelope[:, :-1]).abs()
    if change.shape[1] == 0:
        return torch.zeros_like(envelope[:, 0])
    if seen is None:
        return change.sort(dim=1).values[:, (change.shape[1] - 1) // 2]
    counted = seen[:, 1:] & seen[:, :-1]
    falling = change.masked_fill(~counted, 0).sort(dim=1, descending=True).values
    middle = (counted.sum(1, keepdim=True) // 2).clamp(max=change.shape[1] - 1)
    return falling.gather(1, middle)[:, 0]


def _active_frames(envelope: Tensor, noise: Tensor, smoothing: int, theta: int) -> Tensor:
    """bool [B, frames]: whether the last on- or offset was an onset."""
    frames = envelope.shape[1]
    place = torch.arange(-smoothing, frames + smoothing, device=envelope.device) % (2 * frames)
    mirrored = envelope[:, torch.where(place < frames, place, 2 * frames - 1 - place)]
    total = torch.nn.functional.pad(mirrored.cumsum(1), (1, 0))
    sums = total[:, smoothing:] - total[:, :-smoothing]
    rise = (sums[:, smoothing:] - sums[:, :-smoothing])[:, :frames]
    of_range = (sums.amax(1) - sums.amin(1)) * theta // 1000
    of_noise = noise * math.isqrt(NOISE_FACTOR**2 * smoothing * 10**6) // 1000
    least = torch.maximum(of_range, of_noise)[:, None]
    fall = -rise
    both = torch.stack([rise, fall])
    before, after = _highest_before(both, smoothing), _highest_before(both.flip(2), smoothing)
    after = after.flip(2)
    onset = (rise > least) & (rise >= before[0]) & (rise > after[0])
    offset = (fall > least) & (fall > before[1]) & (fall >= after[1])
    event = onset | offset
    last, first = _latest(event), _next(event)[:, :1].clamp(max=frames - 1)
    # Before the first one there is sound if it is an offset.
    return torch.where(last < 0, offset.gather(1, first), onset.gather(1, last.clamp(min=0)))


def _highest_before(values: Tensor, n: int) -> Tensor:
    """The highest of the n values before each, along the last dimension."""
    behind = torch.nn.functional.pad(values, (n, 0), value=_LOWEST)[..., :-1]
    return behind.unfold(-1, n, 1).amax(-1)


def _of_length(active: Tensor, least: int) -> Tensor:
    """``active`` without its runs of fewer than ``least`` frames."""
    begin, end = _latest(~active) + 1, _next(~active)
    return active & (end - begin >= least)


def _rows_of_segments(active: Tensor, n_rows: int, min_length: int) -> Tensor:
    """int64 [B, n_rows]: the segments of runs of active frames."""
    number = (active & ~torch.nn.functional.pad(active[:, :-1], (1, 0))).cumsum(1)
    active, number = active.unflatten(1, (n_rows, -1)), number.unflatten(1, (n_rows, -1))
    per_row = active.shape[2]
    is_active = 2 * active.sum(2) >= min(per_row, min_length)
    # A row with parts of two belongs to the first of them.
    number = torch.where(active, number, 2**62).amin(2)
    number = torch.where(is_active, number, 0)
    is_first = is_active & (number != torch.nn.functional.pad(number[:, :-1], (1, 0)))
    return torch.where(is_active, is_first.cumsum(1), 0)


def _keys_by_segment(segments: Tensor, bits: Tensor) -> Tensor:
    """int64 [B, H]: rows with lower keys are masked first. Segments come in random order; behind
    them rows by their distance from the next segment, those of equal distance in random order."""
    n_rows = segments.shape[1]
    of_segment, of_row = bits[:, :n_rows], bits[:, n_rows : 2 * n_rows]
    found = segments > 0
    row = torch.arange(n_rows, device=segments.device)
    before, after = _latest(found), _next(found)
    distance = torch.where(before < 0, n_rows, row - before)
    distance = torch.minimum(distance, torch.where(after < n_rows, after - row, n_rows))
    around = (distance << WHITE_BITS) + of_row
    return torch.where(found, of_segment.gather(1, (segments - 1).clamp(min=0)), around)


def _keys_of_a_block(n_valid: Tensor, n_keep: int, bits: Tensor) -> Tensor:
    """int64 [B, H]: as ``_keys_by_segment``, for a block of rows at a random place."""
    n_rows = n_valid.shape[1]
    behind = n_valid.flip(1).cumsum(1).flip(1)  # valid tokens in this row and behind it
    # A block may begin where enough tokens are left for it.
    may_begin = (n_valid > 0) & (behind >= behind[:, :1] - n_keep)
    count = may_begin.cumsum(1)
    chosen = bits * count[:, -1:] >> WHITE_BITS
    begin = (count <= chosen).sum(1, keepdim=True)
    return (torch.arange(n_rows, device=n_valid.device) - begin) % n_rows


def _random_bits(sample_ids: Tensor, seed: Seed, n: int) -> Tensor:
    """int64 [B, n], WHITE_BITS random bits each."""
    white = ops.noise(sample_ids, *seed, (1, 1, n), "white", ()).flatten(1).double()
    # Before the floor, values lie half way between two integers: float32's rounding of the noise
    # cannot move one past an integer.
    return ((white / EXACT_WHITE_SCALE + 2**WHITE_BITS) / 2).floor().long()


def _latest(flags: Tensor) -> Tensor:
    """int64 [B, n]: at each place, the last one up to it where ``flags`` is True, or -1."""
    place = torch.arange(flags.shape[1], device=flags.device)
    return torch.where(flags, place, -1).cummax(1).values


def _next(flags: Tensor) -> Tensor:
    """int64 [B, n]: at each place, the first one from it on where ``flags`` is True, or n."""
    return flags.shape[1] - 1 - _latest(flags.flip(1)).flip(1)
