"""The panels of `smnm show`: from its arguments to one sampler for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from smnm_kernels import MaskSampler
from smnm_kernels.arguments import Grid
from smnm_kernels.errors import UsageError
from smnm_kernels.kinds import KINDS, ActivityKind, NoiseField, NoiseKind, make_kind
from smnm_kernels.tables.colors import COLORS, SIGMA_PRESETS, Sigma

from .inputs import Input, is_sound_file, made_by_code, of_file

if TYPE_CHECKING:
    from smnm_kernels.train.data.padding import TokenGrid

#: Kinds for spectrograms: they need T = 1, so next to video kinds they get a grid of their own.
AUDIO_KINDS = ("rbn", "time_frequency", "bands", "activity")
#: Kinds that compare frames.
VIDEO_KINDS = ("motion",)
AUDIO_RATIO = 0.8
VIDEO_RATIO = 0.9
#: About the share of time that is sound, where these masks are whole sounds.
ACTIVITY_RATIO = 0.4

TIMES, SIGMA = "\N{MULTIPLICATION SIGN}", "\N{GREEK SMALL LETTER SIGMA}"


@dataclass(frozen=True)
class Panel:
    """One kind with a sampler that has all its arguments."""

    sampler: MaskSampler
    mask_ratio: float | None
    #: What kinds look at that need data.
    input: Input | None = None

    @property
    def noise(self) -> NoiseField | None:
        """The noise that is thresholded, on (1, H, W) if one mask is repeated over T; None for
        kinds that are made in another way."""
        settings = self.sampler.settings
        return settings.noise if isinstance(settings, NoiseKind) else None

    @property
    def color(self) -> str | None:
        """The color of the noise, or None."""
        return None if self.noise is None else self.noise.color

    @property
    def kind(self) -> str:
        return self.sampler.kind

    @property
    def grid(self) -> Grid:
        return self.sampler.grid

    def visible(self, n_samples: int) -> torch.Tensor:
        """bool [n_samples, T, H, W], the masks with sample ids 0, 1, ..."""
        ids, data, valid = torch.arange(n_samples), None, self.valid
        if self.input is not None:
            data = self.input.data.expand(n_samples, -1, -1, -1, -1)
        valid = None if valid is None else valid.expand(n_samples, -1)
        return self.sampler.masks(ids, data, valid).visible.unflatten(1, self.grid)

    @cached_property
    def valid(self) -> torch.Tensor | None:
        """bool [1, N]: the tokens that may be visible, as the trainer hides padding."""
        if self.input is None or self.input.real is None:
            return None
        return self._tokens(self.input).valid(self.input.real)[None]

    def _tokens(self, shown: Input) -> TokenGrid:
        from smnm_kernels.train.data.padding import TokenGrid

        _, _, *sides = shown.data.shape
        return TokenGrid((sides[0], sides[1], sides[2]), self.grid, self.sampler.n_keep)

    @cached_property
    def segments(self) -> list[int] | None:
        """Of activity masks: for each row of patches 0, or k in the k-th sound."""
        settings = self.sampler.settings
        if self.input is None or not isinstance(settings, ActivityKind):
            return None
        return settings.segments(self.input.data, self.valid)[0].tolist()

    def facts(self) -> list[str]:
        """What a reader needs to make the same masks, in short phrases."""
        n_tokens = self.grid[0] * self.grid[1] * self.grid[2]
        facts = [
            TIMES.join(map(str, self.grid)) + " patches",
            self.ratio_in_words(),
            f"{self.sampler.n_keep} of {n_tokens} visible",
            self.sigma_in_words(),
            self.time_scale_in_words(),
            self.input.name if self.input else "",
            self.padding_in_words(),
        ]
        return [fact for fact in facts if fact]

    def ratio_in_words(self) -> str:
        return "" if self.mask_ratio is None else f"mask ratio {self.mask_ratio:g}"

    def padding_in_words(self) -> str:
        if self.input is None or self.input.real is None or self.valid is None:
            return ""
        is_padding = ~self._tokens(self.input).real(self.input.real).flatten()
        count = int((self.valid[0] & is_padding).sum())
        if not count:
            return "its padding is hidden"
        return f"{count} of its {int(is_padding.sum())} patches of padding count as sound"

    def sigma_in_words(self) -> str:
        ends = () if self.noise is None else self.noise.sigma  # white noise has none
        if not ends:
            return ""
        ranges = [
            f"{low:g}" if low == high else f"{low:g} to {high:g}"
            for low, high in zip(ends[::2], ends[1::2], strict=True)
        ]
        names = [f"{SIGMA}₁", f"{SIGMA}₂"] if len(ranges) == 2 else [SIGMA]
        return ", ".join(f"{name} {words}" for name, words in zip(names, ranges, strict=True))

    def time_scale_in_words(self) -> str:
        scale = 1 if self.noise is None else self.noise.time_scale
        return "" if scale == 1 else f"{SIGMA} along time {TIMES} {scale:g}"


def panels(
    kinds: Sequence[str],
    grid: Grid,
    audio_grid: Grid,
    mask_ratio: float | None,
    n_keep: int | None,
    sigma: Sequence[str],
    seed: int,
    data: Path | None = None,
    time_scales: Sequence[float] = (),
) -> list[Panel]:
    """A panel for each kind; of colored noise in three dimensions, for each scale of time.

    Audio kinds and those that look at a sound take ``grid`` if it has T = 1 and ``audio_grid``
    otherwise. Without ``mask_ratio`` and ``n_keep``, they mask 0.8, activity 0.4, others 0.9.
    Kinds that look at an input get the file ``data``, or one made by code.

    Raises:
        UsageError: naming the argument, what came and what is allowed.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"kinds must be among {', '.join(KINDS)}, got {', '.join(unknown)}")
    with_data = [kind for kind in kinds if needs_data(kind)]
    if data is not None and not with_data:
        able = [kind for kind in KINDS if needs_data(kind)]
        raise UsageError(
            f"--data is for kinds that look at an input ({', '.join(able)}), got {', '.join(kinds)}"
        )
    colored = [kind for kind in kinds if kind.removesuffix("2d").removesuffix("3d") in COLORS]
    if sigma and not colored:
        raise UsageError(
            f"sigma is for red, blue and green kinds, got sigma={' '.join(sigma)} "
            f"with {', '.join(kinds)}"
        )
    moving = [kind for kind in colored if kind.endswith("3d")]
    if time_scales and not moving:
        raise UsageError(
            "time_scale is for red3d, blue3d and green3d, got time_scale="
            f"{' '.join(f'{scale:g}' for scale in time_scales)} with {', '.join(kinds)}"
        )
    drawn: list[tuple[str, dict[str, float]]] = []
    for kind in kinds:
        scales = time_scales if kind in moving else ()
        drawn += [(kind, {"time_scale": scale}) for scale in scales] or [(kind, {})]
    made = []
    for kind, scale in drawn:
        audio = kind in AUDIO_KINDS
        if kind in with_data and data is not None:
            audio = is_sound_file(data, kind, only_sound=audio)
        elif kind in with_data:
            audio = audio or grid[0] == 1  # what ``made_by_code`` makes then
        own_grid = audio_grid if audio and grid[0] != 1 else grid
        if kind in VIDEO_KINDS and (audio or grid[0] == 1):
            came = f"--data {data}" if data is not None and audio else f"--grid {grid}"
            raise UsageError(f"{kind} masks need a video and a grid with T > 1, got {came}")
        ratio = mask_ratio
        if mask_ratio is None and n_keep is None:
            ratio = AUDIO_RATIO if audio else VIDEO_RATIO
            ratio = ACTIVITY_RATIO if kind == "activity" else ratio
        own_sigma = _sigma(sigma) if kind in colored else None
        extra = scale if own_sigma is None else {"sigma": own_sigma, **scale}
        try:
            sampler = MaskSampler(kind, own_grid, ratio, n_keep=n_keep, seed=seed, **extra)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{kind}: {error}") from None
        shown = None
        if kind in with_data:
            own = sampler.grid
            shown = made_by_code(own) if data is None else of_file(data, own, audio)
        made.append(Panel(sampler, ratio, shown))
    return made


def needs_data(kind: str) -> bool:
    return make_kind(kind, (1, 8, 8), 0.5).needs_data


def _sigma(words: Sequence[str]) -> Sigma:
    """Sigma from the words of a command line: a preset; one number; two numbers, the range of red
    and blue or the pair of green; or four numbers, the two ranges of green."""
    if not words:
        return None
    if len(words) == 1 and words[0] in SIGMA_PRESETS:
        return words[0]
    complaint = (
        f"sigma must be one, two or four numbers or a preset ({', '.join(SIGMA_PRESETS)}), "
        f"got {' '.join(words)}"
    )
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise UsageError(complaint) from None
    if len(numbers) not in (1, 2, 4):
        raise UsageError(complaint)
    if len(numbers) == 4:
        return [numbers[:2], numbers[2:]]
    return numbers[0] if len(numbers) == 1 else numbers
