"""One probe of one encoder's features: settings chosen on training files, scores of the test files.

No test file has a part in anything but its own scores.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.train.data.splits import split_off

from .attentive import AttentiveSettings, attentive
from .knn import choose_neighbours, knn
from .linear import choose_strength, fit_linear
from .targets import Standard, Task

ProbeName = Literal["linear", "knn", "attentive"]

_CHOOSING_SHARE = 0.2
# Of few files a class nothing is chosen: there is no file to spare.
_FEW_STRENGTH = 1.0
_FEW_NEIGHBOURS = 20


@dataclass(frozen=True)
class Trial:
    """One division of the files, as places in their list: a fold, or the only one."""

    name: str
    train: np.ndarray
    val: np.ndarray  # settings are chosen on these; where there are none, on a fifth of `train`
    test: np.ndarray


@dataclass(frozen=True)
class Data:
    """What all encoders are asked for."""

    task: Task
    values: np.ndarray  # of all files, as `Task` says
    names: list[str]  # of all files
    groups: list[str] | None  # of all files; None where none has one
    trials: tuple[Trial, ...]
    seed: int

    @cached_property
    def choosing(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each trial (places to fit on, places to choose on): the second empty where a class, or
        a number, has one file or group only."""
        return [self._choosing(trial) for trial in self.trials]

    def _choosing(self, trial: Trial) -> tuple[np.ndarray, np.ndarray]:
        if len(trial.val):
            return trial.train, trial.val
        train = trial.train.tolist()
        is_class = self.task.kind == "class"
        chosen = split_off(
            [self.names[place] for place in train],
            [int(self.values[place]) if is_class else 0 for place in train],
            None if self.groups is None else [self.groups[place] for place in train],
            _CHOOSING_SHARE,
        )
        is_chosen = np.isin(np.arange(len(train)), sorted(chosen))
        return trial.train[~is_chosen], trial.train[is_chosen]

    def tested(self) -> np.ndarray:
        """The places of the test files of all trials, one behind the other."""
        return np.concatenate([trial.test for trial in self.trials])


class Scored(NamedTuple):
    """Of one probe."""

    scores: np.ndarray  # of the test files, in the order of `Data.tested`
    chosen: list[dict[str, Any]]  # in each trial


@dataclass(frozen=True)
class Inputs:
    """An encoder's features of all files; a place that no trial has may hold anything."""

    vectors: np.ndarray  # float64 [files, dim]
    tokens: Sequence[Tensor]  # [n, dim] of each file; empty where no probe needs them
    heads: int  # of the attentive probe


@dataclass(frozen=True)
class Probes:
    """How the probes are made."""

    neighbours: int | None  # None: chosen
    device: torch.device  # of the attentive probe

    def run(self, name: ProbeName, data: Data, inputs: Inputs) -> Scored:
        run: Callable[[Data, int, Inputs], tuple[np.ndarray, dict[str, Any]]] = {
            "linear": self._linear,
            "knn": self._knn,
            "attentive": self._attentive,
        }[name]
        of_trials = [run(data, number, inputs) for number in range(len(data.trials))]
        scores = np.concatenate([scores for scores, _ in of_trials])
        return Scored(scores, [chosen for _, chosen in of_trials])

    def _linear(self, data: Data, number: int, inputs: Inputs) -> tuple[np.ndarray, dict[str, Any]]:
        trial = data.trials[number]
        x, values = inputs.vectors, data.values
        fit, choose = data.choosing[number]
        strength = choose_strength(data.task, (x[fit], values[fit]), (x[choose], values[choose]))
        predict = fit_linear(data.task, x[trial.train], values[trial.train], strength)
        return predict(x[trial.test]), {"C": strength}

    def _knn(self, data: Data, number: int, inputs: Inputs) -> tuple[np.ndarray, dict[str, Any]]:
        trial = data.trials[number]
        x, values = inputs.vectors, data.values
        k = self.neighbours
        if k is None:
            fit, choose = data.choosing[number]
            k = choose_neighbours(data.task, (x[fit], values[fit]), (x[choose], values[choose]))
        known = (x[trial.train], values[trial.train])
        return knn(data.task, *known, x[trial.test], k), {"k": k}

    def _attentive(
        self, data: Data, number: int, inputs: Inputs
    ) -> tuple[np.ndarray, dict[str, Any]]:
        trial = data.trials[number]
        fit, choose = data.choosing[number]
        scores, steps = attentive(
            data.task,
            inputs.tokens,
            data.values,
            fit,
            choose,
            trial.train,
            [inputs.tokens[place] for place in trial.test],
            AttentiveSettings(inputs.heads, seed=data.seed),
            self.device,
        )
        return scores, {"steps": steps}


def possible_shots(data: Data, shots: Sequence[int]) -> tuple[list[int], list[str]]:
    """(those of the numbers of files a class that every trial has, why the others are left out).

    A class that no file of a trial has, as a list of names may hold, counts for nothing."""
    fewest = min(
        int(np.bincount(data.values[trial.train], minlength=data.task.n_classes)[occurs].min())
        for trial in data.trials
        for occurs in [np.unique(data.values[np.concatenate([trial.train, trial.test])])]
    )
    kept = [n for n in shots if n <= fewest]
    left_out = [n for n in shots if n > fewest]
    wanted = ", ".join(map(str, left_out))
    why = f"the smallest class has {fewest} training files: no probe is fitted to {wanted} a class"
    return kept, [why] if left_out else []


def few_shot(
    name: Literal["linear", "knn"], data: Data, inputs: Inputs, shots: int, draw: int
) -> np.ndarray:
    """Scores of the test files, in the order of `Data.tested`, with so many training files of each
    class, which `draw` decides: the same ones for every encoder and probe.

    Features are standardised by all training files, whose labels have no part in it. C is 1, and k
    is 20 or as many files as there are.
    """
    found = []
    for number, trial in enumerate(data.trials):
        rng = np.random.default_rng([data.seed, 0xF35, shots, draw, number])
        of_train = data.values[trial.train]
        some = np.concatenate(
            [
                rng.permutation(trial.train[of_train == label])[:shots]
                for label in range(data.task.n_classes)
            ]
        )
        standard = Standard.of(inputs.vectors[trial.train])
        x, values, given = inputs.vectors[some], data.values[some], inputs.vectors[trial.test]
        if name == "linear":
            found.append(fit_linear(data.task, x, values, _FEW_STRENGTH, standard)(given))
        else:
            found.append(knn(data.task, x, values, given, _FEW_NEIGHBOURS, standard))
    return np.concatenate(found)
