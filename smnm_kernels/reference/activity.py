"""Activity masks, in loops: sounds of a spectrogram, and masks that hide them as a whole.

The envelope of a recording is the sum of each frame's values, which are integers (multiples of a
power of two, see ``reference.dispersion``). A step of the envelope is the sum of some frames less
that of as many before. Its peaks above a threshold are onsets, those of its negative offsets; sound
is what lies between an onset and the offset that follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from smnm_kernels.arguments import check_rows, check_sample_ids, parse_seed
from smnm_kernels.kinds.activity import (
    MIN_LENGTH,
    SMOOTHING,
    THETA,
    ActivityKind,
    check_spectrogram,
)
from smnm_kernels.masks import ActivityMasks
from smnm_kernels.tables.constants import (
    DEVIATION_UNIT_BITS,
    NOISE_FACTOR,
    STRUCTURE_SEED,
    WHITE_BITS,
    Purpose,
)

from .dispersion import quantised
from .fields import masks_from_visible
from .random_words import words


def activity_segments(
    data: Tensor,
    patch: Sequence[int],
    *,
    smoothing: int = SMOOTHING,
    theta: float = THETA,
    min_length: int = MIN_LENGTH,
    valid: Tensor | None = None,
) -> Tensor:
    """See ``smnm_kernels.activity_segments``."""
    kind = ActivityKind.of_data(
        data, patch, n_keep=1, smoothing=smoothing, theta=theta, min_length=min_length
    )
    check_spectrogram(data, kind.grid)
    return _segments(kind, data, _valid(kind, data, valid))


def activity_masks(
    sample_ids: Tensor,
    data: Tensor,
    patch: Sequence[int],
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    smoothing: int = SMOOTHING,
    theta: float = THETA,
    min_length: int = MIN_LENGTH,
    freq_major: bool = False,
    valid: Tensor | None = None,
    seed: int | Tensor = 0,
) -> ActivityMasks:
    """See ``smnm_kernels.activity_masks``."""
    check_sample_ids(sample_ids)
    kind = ActivityKind.of_data(
        data,
        patch,
        mask_ratio,
        n_keep=n_keep,
        smoothing=smoothing,
        theta=theta,
        min_length=min_length,
        freq_major=freq_major,
    )
    seed_tensor, seed_value = parse_seed(seed, sample_ids.device)
    number = seed_value if seed_tensor is None else int(seed_tensor)
    check_rows("data", data, sample_ids)
    check_spectrogram(data, kind.grid)
    row_major = _valid(kind, sample_ids, valid)
    segments = _segments(kind, data, row_major)
    visible = torch.zeros(row_major.shape, dtype=torch.bool)
    for i, sample_id in enumerate(sample_ids.tolist()):
        masked = _masked(kind, segments[i].tolist(), row_major[i].tolist(), sample_id, number)
        visible[i] = torch.tensor([token not in masked for token in range(row_major.shape[1])])
    masks = masks_from_visible(visible.to(sample_ids.device), kind.n_keep)
    return ActivityMasks(*kind.in_token_order(masks), segments)


def _valid(kind: ActivityKind, rows: Tensor, valid: Tensor | None) -> Tensor:
    """bool [B, N], row-major."""
    if valid is None:
        return torch.ones(len(rows), math.prod(kind.grid), dtype=torch.bool)
    return kind._parse_valid(rows, valid).cpu()


def _segments(kind: ActivityKind, data: Tensor, valid: Tensor) -> Tensor:
    """int64 [B, H]."""
    _, n_rows, n_bands = kind.grid
    values = quantised(data.detach().float().cpu().numpy(), DEVIATION_UNIT_BITS)
    has_valid = valid.unflatten(1, (n_rows, n_bands)).any(2).tolist()
    found = torch.zeros(len(values), n_rows, dtype=torch.int64)
    for i, spectrogram in enumerate(values):
        envelope = [int(total) for total in spectrogram[:, 0].sum((0, 2))]
        per_row = len(envelope) // n_rows
        seen = [has_valid[i][frame // per_row] for frame in range(len(envelope))]
        sounds = sounds_of(envelope, seen, kind.smoothing, kind.theta, kind.min_length)
        found[i] = torch.tensor(rows_of_sounds(sounds, n_rows, per_row, kind.min_length))
    return found.to(data.device)


def sounds_of(
    envelope: list[int], seen: list[bool], smoothing: int, theta: int, min_length: int
) -> list[range]:
    """The frames of each sound, from the first to the last."""
    frames = range(len(envelope))
    changes = sorted(
        abs(envelope[t] - envelope[t - 1]) for t in frames[1:] if seen[t] and seen[t - 1]
    )
    noise = changes[(len(changes) - 1) // 2] if changes else 0
    held = list(envelope)
    for t in frames:
        if not seen[t] and any(seen):
            before = [other for other in frames[:t] if seen[other]]
            held[t] = envelope[before[-1] if before else seen.index(True)]

    def total(begin: int) -> int:
        """Of frames from ``begin`` on; the recording goes on as its mirror image at its ends."""
        return sum(
            (held + held[::-1])[t % (2 * len(held))] for t in range(begin, begin + smoothing)
        )

    sums = {begin: total(begin) for begin in range(-smoothing, len(held) + 1)}
    rise = [sums[t] - sums[t - smoothing] for t in frames]
    least = max(
        (max(sums.values()) - min(sums.values())) * theta // 1000,
        noise * math.isqrt(NOISE_FACTOR**2 * smoothing * 10**6) // 1000,
    )
    events: dict[int, bool] = {}  # whether it is an onset
    for t in frames:
        before, after = rise[max(0, t - smoothing) : t], rise[t + 1 : t + 1 + smoothing]
        # On a plateau the last place is the onset and the first one the offset: a short sound is
        # then as long as it is.
        if (
            rise[t] > least
            and all(rise[t] >= r for r in before)
            and all(rise[t] > r for r in after)
        ):
            events[t] = True
        if (
            -rise[t] > least
            and all(rise[t] < r for r in before)
            and all(rise[t] <= r for r in after)
        ):
            events[t] = False
    is_sound = bool(events) and not events[min(events)]
    sounds: list[list[int]] = []
    for t in frames:
        is_sound = events.get(t, is_sound)
        if is_sound and seen[t]:
            if not sounds or sounds[-1][-1] != t - 1:
                sounds.append([])
            sounds[-1].append(t)
    return [range(s[0], s[-1] + 1) for s in sounds if len(s) >= min_length]


def rows_of_sounds(sounds: list[range], n_rows: int, per_row: int, min_length: int) -> list[int]:
    """For each row of patches 0, or k in the k-th sound that has a row."""
    first_sound = []
    for row in range(n_rows):
        frames = range(row * per_row, (row + 1) * per_row)
        inside = [i for t in frames for i, sound in enumerate(sounds) if t in sound]
        first_sound.append(inside[0] if 2 * len(inside) >= min(per_row, min_length) else None)
    numbers: list[int] = []
    last, count = None, 0
    for sound in first_sound:
        count += sound is not None and sound != last
        numbers.append(0 if sound is None else count)
        last = sound
    return numbers


def _masked(
    kind: ActivityKind, segments: list[int], valid: list[bool], sample_id: int, seed: int
) -> set[int]:
    """The masked tokens of one sample, row-major: those that are not valid, and as many valid ones
    as leave n_keep."""
    _, n_rows, n_bands = kind.grid
    bits = _bits(2 * n_rows + 1, sample_id, seed ^ STRUCTURE_SEED)
    rows = range(n_rows)
    found = [row for row in rows if segments[row]]
    left = sum(valid) - kind.n_keep
    if found:

        def turn(row: int) -> tuple[int, int, int]:
            if segments[row]:
                return 0, bits[segments[row] - 1], row
            return min(abs(row - other) for other in found), bits[n_rows + row], row

        order = sorted(rows, key=turn)
    else:
        begins = [
            row
            for row in rows
            if any(valid[row * n_bands : (row + 1) * n_bands])
            and sum(valid[row * n_bands :]) >= left
        ]
        begin = begins[bits[2 * n_rows] * len(begins) >> WHITE_BITS]
        order = [*rows[begin:], *rows[:begin]]
    chance = _bits(n_rows * n_bands, sample_id, seed)
    masked = {token for token in range(n_rows * n_bands) if not valid[token]}
    for row in order:
        tokens = [row * n_bands + band for band in range(n_bands) if valid[row * n_bands + band]]
        # The higher one of two with equal words: ``threshold`` keeps the lower token.
        tokens.sort(key=lambda token: (chance[token], -token))
        masked.update(tokens[:left])
        left -= len(tokens[:left])
    return masked


def _bits(n: int, sample_id: int, seed: int) -> list[int]:
    """The top bits of n random words: those that white noise is made from."""
    return [int(word) >> 32 - WHITE_BITS for word in words(n, Purpose.NOISE, sample_id, seed)]
