"""The kinds of masks, and one of them with its arguments checked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .arguments import as_constant, check_sample_ids
from .baselines import baseline_masks, draw_baseline
from .calls import baseline_masks_call, noise_masks_call, rbn_masks_call
from .functional import noise_masks, rbn_masks
from .masks import Masks

#: Each kind as the function that makes it and what it fixes of the parameters. A two-dimensional
#: kind draws one (1, H, W) mask and repeats it over T.
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "random": ("noise_masks", {"color": "white"}),
    "tube": ("noise_masks", {"color": "white", "tube": True}),
    "rbn": ("rbn_masks", {}),
    **{
        f"{color}{dims}": ("noise_masks", {"color": color, "tube": dims == "2d"})
        for color in ("red", "blue", "green")
        for dims in ("2d", "3d")
    },
    **{
        kind: ("baseline_masks", {"kind": kind, "block_size": 5})
        for kind in ("grid", "block", "time_frequency")
    },
    "inverse_block": ("baseline_masks", {"kind": "inverse_block"}),
}
#: Each function, for its defaults, and what makes of its arguments those that it draws with.
_FUNCTIONS: dict[str, tuple[Callable, Callable]] = {
    "noise_masks": (noise_masks, noise_masks_call),
    "rbn_masks": (rbn_masks, rbn_masks_call),
    "baseline_masks": (baseline_masks, baseline_masks_call),
}


class Recipe:
    """A kind with a grid, a count and its parameters, checked once: ids and seed give masks.

    Args:
        kind, grid, mask_ratio, n_keep, parameters: as for ``MaskSampler``.
    """

    def __init__(
        self,
        kind: str,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        **parameters: object,
    ) -> None:
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        self.function, fixed = KINDS[kind]
        function, to_call = _FUNCTIONS[self.function]
        defaults = function.__kwdefaults__
        allowed = {name for name in defaults if name not in ("n_keep", "seed", *fixed)}
        if unknown := sorted(parameters.keys() - allowed):
            raise TypeError(
                f"{kind} masks have no parameter {', '.join(unknown)}; allowed: "
                f"{', '.join(sorted(allowed))}"
            )
        self.kind, self.parameters = kind, parameters
        self.freq_major = parameters.get("freq_major", False)
        chosen = {**defaults, **fixed, **parameters, "n_keep": n_keep, "seed": 0}
        nothing = torch.empty(0, dtype=torch.int64)
        _, _, _, *arguments = to_call(nothing, grid, mask_ratio=mask_ratio, **chosen)
        #: Those of the op, after ids and seed.
        self.arguments = tuple(arguments)
        self.grid = self.arguments[0]
        self.n_keep = self.masks(nothing, torch.tensor(0)).n_keep

    @property
    def repeats_over_time(self) -> bool:
        """Whether one two-dimensional mask is repeated over T."""
        return self.function == "baseline_masks" or (
            self.function == "noise_masks" and self.arguments[-1]
        )

    def noise(self, sample_ids: Tensor, seed: Tensor) -> Tensor:
        """float32 [B, T, H, W]: what a kind of noise thresholds."""
        grid, color, sigma, *_ = as_constant(self.arguments)
        return torch.ops.smnm.noise(sample_ids, *_seed_for(sample_ids, seed), grid, color, sigma)

    def masks(self, sample_ids: Tensor, seed: Tensor) -> Masks:
        """The masks of these ids, int64 [B]; their device does the work."""
        check_sample_ids(sample_ids)
        baseline = self.function == "baseline_masks"
        draw = draw_baseline if baseline else getattr(torch.ops.smnm, self.function)
        masks = Masks(*draw(sample_ids, *_seed_for(sample_ids, seed), *as_constant(self.arguments)))
        return masks.freq_major(self.grid) if self.freq_major else masks

    def __repr__(self) -> str:
        parameters = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        return f"{self.kind!r}, grid={self.grid}, n_keep={self.n_keep}{parameters}"


def _seed_for(sample_ids: Tensor, seed: Tensor) -> tuple[Tensor | None, int]:
    """(seed_tensor, seed) of an op: the tensor where it lies beside the ids, else its value."""
    return (seed, 0) if seed.device == sample_ids.device else (None, int(seed))
