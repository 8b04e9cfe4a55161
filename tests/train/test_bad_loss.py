"""What is said of a loss that is not a number."""

import math
from dataclasses import dataclass

import pytest
import torch
from clips import losses
from line import Line, Numbers, run_line
from torch import nn

from smnm_kernels import Masks
from smnm_kernels.errors import RunError
from smnm_kernels.train.data.sample_randomness import file_of
from smnm_kernels.train.run.folder import load_checkpoint
from smnm_kernels.train.run.optimisation import Optimisation, adamw


@dataclass(frozen=True)
class WithBadValue(Numbers):
    """From sample 14 on, 3.txt gives a bad value."""

    value = 0.0

    def read(self, source, record, randomness):
        found = super().read(source, record, randomness)
        if source.path.name == "3.txt" and randomness.index >= 14:
            found["y"] = torch.full_like(found["y"], type(self).value)
        return found


class Adamant(Line):
    """With the optimiser that the tasks of this package have."""

    def __init__(self, dataset):
        super().__init__(dataset)
        settings = Optimisation(
            batch_size=4, base_lr=1, base_min_lr=0, weight_decay=0.0, betas=(0.9, 0.95)
        )
        self.optimizer = adamw(self.model, settings)


def why(tmp_path, *arguments, **options):
    with pytest.raises(RunError) as error:
        run_line(tmp_path, *arguments, **options)
    return str(error.value)


@pytest.mark.parametrize("task", [Line, Adamant])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "holds nan"),
        (math.inf, "holds inf"),
        (-math.inf, "holds -inf"),
        (3e29, "holds values up to 3e+29"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"accumulate": 2}, {"workers": 1}])
def test_a_bad_input_is_named_with_its_file(tmp_path, monkeypatch, task, value, said, options):
    monkeypatch.setattr(WithBadValue, "value", value)
    text = why(tmp_path, task, modality=WithBadValue(noise=0.1), **options)
    sample = next(i for i in range(14, 40) if file_of(0, i, 5) == 3)
    step = sample // 4 + 1
    assert text.startswith(f"the loss of step {step} is ")
    assert f"input 'y' of sample {sample} {said}" in text
    assert "Leave 3.txt out of DATA" in text
    assert "--lr" not in text
    assert "after step 3" in text
    assert len(losses(tmp_path / "run")) == step - 1


class Overflows(Adamant):
    """Its fifth loss is infinite, though everything that goes into it is finite."""

    def step(self, forward, batch, clock):
        scalars = super().step(forward, batch, clock)
        if len(self.seen) == 20:
            scalars["loss"] = scalars["loss"] * 1e38 * 1e38
        return scalars


def test_weights_stay_what_they_were_before_a_bad_loss(tmp_path):
    kept = []

    class Kept(Overflows):
        def __init__(self, dataset):
            super().__init__(dataset)
            kept.append(self)

    text = why(tmp_path / "run", Kept)
    assert (
        "the loss of step 5 is inf: the model's output is finite, the loss made of it is not"
        in (text)
    )
    assert "lower --lr than 0.05" in text
    assert "Files of the batch: " in text
    whole = run_line(tmp_path / "whole", Adamant, steps=4, schedule_steps=10)
    assert torch.equal(kept[0].model.weight, whole.model.weight)
    for mine, theirs in zip(
        kept[0].optimizer.state.values(), whole.optimizer.state.values(), strict=True
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


class Diverges(Line):
    """Two layers, so that a large step makes what lies between them overflow."""

    def __init__(self, dataset):
        super().__init__(dataset)
        self.model = nn.Sequential(nn.Linear(1, 2), nn.Linear(2, 1))
        self.optimizer = torch.optim.SGD(self.model.parameters())


def test_divergence_names_where_it_is_seen_first_and_the_rate(tmp_path):
    text = why(tmp_path, Diverges, lr=1e30)
    assert "the output of 1 is the first that holds" in text or "the output of 0" in text
    assert "the files' values are finite" in text
    assert "with a lower --lr than" in text
    assert ".txt" in text.partition("Files of the batch: ")[2]


class BadGradients(Adamant):
    """In its fourth step the gradients are not finite, and the loss is."""

    def step(self, forward, batch, clock):
        scalars = super().step(forward, batch, clock)
        if len(self.seen) == 16:
            scalars["loss"].register_hook(lambda gradient: gradient * math.inf)
        return scalars


def test_weights_that_were_bad_before_point_to_the_step_before(tmp_path):
    text = why(tmp_path, BadGradients)
    assert "the loss of step 5 is nan: the weights were not finite when it began" in text
    assert "(the first of 2: weight): the gradients of the step before were not" in text
    assert "lower --lr" in text
    assert "after step 3" in text


def test_bad_weights_replace_no_checkpoint(tmp_path):
    text = why(tmp_path, BadGradients, checkpoint_every=2)
    assert text.startswith(
        "the gradients of step 4 were not finite, though its loss was: 2 weights"
    )
    assert load_checkpoint(tmp_path / "run")["step"] == 2


class Ghost(Adamant):
    """A loss that is bad once, as a fault of the device would make it."""

    def step(self, forward, batch, clock):
        scalars = super().step(forward, batch, clock)
        if torch.is_grad_enabled() and len(self.seen) == 16:
            scalars["loss"] = scalars["loss"] * math.nan
        return scalars


def test_a_loss_that_is_good_when_done_again_blames_nobody(tmp_path):
    text = why(tmp_path, Ghost)
    assert "done again, the step has a finite loss" in text
    assert "same command" in text


class KeepsAll(Adamant):
    """Its masks hide nothing from the fifth step on, and its loss is a mean over what is hidden."""

    def step(self, forward, batch, clock):
        self.seen += batch.sample_ids.tolist()
        x = batch.inputs["x"].flatten(1)
        visible = torch.ones(len(x), 2, dtype=torch.bool)
        visible[:, 0] = len(self.seen) > 16
        ids = torch.zeros(len(x), 2, dtype=torch.int64)
        valid = torch.ones(len(x), 2, dtype=torch.bool)
        return {"loss": forward(x, Masks(visible, ids, ids), valid)}


class MeanOfHidden(nn.Linear):
    def forward(self, x, masks, valid):
        return super().forward(x).expand(-1, 2)[~masks.visible & valid].mean()


def test_a_mask_that_hides_nothing_is_named(tmp_path):
    class Task(KeepsAll):
        def __init__(self, dataset):
            super().__init__(dataset)
            self.model = MeanOfHidden(1, 1)
            self.optimizer = torch.optim.SGD(self.model.parameters())

    text = why(tmp_path, Task)
    assert "argument [1].visible of the model is a mask that hides all or nothing" in text
    assert "another --mask or --mask-ratio" in text
    assert "--lr" not in text


def test_a_look_that_fails_still_says_what_is_known(tmp_path, monkeypatch):
    def fail(*_):
        raise RunError("the disk stands still")

    monkeypatch.setattr("smnm_kernels.train.run.bad_loss.find", fail)
    text = why(tmp_path, Overflows)
    assert "the loss of step 5 is inf: it could not be looked into (the disk stands still)" in text


def test_tokens_that_are_all_valid_are_no_mask(tmp_path):
    class Task(KeepsAll):
        def __init__(self, dataset):
            super().__init__(dataset)
            self.model = OverflowsOfHidden(1, 1)
            self.optimizer = torch.optim.SGD(self.model.parameters())

        def step(self, forward, batch, clock):
            self.seen += batch.sample_ids.tolist()
            shown = torch.tensor([[True, False]]).expand(len(batch), 2)
            ids = torch.zeros(len(batch), 2, dtype=torch.int64)
            large = torch.tensor(1e38 if len(self.seen) > 16 else 1.0)
            x = batch.inputs["x"].flatten(1)
            return {"loss": forward(x, Masks(shown, ids, ids), torch.ones_like(shown), large)}

    text = why(tmp_path, Task)
    assert "is a mask" not in text
    assert "--lr" in text


class OverflowsOfHidden(MeanOfHidden):
    def forward(self, x, masks, valid, large):
        return super().forward(x, masks, valid) * large * large
