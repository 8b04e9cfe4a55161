"""Why a loss was not a number: the first tensor on the way to it that was bad, and the files.

Losses are read from the device only now and then. The optimiser leaves the weights alone from the
first bad one on (`Loop._update`), and samples are functions of their numbers, so the step can be
done again, slowly and with eyes on every tensor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_leaves

from smnm_kernels.errors import printable
from smnm_kernels.train.data.loader import Batch, SampleDataset

from .before import Before
from .forward import Forward
from .meter import StepClock
from .task import Task

_MOST_FILES = 10
# Inputs are of the order of one. What is so large makes sums overflow sooner or later.
_ABSURD = 1e4


@dataclass(frozen=True)
class Finding:
    """What was bad in the part of the batch that one process has."""

    depth: int  # of causes: the lowest leads to the others
    what: str
    advice: str
    files: list[str]

    def __str__(self) -> str:
        files = f". Files of the batch: {some(self.files)}" if self.files else ""
        return f"{self.what}. {self.advice}{files}"


def not_found(error: Exception | None = None) -> Finding:
    """Where the step could not be done again."""
    why = f" ({error})" if error is not None and str(error) else ""
    return Finding(4, f"it could not be looked into{why}", "A lower --lr may help", [])


def some(names: list[str]) -> str:
    names = list(dict.fromkeys(names))
    more = len(names) - _MOST_FILES
    return ", ".join(names[:_MOST_FILES]) + (f" and {more} more" if more > 0 else "")


def file_names(dataset: SampleDataset, batch: Batch) -> list[str]:
    return [printable(dataset.name(i)) for i in batch.file_numbers.tolist()]


def bad_weights(model: nn.Module) -> list[str]:
    """Names of weights that hold values that are not finite; waits for the device."""
    named = dict(model.named_parameters())
    finite = torch.stack([weight.isfinite().all() for weight in named.values()]).tolist()
    return [name for name, fine in zip(named, finite, strict=True) if not fine]


def find(
    task: Task,
    forward: Forward,
    batches: Iterable[tuple[int, Batch]],
    before: Before,
    device: torch.device,
    peak_lr: float,
) -> Finding:
    """Do a step again, on the weights that it had, and look.

    batches: the parts of this process's share, each with the seed of what the model draws.
    """
    files: list[str] = []
    lower = f"Begin again in another --out, with a lower --lr than {peak_lr:g}"
    bad = bad_weights(task.model)
    before.restore(task)
    looking = _Looking(forward)
    for seed, batch in batches:
        names = file_names(task.dataset, batch)
        files += names
        found = _bad_input(batch)
        if found:
            place, what = found
            advice = f"Leave {names[place]} out of DATA, and begin again in another --out"
            return Finding(0, f"{what} from {names[place]}", advice, names)
        if bad:
            continue
        torch.manual_seed(seed)
        with torch.no_grad(), looking:
            loss = task.step(looking, batch.to(device), StepClock(device))["loss"].item()
        if looking.found or not math.isfinite(loss):
            first = looking.found or "the model's output is finite, the loss made of it is not"
            advice = "Begin again with another --mask or --mask-ratio" if looking.mask else lower
            return Finding(2, f"{first}; the files' values are finite", advice, names)
    if bad:
        what = (
            f"the weights were not finite when it began (the first of {len(bad)}: {bad[0]}): the "
            "gradients of the step before were not, though its loss was"
        )
        return Finding(1, what, lower, files)
    what = "done again, the step has a finite loss: it lies neither with the data nor the weights"
    advice = "Go on with the same command; where it comes back, suspect the device's memory"
    return Finding(3, what, advice, files)


def _bad_input(batch: Batch) -> tuple[int, str] | None:
    """(place in the batch, what is wrong) of the first sample whose values are no good."""
    for name, x in batch.inputs.items():
        if not x.is_floating_point():
            continue
        flat = x.float().flatten(1)
        bad = ~flat.isfinite()
        if bad.any():
            place = int(bad.any(1).nonzero()[0])
            value = float(flat[place][bad[place]][0])
            return place, f"input {name!r} of sample {int(batch.sample_ids[place])} holds {value}"
        largest = flat.abs().amax(1)
        place = int(largest.argmax())
        if largest[place] > _ABSURD:
            sample, value = int(batch.sample_ids[place]), float(largest[place])
            return place, f"input {name!r} of sample {sample} holds values up to {value:.3g}"
    return None


class _Looking:
    """Calls the model as `Forward` does, but in this process alone and not compiled, and keeps what
    is the first bad tensor."""

    def __init__(self, forward: Forward) -> None:
        self._forward = forward
        self.found = ""
        self.mask = False  # whether it was a mask
        self._hooks = ExitStack()

    def __enter__(self) -> None:
        model = self._forward.model
        for name, module in model.named_modules():
            hook = module.register_forward_hook(self._hook(name or type(model).__name__))
            self._hooks.callback(hook.remove)

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def __call__(self, *arguments: Any) -> Any:
        for path, x in tree_flatten_with_path(arguments)[0]:
            if not isinstance(x, Tensor):
                continue
            where = f"argument {keystr(path)} of the model"
            self._note(_not_finite(x), where)
            # Of values that are fine, no mean over hidden patches can be taken where none is. Other
            # bools, such as which tokens are no padding, may well be all alike.
            is_mask = getattr(path[-1], "name", None) == "visible"
            if is_mask and (x.all(1) | ~x.any(1)).any():
                self.mask = self.mask or not self.found
                self._note("is a mask that hides all or nothing", where)
        return self._forward.plainly(*arguments)

    def _hook(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            for x in tree_leaves(output):
                if isinstance(x, Tensor):
                    self._note(_not_finite(x), f"the output of {name}")

        return hook

    def _note(self, what: str, where: str) -> None:
        if what and not self.found:
            self.found = f"{where} {what}"


def _not_finite(x: Tensor) -> str:
    if not x.is_floating_point():
        return ""
    bad = ~x.isfinite()
    return f"is the first that holds {float(x[bad][0])}" if bad.any() else ""
