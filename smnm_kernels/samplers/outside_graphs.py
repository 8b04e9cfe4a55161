"""A module of its own, imported when it is first needed: torch.compiler.disable imports the whole
compiler, which takes a second that ``import smnm_kernels`` need not take."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch

P = ParamSpec("P")
Result = TypeVar("Result")


@torch.compiler.disable(
    reason="a ScheduledSampler is drawn outside compiled code: pass its masks in"
)
def outside_graphs(function: Callable[P, Result], *arguments: P.args, **named: P.kwargs) -> Result:
    """``function(*arguments, **named)``, which torch.compile does not look into."""
    return function(*arguments, **named)
