"""The kinds of masks: each a frozen object that knows its grid and count, and draws.

>>> kind = make_kind("green3d", (8, 14, 14), 0.9)
>>> kind.draw(sample_ids, Seed(None, 0))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial

from .activity import ActivityKind
from .bands import BandsKind
from .baselines import BASELINES
from .kind import Kind
from .mixed import MixedKind
from .motion import MotionKind
from .multi_block import MultiBlockKind
from .noise import NoiseField, NoiseKind
from .rbn import RbnKind
from .self_guided import SelfGuidedKind
from .structures import (
    BlockKind,
    FramesKind,
    InverseBlockKind,
    LatticeKind,
    RunningCellKind,
    TimeFrequencyKind,
)
from .weighted import DispersionKind

#: For each name of a kind, the function that makes one from a grid, a mask ratio or n_keep, and the
#: kind's parameters.
KINDS: dict[str, Callable[..., Kind]] = {
    "random": partial(NoiseKind.parse, color="white"),
    "tube": partial(NoiseKind.parse, color="white", tube=True),
    "rbn": RbnKind.parse,
    "red2d": partial(NoiseKind.parse, color="red", tube=True),
    "red3d": partial(NoiseKind.parse, color="red", tube=False),
    "blue2d": partial(NoiseKind.parse, color="blue", tube=True),
    "blue3d": partial(NoiseKind.parse, color="blue", tube=False),
    "green2d": partial(NoiseKind.parse, color="green", tube=True),
    "green3d": partial(NoiseKind.parse, color="green", tube=False),
    **BASELINES,
    "dispersion": DispersionKind.parse,
    "motion": MotionKind.parse,
    "activity": ActivityKind.parse,
    "self_guided": SelfGuidedKind.parse,
}


def make_kind(
    kind: str,
    grid: Sequence[int],
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    **parameters: object,
) -> Kind:
    """The kind of this name, with its arguments checked.

    Args:
        kind, grid, mask_ratio, n_keep, parameters: as for ``MaskSampler``.
    """
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    parse = KINDS[kind]
    allowed = parameters_of(kind)
    if unknown := sorted(parameters.keys() - allowed):
        raise TypeError(
            f"{kind} masks have no parameter {', '.join(unknown)}; allowed: "
            f"{', '.join(sorted(allowed))}"
        )
    return parse(grid, mask_ratio, n_keep=n_keep, **parameters)


def parameters_of(kind: str) -> set[str]:
    """The names of a kind's parameters, without grid, mask_ratio and n_keep."""
    parse = KINDS[kind]
    fixed = parse.keywords if isinstance(parse, partial) else {}
    return inspect.signature(parse).parameters.keys() - {"grid", "mask_ratio", "n_keep", *fixed}


__all__ = [
    "KINDS",
    "ActivityKind",
    "BandsKind",
    "BlockKind",
    "DispersionKind",
    "FramesKind",
    "InverseBlockKind",
    "Kind",
    "LatticeKind",
    "MixedKind",
    "MotionKind",
    "MultiBlockKind",
    "NoiseField",
    "NoiseKind",
    "RbnKind",
    "RunningCellKind",
    "SelfGuidedKind",
    "TimeFrequencyKind",
    "make_kind",
    "parameters_of",
]
