"""The public functions that find sounds in spectrograms, and mask them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .arguments import check_sample_ids, parse_seed
from .kinds.activity import MIN_LENGTH, SMOOTHING, THETA, ActivityKind
from .masks import ActivityMasks


def activity_segments(
    data: Tensor,
    patch: Sequence[int],
    *,
    smoothing: int = SMOOTHING,
    theta: float = THETA,
    min_length: int = MIN_LENGTH,
    valid: Tensor | None = None,
) -> Tensor:
    """The sounds of spectrograms, between their onsets and offsets.

    The envelope is the mean of each frame. Its step at a frame is the mean of the ``smoothing``
    frames from there on, less that of the ``smoothing`` frames before (the recording is continued
    by its mirror image at both ends). Where a step is the highest within ``smoothing`` frames to
    both sides and exceeds a threshold, a sound begins; where its negative does, one ends. A
    recording that begins with an end begins within a sound. The threshold is the larger one of
    ``theta`` times the range of the smoothed envelope, and of what noise makes: 7 times the median
    change from one frame to the next, divided by sqrt(smoothing). So it is the same for raw and for
    normalised input, and at any loudness.

    Args:
        data: numbers, [B, C, 1, frames, bands], such as log-mel spectrograms, raw or normalised, of
            at most 2**13 values in a frame. They are clamped to +-1024 and rounded down to
            multiples of 2**-16, so that sums are exact; NaN counts as -1024.
        patch: (1, h, w) values of a token; they must divide (1, frames, bands).
        smoothing: frames, in [1, 256].
        theta: share of the smoothed envelope's range, a decimal in [0, 1] with at most three
            places.
        min_length: frames; shorter sounds are dropped.
        valid: as for ``activity_masks``, tokens counted row-major.

    Returns:
        int64 [B, H]: for each row of patches 0 where it is quiet, k in the k-th sound. A row is in
        a sound if at least half of min(h, min_length) of its frames are, so that each sound has a
        row, but for one that lies within the last row of the sound before: a row with parts of two
        is in the first of them. The same bits on every device.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.

    Source: AVT finds on- and offsets by the derivative of the mel envelope, and has no public code.
    Smoothing, thresholds, lengths, ends of the recording and rows are our choice.
    """
    kind = ActivityKind.of_data(
        data, patch, n_keep=1, smoothing=smoothing, theta=theta, min_length=min_length
    )
    return kind.segments(data, valid)


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
    """Whole sounds of a spectrogram are masked, in random order.

    Rows of patches (all bands of a time) are masked until N - n_keep tokens are. First the segments
    of ``activity_segments``, one after the other in random order, each from its beginning: the last
    one is cut at its end. Where all of them are too few, the rows around them follow, by their
    distance from the next segment (of two equally far, a random one first), so that segments grow
    at both edges. Of the last row, which is masked in part, random bands are masked. Where no
    segment is found, a block of rows at a random place is masked.

    Args:
        sample_ids: int64 [B], any values; their device does the work.
        data, patch, smoothing, theta, min_length: as for ``activity_segments``; ``data`` is on the
            device of ``sample_ids``.
        mask_ratio, n_keep: as for ``threshold``; exactly one of them.
        freq_major: as for ``noise_masks``. ``segments`` counts time in either order.
        valid: as for ``noise_masks``. Segments are found among the rows that have valid tokens, as
            if the recording were still in all others.
        seed: int, or int64 tensor of one element on the device of ``sample_ids``.

    Returns:
        ``ActivityMasks``: the fields of ``Masks``, and ``segments``, int64 [B, H]. ``.masks`` is
        the ``Masks``.

    Raises:
        TypeError, ValueError: before any work. The message names the argument.

    Source: as of ``activity_segments``; the order, the growth at edges and the block are our
    choice, too. The ratio decides what such masks are: where it is larger than the share of time
    that is sound, what stays visible is quiet.
    """
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
    seeds = parse_seed(seed, sample_ids.device)
    return kind.draw_with_segments(sample_ids, seeds, data, valid)
