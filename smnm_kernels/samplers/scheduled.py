"""A sampler whose masks change as training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from smnm_kernels.arguments import Seed, check_sample_ids, is_int
from smnm_kernels.kinds import Kind, make_kind
from smnm_kernels.masks import Masks

from .shared_int import SharedInt
from .stream import MaskStream

if TYPE_CHECKING:
    from typing_extensions import Self


class _At(NamedTuple):
    """The arguments of one step (or epoch), and the kind made from them."""

    arguments: dict[str, object]
    kind: Kind


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

    Draw outside compiled code and pass the masks in: a compiled graph does not know the step. The
    number of visible tokens is marked as dynamic, so the code that takes the masks is compiled
    once.

    On a GPU the kernels of the present step and of all milestones of ``stages`` are compiled when
    the sampler is moved there. A sigma that changes from step to step may need another kernel now
    and then. To compile it takes seconds, and a CUDA graph cannot capture that.

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
        **parameters: Any,
    ) -> None:
        super().__init__(seed)
        if every not in ("step", "epoch"):
            raise ValueError(f'every must be "step" or "epoch", got {every!r}')
        self.every = every
        self._grid = grid
        self._scheduled = {"kind": kind, "mask_ratio": mask_ratio, "n_keep": n_keep, **parameters}
        self._step = SharedInt()
        self._last: _At | None = None
        # Errors at the ends of a schedule are raised now, not after a day of training.
        self._milestones = sorted(
            {0}.union(*(getattr(s, "milestones", ()) for s in self._scheduled.values()))
        )
        for step in self._milestones:
            self._at(step)
        self._prepare()

    @property
    def step(self) -> int:
        """The step that the next call draws for, or the epoch."""
        return self._step.get()

    @property
    def settings(self) -> Kind:
        """The kind of the present step or epoch."""
        return self._at(self.step).kind

    @property
    def grid(self) -> tuple[int, int, int]:
        """(T, H, W) patches."""
        return self.settings.grid

    @property
    def n_keep(self) -> int:
        """Visible tokens of the masks of the present step or epoch."""
        return self.settings.n_keep

    def _at(self, step: int) -> _At:
        now: dict[str, Any] = {
            name: s(step) if callable(s) else s for name, s in self._scheduled.items()
        }
        if self._last is None or self._last.arguments != now:
            try:
                self._last = _At(now, self._make(now))
            except (TypeError, ValueError) as error:
                raise type(error)(f"at {self.every} {step}: {error}") from error
        return self._last

    def _make(self, arguments: Mapping[str, Any]) -> Kind:
        """The kind of these values."""
        return make_kind(grid=self._grid, **arguments)

    def forward(
        self,
        batch_size: int | Sequence[int],
        data: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Masks:
        """The next masks of this rank, of the present step; advances stream and step."""
        from .outside_graphs import draw_outside_graphs

        return draw_outside_graphs(self, batch_size, data, valid)

    def _draw(
        self, batch_size: int | Sequence[int], data: Tensor | None, valid: Tensor | None
    ) -> Masks:
        _ = self.settings  # errors of this step are raised before the stream advances
        masks = super().forward(batch_size, data, valid)
        if self.every == "step":
            self._step.set(self.step + 1)
        # n_keep changes with the ratio, and with the kind: some round it per frame.
        torch._dynamo.maybe_mark_dynamic(masks.ids_keep, 1)
        return masks

    def _replicate_for_data_parallel(self) -> Self:
        copy = super()._replicate_for_data_parallel()
        if self.every == "step" and copy._replica and copy._replica.place > 0:
            raise NotImplementedError(
                "nn.DataParallel cannot copy a ScheduledSampler that goes by step, because every "
                'copy would count the step. Use DistributedDataParallel or every="epoch", or draw '
                "the masks before the model and pass them in"
            )
        return copy

    @property
    def needs_data(self) -> bool:
        return any(kind.needs_data for kind in self._kinds_ahead())

    def _kinds_ahead(self) -> Iterator[Kind]:
        """The kinds at the milestones of all schedules and at the present step."""
        return (self._at(step).kind for step in (*self._milestones, self.step))

    def _first_draws(self) -> dict[Kind, Callable[[Tensor], object]]:
        seed = Seed(self.seed, 0)
        return {k: partial(k.draw, seed=seed) for k in self._kinds_ahead() if not k.needs_data}

    def masks(
        self, sample_ids: Tensor, data: Tensor | None = None, valid: Tensor | None = None
    ) -> Masks:
        """The masks of these sample ids (int64 [B]) at the present step or epoch; neither stream
        nor step advances. ``data`` and ``valid`` as for ``MaskSampler.masks``."""
        check_sample_ids(sample_ids)
        return self.settings.draw(sample_ids, Seed.beside(sample_ids, self.seed), data, valid)

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of a schedule with ``every="epoch"``. Call it before each epoch."""
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
        now = self._at(self.step)
        given = ("kind", "mask_ratio", "n_keep")
        parameters = {name: s for name, s in now.arguments.items() if name not in given}
        return f"{now.kind.describe(parameters)} at {self.every} {self.step}"
