"""Rates that are halved, and Adam, as CAV-MAE's code has them."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from smnm_kernels.train.run.optimisation import (
    Optimisation,
    adamw,
    layerwise,
    optimizer_of,
    set_rate,
)
from smnm_kernels.train.run.schedule import Schedule
from smnm_kernels.train.tasks.presets import PRESETS

ADAM = Optimisation(
    batch_size=120, base_lr=1e-4, base_min_lr=0, weight_decay=0.1, betas=(0.95, 0.999),
    epochs=25, optimizer="adam", halvings=(10 / 25, 15 / 25, 20 / 25),
)  # fmt: skip


def test_rates_grow_with_the_batch_unless_they_are_not_to():
    assert ADAM.lr == 1e-4 * 120 / 256
    fixed = replace(ADAM, base_min_lr=1e-6, rates_grow=False)
    assert (fixed.lr, fixed.min_lr) == (1e-4, 1e-6)
    of_tiny = [preset["tiny"].optimisation for preset in PRESETS.values()]
    assert {(one.lr, replace(one, batch_size=64).lr) for one in of_tiny} == {(1e-3, 1e-3)}


def multi_step(epochs, start, every):
    """Rates of an epoch's steps by torch's MultiStepLR, which CAV-MAE's code steps each epoch."""
    weights = [nn.Parameter(torch.zeros(1))]
    optimizer = torch.optim.Adam(weights, lr=1.0)
    plan = torch.optim.lr_scheduler.MultiStepLR(optimizer, list(range(start, 1000, every)), 0.5)
    for _ in range(epochs):
        yield optimizer.param_groups[0]["lr"]
        optimizer.step()
        plan.step()


@pytest.mark.parametrize("steps_of_an_epoch", [1, 7, 1533])
def test_halved_rates_are_those_of_a_scheduler_by_epochs(steps_of_an_epoch):
    n = steps_of_an_epoch
    schedule = Schedule(1.0, 0.0, warmup_steps=0, length=25 * n, halvings=ADAM.halvings)
    for epoch, rate in enumerate(multi_step(25, 10, 5)):
        assert schedule.rate(epoch * n) == schedule.rate(epoch * n + n - 1) == rate
    assert schedule.last == schedule.rate(100 * n) == 0.125


def test_a_warmup_comes_before_the_first_halving():
    schedule = Schedule(2.0, 0.0, warmup_steps=4, length=20, halvings=(0.5,))
    rates = [schedule.rate(done) for done in range(20)]
    assert rates == [0.5, 1, 1.5] + [2.0] * 7 + [1.0] * 10


def test_without_halvings_the_last_rate_is_the_lowest():
    assert Schedule(1.0, 0.25, warmup_steps=2, length=8).last == 0.25


def test_adam_adds_the_decay_to_the_gradients_of_all_parameters():
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = optimizer_of(model, ADAM)
    x = torch.randn(4, 3)
    m = [torch.zeros_like(p) for p in model.parameters()]
    v = [torch.zeros_like(p) for p in model.parameters()]
    for step in range(1, 4):
        set_rate(optimizer, 0.01)
        optimizer.zero_grad()
        model(x).square().sum().backward()
        expected = []
        for i, p in enumerate(model.parameters()):
            g = p.grad + 0.1 * p.detach()
            m[i] = 0.95 * m[i] + 0.05 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            mean, spread = m[i] / (1 - 0.95**step), v[i] / (1 - 0.999**step)
            expected.append(p.detach() - 0.01 * mean / (spread.sqrt() + 1e-8))
        optimizer.step()
        for p, value in zip(model.parameters(), expected, strict=True):
            torch.testing.assert_close(p.detach(), value)


def test_the_default_is_adamw():
    model = nn.Linear(3, 2)
    usual = replace(ADAM, optimizer="adamw")
    ours, plain = optimizer_of(model, usual), adamw(model, usual)
    assert type(ours) is torch.optim.AdamW
    assert [g["weight_decay"] for g in ours.param_groups] == [
        g["weight_decay"] for g in plain.param_groups
    ]


@pytest.mark.parametrize("optimizer", ["adamw", "adam"])
def test_the_head_may_have_a_rate_of_its_own_and_other_parts_behind_the_blocks_not(optimizer):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2))
    how = replace(ADAM, optimizer=optimizer)
    layers = {"0": 0, "1": 1, "2": 1}  # 1 and the head are of the last layer
    found = layerwise(
        model, how, lambda name: layers[name[0]], 1, 0.5, lambda name: name[0] == "2", 10.0
    )
    set_rate(found, 0.4)
    rates = {id(p): group["lr"] for group in found.param_groups for p in group["params"]}
    assert [rates[id(p)] for p in model.parameters()] == [0.2, 0.2, 0.4, 0.4, 4, 4]
    decays = {id(p): g["weight_decay"] for g in found.param_groups for p in g["params"]}
    expected = [0.1, 0] * 3 if optimizer == "adamw" else [0.1] * 6
    assert [decays[id(p)] for p in model.parameters()] == expected
