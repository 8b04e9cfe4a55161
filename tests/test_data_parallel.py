"""Copies of a model that nn.DataParallel makes draw together what the model draws for the whole
batch, and threads that share a sampler draw no id twice."""

import copy
import pickle
import threading
import time

import data_parallel
import pytest
import torch
from testing import assert_same
from torch import nn

import smnm_kernels as smnm
from smnm_kernels.adapters import M2dMasking, RandomMasking
from smnm_kernels.samplers import replicas


def sampler(kind="green2d", **more):
    return smnm.MaskSampler(kind, (4, 6), 0.75, seed=3, **more)


class Model(nn.Module):
    """Draws itself, and by two methods that hold the original's samplers."""

    def __init__(self, calls=1):
        super().__init__()
        self.calls = calls
        self.mask_sampler, self.other = sampler(), sampler("rbn", freq_major=True)
        self.embed = nn.Linear(2, 2)
        self.random_masking = RandomMasking(self.mask_sampler)
        self._random_mask_fn = M2dMasking(self.other)

    def forward(self, x):
        found = []
        for _ in range(self.calls):
            found.append(self.random_masking(self.embed(x), 0.75)[1:])
            found.append(self._random_mask_fn((len(x), 6, 4), 0.75, x.device)[0])
            found.append(self.mask_sampler(len(x)))
        return found


def joined(results):
    """The copies' results as of one batch."""
    flat = [torch.utils._pytree.tree_flatten(result)[0] for result in results]
    return [torch.cat(parts) for parts in zip(*flat, strict=True)]


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize("sizes", [[4, 4], [3, 3, 3, 1], [2], [1, 1, 1, 1, 1], [5, 0, 2]])
@pytest.mark.parametrize("first", [0, -1])
def test_masks_are_those_of_the_whole_batch(sizes, calls, first):
    """Whichever copy comes first."""
    model, alone = Model(calls), Model(calls)
    late = range(len(sizes))[first]
    for step in range(3):
        if step == 1:  # without copies, as in an evaluation between two epochs
            assert_same(
                joined([model(torch.zeros(2, 24, 2))]), joined([alone(torch.zeros(2, 24, 2))])
            )
        chunks = [torch.zeros(n, 24, 2) for n in sizes]
        found = data_parallel.run(model, chunks, lambda i: time.sleep(0.02 * (i == late)))
        assert_same(joined(found), joined([alone(torch.cat(chunks))]))
        for name, state in model.state_dict().items():
            if "weight" not in name and "bias" not in name:
                assert_same(state, alone.state_dict()[name])


def test_a_step_without_masks_between():
    """A new step is told from the last one also where nobody drew."""

    class Sometimes(Model):
        def forward(self, x):
            return super().forward(x) if self.training else x

    model, chunks = Sometimes(), [torch.zeros(2, 24, 2)] * 2
    model.eval()
    data_parallel.run(model, chunks)
    model.train()
    found = data_parallel.run(model, chunks)
    assert_same(joined(found), joined([Model()(torch.zeros(4, 24, 2))]))


def test_the_model_can_be_copied_and_saved_afterwards():
    model = Model()
    data_parallel.run(model, [torch.zeros(2, 24, 2)] * 2)
    expected = copy.deepcopy(model)(torch.zeros(2, 24, 2))
    again = pickle.loads(pickle.dumps(model))
    assert_same(joined([again(torch.zeros(2, 24, 2))]), joined([expected]))


def test_a_copy_that_does_not_draw_is_named(monkeypatch):
    monkeypatch.setattr(replicas, "PATIENCE", 0.05)

    class Uneven(Model):
        def forward(self, x):
            return super().forward(x) if len(x) == 3 else x

    with pytest.raises(RuntimeError, match=r"copies \[1\] of 3 .* did not draw masks within 0.05"):
        data_parallel.run(Uneven(), [torch.zeros(n, 24, 2) for n in (3, 2, 3)])


def test_a_schedule_by_step_is_refused():
    class Scheduled(nn.Module):
        def __init__(self, every):
            super().__init__()
            self.sampler = smnm.ScheduledSampler("random", (4, 6), 0.75, every=every)

        def forward(self, x):
            return self.sampler(len(x))

    chunks = [torch.zeros(2), torch.zeros(1)]
    found = data_parallel.run(Scheduled("epoch"), chunks)
    assert_same(joined(found), joined([Scheduled("epoch")(torch.zeros(3))]))
    with pytest.raises(NotImplementedError, match=r"ScheduledSampler that goes by step.*Distr"):
        data_parallel.run(Scheduled("step"), chunks)
    assert data_parallel.run(Scheduled("step"), chunks[:1])


def test_checkpointed_regions_in_copies():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(nn.Module):
        def __init__(self):
            super().__init__()
            self.sampler, self.weight = sampler(), nn.Parameter(torch.ones(24))

        def forward(self, x):
            def block(x):
                return (x * self.weight * self.sampler(len(x)).masked).sin()

            contexts = self.sampler.checkpoint_contexts
            return checkpoint(block, x, use_reentrant=False, context_fn=contexts)

    model, alone = Checkpointed(), Checkpointed()
    x = torch.randn(5, 24)
    torch.cat(data_parallel.run(model, [x[:3], x[3:]])).sum().backward()
    alone(x).sum().backward()
    torch.testing.assert_close(model.weight.grad, alone.weight.grad)


def test_threads_that_share_a_sampler_draw_no_id_twice():
    shared, drawn = sampler(), []

    def draw():
        drawn.extend([shared(3).visible for _ in range(400)])

    threads = [threading.Thread(target=draw) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert int(shared.next_id) == 8 * 400 * 3
    packed = (torch.cat(drawn).long() << torch.arange(24)).sum(1)
    expected = (sampler()(8 * 400 * 3).visible.long() << torch.arange(24)).sum(1)
    assert_same(packed.sort().values, expected.sort().values)


class On:
    """Says that it is a device."""

    def __init__(self, device):
        self.device = torch.device(device)


@pytest.mark.parametrize("made", ["cuda:0", "cuda:1", "cpu"])
def test_another_device_of_the_same_type_is_caught(made):
    from smnm_kernels.adapters.methods import _sampler_on

    one = sampler()
    one._buffers["next_id"] = On(made)
    assert _sampler_on(torch.device(made), one) is one
    if made != "cpu":
        assert _sampler_on(torch.device("cuda"), one) is one
    for other in {"cuda:0", "cuda:1", "cpu"} - {made}:
        with pytest.raises(ValueError, match=rf"makes masks on {made}, the model works on {other}"):
            _sampler_on(torch.device(other), one)
