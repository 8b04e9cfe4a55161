"""Masks that change as training goes on: the right ones at each step, resumed, in one graph."""

import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testing import assert_same
from torch._dynamo.testing import CompileCounterWithBackend

import smnm_kernels as smnm
from smnm_kernels.schedules import cosine, linear, stages

GRID = (2, 4, 4)
KINDS = stages({0: "random", 4: "green3d"})
# Counts of a tube are rounded per frame: the count changes with the kind, the ratio does not.
COUNTS = stages({0: "tube", 3: "green3d"})
RATIOS = linear(0.5, 0.8, steps=10)


def sampler(**more):
    return smnm.ScheduledSampler(KINDS, GRID, RATIOS, seed=9, **more)


def expected(step, ids):
    kind = "random" if step < 4 else "green3d"
    ratio = round(0.5 + 0.03 * min(step, 10), 2)
    return smnm.MaskSampler(kind, GRID, ratio, seed=9).masks(ids)


def test_ramps_and_stages():
    assert [linear(0.75, 0.9, 10)(s) for s in (0, 5, 10, 99)] == [0.75, 0.82, 0.9, 0.9]
    assert [cosine(0.0, 1.0, 4, places=6)(s) for s in range(6)] == [
        0.0, 0.146447, 0.5, 0.853553, 1.0, 1.0,
    ]  # fmt: skip
    assert [linear(160, 80, 3)(s) for s in range(4)] == [160, 133, 107, 80]
    assert isinstance(linear(160, 80, 3)(1), int)
    assert [linear(0.875, 0.9, 10)(s) for s in (0, 10, 11)] == [0.875, 0.9, 0.9]
    assert cosine(0.75, 0.996, 100)(100) == 0.996
    assert linear(0.75, 0.996, 100)(99) <= 0.996
    ranges = linear(((0.4, 0.8), (1.4, 2.0)), ((0.4, 1.5), (1.4, 3.0)), 10)
    assert ranges(5) == ((0.4, 1.15), (1.4, 2.5))
    assert [stages({0: "a", 3: "b"})(s) for s in (0, 2, 3, 1000)] == ["a", "a", "b", "b"]


@given(
    start=st.floats(-3, 3),
    end=st.floats(-3, 3),
    steps=st.integers(1, 50),
    form=st.booleans(),
    places=st.integers(0, 6),
)
def test_a_ramp_keeps_between_its_ends(start, end, steps, form, places):
    ramp = (cosine if form else linear)(start, end, steps, places=places)
    values = [ramp(step) for step in range(steps + 3)]
    assert values[0] == start
    assert values[steps:] == [end] * 3
    assert sorted(values, reverse=end < start) == values


@given(sizes=st.lists(st.integers(0, 4), max_size=14))
def test_each_step_has_its_kind_and_ratio_and_the_ids_go_on(sizes):
    scheduled, first = sampler(), 0
    for step, size in enumerate(sizes):
        assert scheduled.step == step
        assert_same(scheduled(size), expected(step, torch.arange(first, first + size)))
        first += size


def test_any_callable_and_any_parameter():
    scheduled = smnm.ScheduledSampler(
        "rbn", (1, 8, 4), n_keep=lambda step: 8 - step, tie_break=stages({0: "first", 2: "random"})
    )
    for step in range(4):
        ids = torch.arange(3 * step, 3 * step + 3)
        ties = "first" if step < 2 else "random"
        same = smnm.rbn_masks(ids, (1, 8, 4), n_keep=8 - step, tie_break=ties)
        assert_same(scheduled(3), same)


def test_sigma_may_widen():
    widening = linear((0.5, 1.0), (0.5, 2.0), steps=4)
    scheduled = smnm.ScheduledSampler("red3d", GRID, 0.75, sigma=widening)
    for step in range(6):
        ids = torch.arange(2 * step, 2 * step + 2)
        sigma = (0.5, min(1.0 + 0.25 * step, 2.0))
        assert_same(scheduled(2), smnm.noise_masks(ids, GRID, "red", 0.75, sigma=sigma))


@pytest.mark.parametrize("stop", [0, 3, 7])
def test_the_state_carries_stream_and_step(stop):
    whole, first = sampler(), sampler()
    masks = [whole(3) for _ in range(10)]
    for step in range(stop):
        assert_same(first(3), masks[step])
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    resumed = smnm.ScheduledSampler(KINDS, GRID, RATIOS)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    resumed = pickle.loads(pickle.dumps(resumed))
    for step in range(stop, 10):
        assert_same(resumed(3), masks[step])
    resumed.reset(9, step=3)
    assert_same(resumed(3), masks[3])


def test_looking_at_masks_advances_nothing():
    scheduled = sampler()
    scheduled(5)
    ids = torch.tensor([7, -1])
    assert_same(scheduled.masks(ids), expected(1, ids))
    assert (scheduled.step, int(scheduled.next_id)) == (1, 5)


@pytest.mark.parametrize(
    ("kinds", "ratios", "n_counts"), [(KINDS, RATIOS, 11), (COUNTS, 0.7, 2), ("green3d", 0.75, 1)]
)
def test_what_takes_the_masks_is_compiled_once(kinds, ratios, n_counts):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    layer = torch.nn.Linear(8, 8)

    def loss(x, masks):
        tokens = layer(x.gather(1, masks.ids_keep[..., None].expand(-1, -1, 8)))
        fill = torch.zeros(x.shape[0], x.shape[1] - tokens.shape[1], 8)
        tokens = torch.cat([tokens, fill], dim=1)
        tokens = tokens.gather(1, masks.ids_restore[..., None].expand(-1, -1, 8))
        difference = (tokens - x).gather(1, masks.ids_masked[..., None].expand(-1, -1, 8))
        return (difference**2).mean()

    compiled = torch.compile(loss, fullgraph=True, backend=counter)
    scheduled = smnm.ScheduledSampler(kinds, GRID, ratios)
    x = torch.randn(3, 32, 8)
    counts = set()
    for _ in range(20):
        masks = scheduled(3)
        counts.add(masks.n_keep)
        made = compiled(x, masks)
        torch.testing.assert_close(made, loss(x, masks))
        made.backward()
    assert len(counts) == n_counts
    assert counter.frame_count == 1


def test_inside_compiled_code_it_says_where_it_belongs():
    with pytest.raises(Exception, match="drawn outside compiled code: pass its masks in"):
        torch.compile(sampler(), fullgraph=True, backend="eager")(3)


def test_by_epoch():
    scheduled = sampler(every="epoch")
    assert_same(scheduled(3), expected(0, torch.arange(3)))
    assert_same(scheduled(3), expected(0, torch.arange(3, 6)))
    scheduled.set_epoch(6)
    scheduled.set_epoch(6)
    assert_same(scheduled(3), expected(6, torch.arange(6, 9)))
    with pytest.raises(ValueError, match="epoch must be an int and not before 6, which was used"):
        scheduled.set_epoch(5)
    scheduled.reset()
    assert_same(scheduled(3), expected(0, torch.arange(3)))


@pytest.mark.parametrize(
    ("make", "error", "parts"),
    [
        (lambda: sampler(every="day"), ValueError, ["every", "'day'"]),
        (lambda: smnm.ScheduledSampler(KINDS, GRID, linear(0.5, 1.2, 50)), ValueError,
         ["at step 50", "mask_ratio", "1.2"]),
        (lambda: smnm.ScheduledSampler(stages({0: "tube", 8: "grene3d"}), GRID, 0.5), ValueError,
         ["at step 8", "kind", "grene3d"]),
        (lambda: smnm.ScheduledSampler("green3d", GRID, 0.5, windows=(3,)), TypeError, ["windows"]),
        (lambda: linear(0.5, 0.9, 0), ValueError, ["steps", "0"]),
        (lambda: linear("a", "b", 3), TypeError, ["start and end", "'a'"]),
        (lambda: linear((1, 2), (1, 2, 3), 3), TypeError, ["start and end", "(1, 2, 3)"]),
        (lambda: linear(0.5, 0.9, 3, places=-1), ValueError, ["places", "-1"]),
        (lambda: stages({1: "tube"}), ValueError, ["0 among them", "{1: 'tube'}"]),
        (lambda: sampler().set_epoch(1), ValueError, ["set_epoch", "step"]),
        (lambda: sampler().reset(step=-1), ValueError, ["step", "-1"]),
        (lambda: sampler().checkpoint_contexts(), NotImplementedError, ["before", "passed in"]),
    ],
)  # fmt: skip
def test_errors_name_what_came(make, error, parts):
    with pytest.raises(error) as raised:
        make()
    for part in parts:
        assert part in str(raised.value)
