"""A sampler whose masks change as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import Tensor

from .arguments import is_int
from .masks import Masks
from .recipe import Recipe
from .shared import SharedInt
from .stream import MaskStream


class ScheduledSampler(MaskStream):
    """A ``MaskSampler`` in which kind, ratio and parameters may be functions of the step or epoch.

    >>> sampler = smnm.ScheduledSampler(
    ...     schedules.stages({0: "random", 2000: "green3d"}),
    ...     (8, 14, 14),
    ...     schedules.cosine(0.75, 0.9, steps=10_000),
    ... )
    >>> masks = sampler(batch_size)             # of this step
    >>> loss = compiled_step(x, masks)          # one graph for all steps

    The step counts calls (not the optimiser's steps, where gradients accumulate) and is part of
    ``state_dict()``; with ``every="epoch"`` it is what ``set_epoch`` says, in shared memory, so
    that data loader workers see it too. Sample ids go on as in a ``MaskSampler``.

    Draw outside compiled code and pass the masks in: a graph cannot choose by a step that it does
    not know. The number of visible tokens is marked as dynamic, so what takes the masks is compiled
    once.

    On a GPU the kernels of the present step and of all milestones of ``stages`` are compiled when
    the sampler comes there. A sigma that changes from step to step may need another kernel now and
    then, which takes seconds and cannot be captured in a CUDA graph.

    Args:
        kind, grid, mask_ratio, n_keep, seed, parameters: as for ``MaskSampler``; all but grid and
            seed may be callables that take the step, such as those of ``smnm.schedules``. They
            must depend on the step alone. Where the kind changes, so must parameters that only some
            kinds take: ``sigma=stages({0: None, 2000: "variant-3"})``.
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
        self._step = SharedInt()
        self._made: tuple[dict[str, object], Recipe] | None = None
        # What is wrong at the ends of a schedule fails now, not after a day of training.
        self._milestones = sorted(
            {0}.union(*(getattr(s, "milestones", ()) for s in settings.values()))
        )
        for step in self._milestones:
            self._recipe_at(step)
        self._prepare()

    @property
    def step(self) -> int:
        """The step that the next call draws for, or the epoch."""
        return self._step.get()

    @property
    def recipe(self) -> Recipe:
        """Of the present step or epoch."""
        return self._recipe_at(self.step)

    @property
    def grid(self) -> tuple[int, int, int]:
        return self.recipe.grid

    @property
    def n_keep(self) -> int:
        """Visible tokens of the masks of the present step or epoch."""
        return self.recipe.n_keep

    def _recipe_at(self, step: int) -> Recipe:
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
        _ = self.recipe  # what is wrong with this step fails before the stream moves on
        masks = super().forward(batch_size)
        if self.every == "step":
            self._step.set(self.step + 1)
        # A count changes with the ratio, and with a kind that rounds otherwise.
        torch._dynamo.maybe_mark_dynamic(masks.ids_keep, 1)
        return masks

    def _recipes(self) -> dict[str, Callable[[Tensor], object]]:
        recipes = [self._recipe_at(step) for step in (*self._milestones, self.step)]
        return {repr(recipe): partial(recipe.masks, seed=self.seed) for recipe in recipes}

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
        self._step.set(epoch)

    def reset(self, next_id: int = 0, step: int = 0) -> None:
        """Go to a place in the stream and in the schedule."""
        if not is_int(step) or step < 0:
            raise ValueError(f"step must be a non-negative int, got {step!r}")
        super().reset(next_id)
        self._step.set(step)

    def checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        raise NotImplementedError(
            "a ScheduledSampler's masks are drawn before the checkpointed region and passed in"
        )

    def get_extra_state(self) -> Tensor:
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        self._step.set(int(state))

    def extra_repr(self) -> str:
        return f"{self.recipe!r} at {self.every} {self.step}"
