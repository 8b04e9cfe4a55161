"""How a model is optimised: AdamW or Adam, batch size, rates, lengths."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

#: Key of a group of parameters: its rate by the step's rate.
SCALE = "lr_scale"


@dataclass(frozen=True, kw_only=True)
class Optimisation:
    """The part of a recipe that any task has. Rates are given for a batch of 256 samples and grow
    in proportion to the batch size, unless `rates_grow` is false."""

    batch_size: int  # samples a step, over all processes
    base_lr: float
    base_min_lr: float
    rates_grow: bool = True
    weight_decay: float
    betas: tuple[float, float]
    # Lengths in passes over the files; those in steps replace them where they are given.
    epochs: int = 0
    warmup_epochs: float = 0
    steps: int | None = None
    warmup_steps: int | None = None
    checkpoint_every: int = 500  # steps
    repeats: int = 1  # samples of each file in a pass
    #: Samples of a pass, drawn without replacement, files with rare labels sooner; None: all.
    most_per_epoch: int | None = None
    #: "adam" adds the weight decay to the gradients, of all parameters (CAV-MAE).
    optimizer: Literal["adamw", "adam"] = "adamw"
    #: Shares of the schedule behind which the rate is halved, in place of a cosine down to the
    #: lowest rate.
    halvings: tuple[float, ...] = ()
    #: Longer gradients, of all parameters together, are shortened to this length; None: none are.
    clip_norm: float | None = None

    def total_steps(self, n_files: int) -> int:
        if self.steps is not None:
            return self.steps
        return math.ceil(self.epochs * self.epoch_samples(n_files) / self.batch_size)

    def epoch_samples(self, n_files: int) -> int:
        """Samples of a pass over so many files."""
        n = n_files * self.repeats
        return n if self.most_per_epoch is None else min(n, self.most_per_epoch)

    def warmup_of(self, schedule_steps: int) -> int:
        """Steps of warmup in a schedule of this length."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        return round(schedule_steps * self.warmup_epochs / self.epochs)

    @property
    def lr(self) -> float:
        return self.base_lr * self._growth

    @property
    def min_lr(self) -> float:
        return self.base_min_lr * self._growth

    @property
    def _growth(self) -> float:
        return self.batch_size / 256 if self.rates_grow else 1.0


def optimizer_of(model: nn.Module, optimisation: Optimisation) -> torch.optim.Optimizer:
    """That which `optimisation` names, with one rate for all parameters."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer: torch.optim.Optimizer
    if optimisation.optimizer == "adamw":
        optimizer = adamw(model, optimisation)
    else:
        decay, betas = optimisation.weight_decay, optimisation.betas
        optimizer = torch.optim.Adam(
            parameters, lr=0.0, betas=betas, weight_decay=decay, fused=True
        )
    if optimisation.clip_norm is not None:
        _clip_before_steps(optimizer, parameters, optimisation.clip_norm)
    return optimizer


def _clip_before_steps(
    optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], longest: float
) -> None:
    def clip(*_: Any) -> None:
        torch.nn.utils.clip_grad_norm_(parameters, longest)

    optimizer.register_step_pre_hook(clip)


def adamw(model: nn.Module, optimisation: Optimisation) -> torch.optim.AdamW:
    """Biases, norms and single tokens do not decay. The loop sets each step's rate."""
    decay = optimisation.weight_decay
    parameters = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    groups = [
        {"params": [p for name, p in parameters if _decays(name, p)], "weight_decay": decay},
        {"params": [p for name, p in parameters if not _decays(name, p)], "weight_decay": 0.0},
    ]
    return _adamw(groups, optimisation)


def layerwise(
    model: nn.Module,
    optimisation: Optimisation,
    layer_of: Callable[[str], int],
    last: int,
    layer_decay: float,
    is_head: Callable[[str], bool] = lambda name: False,
    head_rate: float = 1.0,
) -> torch.optim.Optimizer:
    """As `optimizer_of`, with rates that fall from the last layer to the first (BEiT, MAE,
    VideoMAE): that of layer i is the step's rate times layer_decay ** (last - i).

    layer_of: the number of the layer, 0 to `last`, that a parameter of this name belongs to.
    is_head: whether the rate of a parameter of this name is the step's times `head_rate`, whatever
        its layer (CAV-MAE).
    """
    by_adam = optimisation.optimizer == "adam"
    groups: dict[tuple[int, float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = by_adam or _decays(name, parameter)
            layer = layer_of(name)
            scale = head_rate if is_head(name) else layer_decay ** (last - layer)
            groups.setdefault((layer, scale, decays), []).append(parameter)
    given = [
        {
            "params": groups[layer, scale, decays],
            "weight_decay": optimisation.weight_decay if decays else 0.0,
            SCALE: scale,
        }
        for layer, scale, decays in sorted(groups)
    ]
    if by_adam:
        return torch.optim.Adam(given, lr=0.0, betas=optimisation.betas, fused=True)
    return _adamw(given, optimisation)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Of a step; groups of parameters may have a scale of their own."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get(SCALE, 1.0)


def _adamw(groups: list[dict[str, Any]], optimisation: Optimisation) -> torch.optim.AdamW:
    # On the CPU, too, one pass over the weights takes a third of the time of many.
    return torch.optim.AdamW(groups, lr=0.0, betas=optimisation.betas, fused=True)


def _decays(name: str, parameter: nn.Parameter) -> bool:
    """A weight matrix or kernel, also one with a single output. A token of a model may have leading
    axes of length 1, but is no layer's weight."""
    is_weight = name.rpartition(".")[2] == "weight"
    return parameter.ndim > 1 if is_weight else sum(n > 1 for n in parameter.shape) > 1
