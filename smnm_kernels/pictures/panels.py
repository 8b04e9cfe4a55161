"""The panels of `smnm show`: from its arguments to one sampler for each kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from smnm_kernels import MaskSampler
from smnm_kernels.arguments import Grid
from smnm_kernels.errors import UsageError
from smnm_kernels.kinds import KINDS, NoiseField, NoiseKind
from smnm_kernels.tables.colors import COLORS, SIGMA_PRESETS, Sigma

#: Kinds for spectrograms: they need T = 1, so next to video kinds they get a grid of their own.
AUDIO_KINDS = ("rbn", "time_frequency")
#: Kinds that are drawn for an input.
NEED_DATA = ("dispersion", "activity")
AUDIO_RATIO = 0.8
VIDEO_RATIO = 0.9

TIMES, SIGMA = "\N{MULTIPLICATION SIGN}", "\N{GREEK SMALL LETTER SIGMA}"


@dataclass(frozen=True)
class Panel:
    """One kind with a sampler that has all its arguments."""

    sampler: MaskSampler
    mask_ratio: float | None

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
        return self.sampler.masks(torch.arange(n_samples)).visible.unflatten(1, self.grid)

    def facts(self) -> list[str]:
        """What a reader needs to make the same masks, in short phrases."""
        n_tokens = self.grid[0] * self.grid[1] * self.grid[2]
        facts = [
            TIMES.join(map(str, self.grid)) + " patches",
            self.ratio_in_words(),
            f"{self.sampler.n_keep} of {n_tokens} visible",
            self.sigma_in_words(),
        ]
        return [fact for fact in facts if fact]

    def ratio_in_words(self) -> str:
        return "" if self.mask_ratio is None else f"mask ratio {self.mask_ratio:g}"

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


def panels(
    kinds: Sequence[str],
    grid: Grid,
    audio_grid: Grid,
    mask_ratio: float | None,
    n_keep: int | None,
    sigma: Sequence[str],
    seed: int,
) -> list[Panel]:
    """A panel for each kind.

    Audio kinds take ``grid`` if it has T = 1 and ``audio_grid`` otherwise. Without ``mask_ratio``
    and ``n_keep``, audio kinds mask 0.8 and the others 0.9.

    Raises:
        UsageError: naming the argument, what came and what is allowed.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"kinds must be among {', '.join(KINDS)}, got {', '.join(unknown)}")
    if blind := [kind for kind in kinds if kind in NEED_DATA]:
        raise UsageError(
            f"kinds must not look at an input, which smnm show has none of, got {', '.join(blind)}"
        )
    colored = [kind for kind in kinds if kind.removesuffix("2d").removesuffix("3d") in COLORS]
    if sigma and not colored:
        raise UsageError(
            f"sigma is for red, blue and green kinds, got sigma={' '.join(sigma)} "
            f"with {', '.join(kinds)}"
        )
    made = []
    for kind in kinds:
        audio = kind in AUDIO_KINDS
        own_grid = audio_grid if audio and grid[0] != 1 else grid
        ratio = mask_ratio
        if mask_ratio is None and n_keep is None:
            ratio = AUDIO_RATIO if audio else VIDEO_RATIO
        own_sigma = _sigma(sigma) if kind in colored else None
        extra = {} if own_sigma is None else {"sigma": own_sigma}
        try:
            sampler = MaskSampler(kind, own_grid, ratio, n_keep=n_keep, seed=seed, **extra)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{kind}: {error}") from None
        made.append(Panel(sampler, ratio))
    return made


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
