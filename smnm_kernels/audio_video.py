"""Masks for the video and the audio of the same clips, independent or hiding the same moments."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree

from .arguments import visible_share
from .masks import Masks
from .recipe import Recipe
from .stream import MaskStream

#: The seed XOR one of these: audio masks and hidden moments draw other words than video masks.
_AUDIO_SEED, _MOMENTS_SEED = 0x3C6EF372FE94F82B, 0x5851F42D4C957F2D


class AudioVideoMasks(NamedTuple):
    """Masks of the two modalities of the same clips, row by row. A pytree."""

    video: Masks
    audio: Masks


_pytree._register_namedtuple(AudioVideoMasks, serialized_type_name="smnm_kernels.AudioVideoMasks")


class AudioVideoSampler(MaskStream):
    """Draws video and audio masks together: ``sampler(batch_size) -> AudioVideoMasks``.

    >>> sampler = smnm.AudioVideoSampler(
    ...     video={"kind": "green3d", "grid": (8, 14, 14), "mask_ratio": 0.9},
    ...     audio={"kind": "rbn", "grid": (1, 64, 8), "mask_ratio": 0.8},
    ...     hidden_time=0.5,
    ... )
    >>> video, audio = sampler(batch_size)

    Without ``hidden_time`` the two are independent: the video masks are those of a ``MaskSampler``
    with the same arguments, the audio masks those of one with another seed.

    With it, a share of the clip's moments is hidden in both: no token of those moments is visible
    in either, so that neither modality can be restored from the other's view of the same moment.
    All visible tokens lie in the other moments, as many as ever. Which moments, is drawn for each
    clip: the lowest of a red noise over time, so that hidden moments hang together. Video shows the
    largest values of its noise in what is left; R-BN runs on the rows that are left, put together.
    That is our definition; the papers give none.

    Args:
        video, audio: arguments of ``MaskSampler`` without the seed. A moment is the longest stretch
            that is a whole number of video frames, ``grid[0]``, and of audio rows, ``grid[1]`` of
            (1, T, F): with 8 frames and 64 rows there are 8 moments of 1 frame and 8 rows.
        hidden_time: share of the moments hidden in both, in (0, 1): all but
            ``floor(moments * (1 - hidden_time))`` of them. Needs a kind of video mask that is not
            repeated over time.
        seed: names the stream.
    """

    def __init__(
        self,
        video: Mapping[str, object],
        audio: Mapping[str, object],
        *,
        hidden_time: float | None = None,
        seed: int | Tensor = 0,
    ) -> None:
        super().__init__(seed)
        self.video = _recipe("video", video)
        self.audio = _recipe("audio", audio)
        if self.audio.grid[0] != 1:
            raise ValueError(
                f"audio grid must be (1, T, F), got {self.audio.grid}: one plane, time by mel band"
            )
        self.hidden_time = hidden_time
        self._moments = None
        if hidden_time is not None:
            self._moments = _Moments(self.video, self.audio, hidden_time)
        self._prepare()

    def masks(self, sample_ids: Tensor) -> AudioVideoMasks:
        """The masks with these ids (int64 [B]), without advancing the stream."""
        audio_seed = self.seed ^ _AUDIO_SEED
        if self._moments is None:
            return AudioVideoMasks(
                self.video.masks(sample_ids, self.seed), self.audio.masks(sample_ids, audio_seed)
            )
        shown = self._moments.shown(sample_ids, self.seed ^ _MOMENTS_SEED)
        return AudioVideoMasks(
            self._moments.video_masks(sample_ids, self.seed, shown),
            self._moments.audio_masks(sample_ids, audio_seed, shown),
        )

    def extra_repr(self) -> str:
        return f"video={self.video!r}, audio={self.audio!r}, hidden_time={self.hidden_time}"


class _Moments:
    """The moments common to a video and an audio grid, and masks that hide some of them."""

    def __init__(self, video: Recipe, audio: Recipe, hidden_time: float) -> None:
        frames, rows = video.grid[0], audio.grid[1]
        n = math.gcd(frames, rows)
        if n == 1:
            raise ValueError(
                f"hidden_time needs moments common to both: {frames} video frames and {rows} "
                "audio rows have no common divisor"
            )
        try:
            share, out_of = visible_share(hidden_time)
        except (TypeError, ValueError) as error:
            raise type(error)(
                f"hidden_time must be a number in (0, 1), or None, got {hidden_time!r}"
            ) from None
        n_shown = n * share // out_of
        if not 0 < n_shown < n:
            raise ValueError(
                f"hidden_time must hide some of the {n} moments and leave some, got "
                f"{hidden_time!r}, which leaves {n_shown}"
            )
        self.frames, self.rows = frames // n, rows // n  # of one moment
        self.video, self.audio = video, audio
        self._which = Recipe("red3d", (1, 1, n), n_keep=n_shown)
        for name, recipe, planes, size in (
            ("video", video, self.frames, math.prod(video.grid[1:])),
            ("audio", audio, self.rows, audio.grid[2]),
        ):
            left = n_shown * planes * size
            if recipe.n_keep > left:
                raise ValueError(
                    f"{name} shows {recipe.n_keep} tokens, but {n_shown} of {n} moments, which "
                    f"hidden_time={hidden_time!r} leaves, have {left}"
                )
        if video.repeats_over_time:
            raise ValueError(
                "hidden_time needs video masks that may change over time, got "
                f"{video.kind!r}, which repeats one mask over all frames"
            )
        if audio.function == "baseline_masks":
            raise ValueError(f"hidden_time needs audio masks of noise or R-BN, got {audio.kind!r}")
        if audio.function == "rbn_masks":
            left = (1, n_shown * self.rows, audio.grid[2])
            rule = {name: p for name, p in audio.parameters.items() if name != "freq_major"}
            self._rbn = Recipe("rbn", left, n_keep=audio.n_keep, **rule)

    def shown(self, sample_ids: Tensor, seed: Tensor) -> Masks:
        """Which moments are not hidden, as masks of the moments."""
        return self._which.masks(sample_ids, seed)

    def video_masks(self, sample_ids: Tensor, seed: Tensor, shown: Masks) -> Masks:
        frames = shown.visible.repeat_interleave(self.frames, dim=1)
        return _noise_masks_in(frames[:, :, None, None], self.video, sample_ids, seed)

    def audio_masks(self, sample_ids: Tensor, seed: Tensor, shown: Masks) -> Masks:
        if self.audio.function != "rbn_masks":
            rows = shown.visible.repeat_interleave(self.rows, dim=1)
            return _noise_masks_in(rows[:, None, :, None], self.audio, sample_ids, seed)
        _, height, width = self.audio.grid
        rows_left = self._rbn.masks(sample_ids, seed).visible.unflatten(1, (-1, width))
        within = torch.arange(self.rows, device=sample_ids.device)
        place = (shown.ids_keep[:, :, None] * self.rows + within).flatten(1)
        visible = rows_left.new_zeros(len(sample_ids), height, width)
        visible = visible.scatter(1, place[:, :, None].expand_as(rows_left), rows_left)
        masks = Masks._with_count(visible.flatten(1), self.audio.n_keep)
        return masks.freq_major(self.audio.grid) if self.audio.freq_major else masks


def _noise_masks_in(places: Tensor, recipe: Recipe, sample_ids: Tensor, seed: Tensor) -> Masks:
    """Masks of the recipe's noise that are visible only where ``places`` is True."""
    noise = recipe.noise(sample_ids, seed).masked_fill(~places, -torch.inf)
    masks = Masks(*torch.ops.smnm.threshold(noise.flatten(1), recipe.n_keep))
    return masks.freq_major(recipe.grid) if recipe.freq_major else masks


def _recipe(name: str, arguments: Mapping[str, object]) -> Recipe:
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"{name} must be a dict of MaskSampler's arguments, got {type(arguments).__name__}"
        )
    if missing := {"kind", "grid"} - arguments.keys():
        raise TypeError(f"{name} must give kind, grid and mask_ratio, {sorted(missing)} missing")
    if "seed" in arguments:
        raise TypeError(f"{name} takes no seed of its own: give the sampler's seed")
    try:
        return Recipe(**arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error
