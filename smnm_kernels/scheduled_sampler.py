"""A sampler whose masks change as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

from .arguments import is_int
from .masks import Masks
from .recipe import Recipe
from .stream import MaskStream


class ScheduledSampler(MaskStream):
    """A ``MaskSampler`` in which kind, ratio and parameters may be functions of the step or epoch.

    >>> sampler = smnm.ScheduledSampler(
    ...     schedules.stages({0: "random", 2000: "green3d"}),
    ...     (8, 14, 14),
    ...     schedules.cosine(0.75, 0.9, steps=10_000),
    ... )
    >>> masks = sampler(batch_size)             # of this step
    >>> loss = compiled_step(x, masks)          # one graph for all ratios

    The step counts the calls and is part of ``state_dict()``; with ``every="epoch"`` it is what
    ``set_epoch`` says, in shared memory, so that data loader workers see it too. Sample ids go on
    as in a ``MaskSampler``.

    Draw outside compiled code and pass the masks in: a graph cannot choose by a step that it does
    not know. The number of visible tokens is marked as dynamic, so what takes the masks is compiled
    once.

    Args:
        kind, grid, mask_ratio, n_keep, seed, parameters: as for ``MaskSampler``; all but grid and
            seed may be callables that take the step, such as those of ``smnm.schedules``. They
            must depend on the step alone.
        every: "step" or "epoch".
    """

    def __init__(
        self,
        kind: str | Callable[[int], str],
        grid: Sequence[int],
        mask_ratio: float | Callable[[int], float] | None = None,
        *,
        n_keep: int | Callable[[int], int] | None = None,
        every: str = "step",
        seed: int | Tensor = 0,
        **parameters: object,
    ) -> None:
        super().__init__(seed)
        if every not in ("step", "epoch"):
            raise ValueError(f'every must be "step" or "epoch", got {every!r}')
        self.every = every
        settings = {"kind": kind, "mask_ratio": mask_ratio, "n_keep": n_keep, **parameters}
        self._grid = grid
        self._settings = settings
        self._changes_shape = callable(mask_ratio) or callable(n_keep)
        self._step = torch.zeros((), dtype=torch.int64).share_memory_()
        self._made: tuple[dict[str, object], Recipe] | None = None
        # What is wrong at the ends of a schedule fails now, not after a day of training.
        for step in sorted({0}.union(*(getattr(s, "milestones", ()) for s in settings.values()))):
            self.recipe_at(step)

    @property
    def step(self) -> int:
        """The step that the next call draws for, or the epoch."""
        return int(self._step)

    @property
    def recipe(self) -> Recipe:
        """Of the present step or epoch."""
        return self.recipe_at(self.step)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.recipe.grid

    @property
    def n_keep(self) -> int:
        """Visible tokens of the masks of the present step or epoch."""
        return self.recipe.n_keep

    def recipe_at(self, step: int) -> Recipe:
        """Kind, count and parameters of a step or epoch."""
        now = {name: s(step) if callable(s) else s for name, s in self._settings.items()}
        if self._made is None or self._made[0] != now:
            try:
                self._made = (now, Recipe(grid=self._grid, **now))
            except (TypeError, ValueError) as error:
                raise type(error)(f"at {self.every} {step}: {error}") from error
        return self._made[1]

    @torch.compiler.disable(
        reason="a ScheduledSampler is drawn outside compiled code: pass its masks in"
    )
    def forward(self, batch_size: int | Sequence[int]) -> Masks:
        """The next masks of this rank, of the present step; advances stream and step."""
        masks = super().forward(batch_size)
        if self.every == "step":
            self._step += 1
        if self._changes_shape:
            torch._dynamo.maybe_mark_dynamic(masks.ids_keep, 1)
        return masks

    def masks(self, sample_ids: Tensor) -> Masks:
        """The masks with these ids (int64 [B]) at the present step or epoch; nothing advances."""
        return self.recipe.masks(sample_ids, self.seed)

    def set_epoch(self, epoch: int) -> None:
        """Before each epoch, where the schedule goes by epoch."""
        if self.every != "epoch":
            raise ValueError('set_epoch is for every="epoch"; this schedule goes by step')
        if not is_int(epoch) or epoch < self.step:
            raise ValueError(
                f"epoch must be an int and not before {self.step}, which was used already (reset "
                f"starts again), got {epoch!r}"
            )
        self._step.fill_(epoch)

    def reset(self, next_id: int = 0, step: int = 0) -> None:
        """Go to a place in the stream and in the schedule."""
        if not is_int(step) or step < 0:
            raise ValueError(f"step must be a non-negative int, got {step!r}")
        super().reset(next_id)
        self._step.fill_(step)

    def checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        raise NotImplementedError(
            "a ScheduledSampler's masks are drawn before the checkpointed region and passed in"
        )

    def get_extra_state(self) -> Tensor:
        return self._step.clone()

    def set_extra_state(self, state: Tensor) -> None:
        self._step.copy_(state)

    def extra_repr(self) -> str:
        return f"{self.recipe!r} at {self.every} {self.step}"
