"""Masks for the video and the audio of the same clips: independent, or both hiding the same
moments."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree

from smnm_kernels.arguments import Seed, check_sample_ids, visible_share
from smnm_kernels.kinds import Kind, NoiseKind, RbnKind, make_kind
from smnm_kernels.masks import Masks, masks_of_visible

from .stream import MaskStream

#: The seed XOR these is the seed of audio masks and of hidden moments, whose random words must
#: differ from those of the video masks.
_AUDIO_SEED, _MOMENTS_SEED = 0x3C6EF372FE94F82B, 0x5851F42D4C957F2D


class AudioVideoMasks(NamedTuple):
    """Masks of the two modalities; row i of both belongs to clip i. A pytree."""

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

    With it, a share of each clip's moments is hidden in both: no token of a hidden moment is
    visible in either modality, so neither can be restored from the other's view of that moment. The
    number of visible tokens stays the same; all lie in the other moments. Hidden moments are drawn
    for each clip: those where a red noise over time is lowest, so that they come in runs. In the
    moments that are left, video shows the largest values of its noise, and R-BN runs on the audio
    rows that are left as if they were one grid. This is our definition; the papers give none.

    Args:
        video, audio: arguments of ``MaskSampler`` without the seed. Moments are equal parts of the
            clip, as many as divide both the video frames, ``grid[0]``, and the audio rows,
            ``grid[1]`` of (1, T, F): with 8 frames and 64 rows there are 8 moments of 1 frame and 8
            rows.
        hidden_time: share of the moments hidden in both, in (0, 1):
            ``floor(moments * (1 - hidden_time))`` are not hidden. Needs a kind of video mask that
            is not repeated over time.
        seed: names the stream.
    """

    result = AudioVideoMasks

    def __init__(
        self,
        video: Mapping[str, Any],
        audio: Mapping[str, Any],
        *,
        hidden_time: float | None = None,
        seed: int | Tensor = 0,
    ) -> None:
        super().__init__(seed)
        self.video = _kind_of("video", video)
        self.audio = _kind_of("audio", audio)
        self._given = [_parameters_in(arguments) for arguments in (video, audio)]
        if self.audio.grid[0] != 1:
            raise ValueError(
                f"audio grid must be (1, T, F), got {self.audio.grid}: one plane, time by mel band"
            )
        self.hidden_time = hidden_time
        self._moments = None
        if hidden_time is not None:
            self._moments = _Moments(self.video, self.audio, self._given[1], hidden_time)
        self._prepare()

    @property
    def needs_data(self) -> bool:
        return self.video.needs_data or self.audio.needs_data

    def _first_draws(self) -> dict[Hashable, Callable[[Tensor], object]]:
        key = (self.video, self.audio, self.hidden_time)
        return {} if self.needs_data else {key: self.masks}

    def masks(
        self,
        sample_ids: Tensor,
        data: Mapping[str, Tensor] | None = None,
        valid: Mapping[str, Tensor] | None = None,
    ) -> AudioVideoMasks:
        """The masks of these sample ids (int64 [B]); the stream does not advance.

        Args:
            data: {"video": ..., "audio": ...}, the inputs, for those of the two kinds that look at
                the input.
            valid: {"video": ..., "audio": ...} or one of them: where tokens may be visible, see
                ``noise_masks``. Not with ``hidden_time``: the moments that it leaves of a clip may
                have too few valid tokens.
        """
        check_sample_ids(sample_ids)
        video_seed = Seed.beside(sample_ids, self.seed)
        audio_seed = video_seed ^ _AUDIO_SEED
        if self._moments is None:
            data, valid = _parse_of_both("data", data), _parse_of_both("valid", valid)
            return AudioVideoMasks(
                *(
                    kind.draw(sample_ids, seed, data.get(name), valid.get(name))
                    for name, kind, seed in (
                        ("video", self.video, video_seed),
                        ("audio", self.audio, audio_seed),
                    )
                )
            )
        if data is not None:
            raise TypeError(
                "data must not be given: masks with hidden_time do not depend on the input, got "
                f"{type(data).__name__}"
            )
        if valid is not None:
            raise TypeError(
                "valid must not be given with hidden_time: the moments that it leaves may have too "
                f"few valid tokens, got {type(valid).__name__}"
            )
        shown = self._moments.draw(sample_ids, video_seed ^ _MOMENTS_SEED)
        return AudioVideoMasks(
            self._moments.video_masks(sample_ids, video_seed, shown),
            self._moments.audio_masks(sample_ids, audio_seed, shown),
        )

    def extra_repr(self) -> str:
        video, audio = (
            kind.describe(parameters)
            for kind, parameters in zip((self.video, self.audio), self._given, strict=True)
        )
        return f"video={video}, audio={audio}, hidden_time={self.hidden_time}"


class _Moments:
    """The moments common to a video and an audio grid, and masks that hide some of them."""

    def __init__(
        self,
        video: Kind,
        audio: Kind,
        audio_parameters: dict[str, Any],
        hidden_time: float,
    ) -> None:
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
                f"hidden_time must be a number in (0, 1), got {hidden_time!r}"
            ) from None
        n_shown = n * share // out_of
        if not 0 < n_shown < n:
            raise ValueError(
                f"hidden_time must hide some of the {n} moments and leave some, got "
                f"{hidden_time!r}, which leaves {n_shown}"
            )
        self.frames, self.rows = frames // n, rows // n  # of one moment
        self._which = make_kind("red3d", (1, 1, n), n_keep=n_shown)
        for name, kind, planes, size in (
            ("video", video, self.frames, math.prod(video.grid[1:])),
            ("audio", audio, self.rows, audio.grid[2]),
        ):
            left = n_shown * planes * size
            if kind.n_keep > left:
                raise ValueError(
                    f"{name} shows {kind.n_keep} tokens, but {n_shown} of {n} moments, which "
                    f"hidden_time={hidden_time!r} leaves, have {left}"
                )
        if video.repeats_over_time:
            raise ValueError(
                "hidden_time needs video masks that may change over time, got "
                f"{video.name!r}, which repeats one mask over all frames"
            )
        if not isinstance(video, NoiseKind):
            raise ValueError(f"hidden_time needs video masks of noise, got {video.name!r}")
        if not isinstance(audio, (NoiseKind, RbnKind)):
            raise ValueError(f"hidden_time needs audio masks of noise or R-BN, got {audio.name!r}")
        self.video, self.audio = video, audio
        if isinstance(audio, RbnKind):
            grid_left = (1, n_shown * self.rows, audio.grid[2])
            more = audio_parameters | {"freq_major": False}
            self._rbn_of_rows_left = make_kind("rbn", grid_left, n_keep=audio.n_keep, **more)

    def draw(self, sample_ids: Tensor, seed: Seed) -> Masks:
        """Masks over the moments, visible = not hidden."""
        return self._which.draw(sample_ids, seed)

    def video_masks(self, sample_ids: Tensor, seed: Seed, shown: Masks) -> Masks:
        frames = shown.visible.repeat_interleave(self.frames, dim=1)
        return self.video.draw_within(frames[:, :, None, None], sample_ids, seed)

    def audio_masks(self, sample_ids: Tensor, seed: Seed, shown: Masks) -> Masks:
        if isinstance(self.audio, NoiseKind):
            rows = shown.visible.repeat_interleave(self.rows, dim=1)
            return self.audio.draw_within(rows[:, None, :, None], sample_ids, seed)
        _, height, width = self.audio.grid
        made = self._rbn_of_rows_left.draw(sample_ids, seed)
        rows_left = made.visible.unflatten(1, (-1, width))
        within = torch.arange(self.rows, device=sample_ids.device)
        place = (shown.ids_keep[:, :, None] * self.rows + within).flatten(1)
        visible = rows_left.new_zeros(len(sample_ids), height, width)
        visible = visible.scatter(1, place[:, :, None].expand_as(rows_left), rows_left)
        return self.audio.in_token_order(masks_of_visible(visible.flatten(1), self.audio.n_keep))


def _kind_of(name: str, arguments: Mapping[str, Any]) -> Kind:
    if not isinstance(arguments, Mapping):
        raise TypeError(
            f"{name} must be a dict of MaskSampler's arguments, got {type(arguments).__name__}"
        )
    if missing := {"kind", "grid"} - arguments.keys():
        raise TypeError(f"{name} must give kind, grid and mask_ratio, {sorted(missing)} missing")
    if "seed" in arguments:
        raise TypeError(f"{name} takes no seed of its own: give the sampler's seed")
    try:
        return make_kind(**arguments)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from error


def _parameters_in(arguments: Mapping[str, Any]) -> dict[str, Any]:
    given = ("kind", "grid", "mask_ratio", "n_keep")
    return {name: value for name, value in arguments.items() if name not in given}


def _parse_of_both(name: str, given: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given.keys() <= {"video", "audio"}:
        came = sorted(given) if isinstance(given, Mapping) else type(given).__name__
        raise TypeError(f'{name} must be a dict with "video", "audio" or both, got {came}')
    return given
