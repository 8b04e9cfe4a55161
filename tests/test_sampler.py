"""MaskSampler: one endless stream, however it is cut into batches, ranks and runs."""

import copy
import io
import pickle

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testing import assert_same, devices

import smnm_kernels as smnm

GRID = (4, 6, 5)
KINDS = {
    "random": {"color": "white"},
    "tube": {"color": "white", "tube": True},
    **{f"{c}3d": {"color": c} for c in ("red", "blue", "green")},
    **{f"{c}2d": {"color": c, "tube": True} for c in ("red", "blue", "green")},
}


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("kind", KINDS)
def test_sample_i_of_the_stream_is_the_mask_of_id_i(device, kind):
    sampler = smnm.MaskSampler(kind, GRID, 0.75, seed=-9).to(device)
    expected = smnm.noise_masks(
        torch.arange(12, device=device), GRID, mask_ratio=0.75, seed=-9, **KINDS[kind]
    )
    drawn = [sampler(n) for n in (5, 0, 1, 6)]
    assert_same([torch.cat(forms) for forms in zip(*drawn, strict=True)], expected)
    assert sampler.n_keep == expected.n_keep
    assert all(type(masks) is smnm.Masks for masks in drawn)


def test_rbn_and_its_parameters():
    more = {"n_candidates": 3, "windows": (5,), "weights": (0.1, 0.2, 0.3, 0.4), "freq_major": True}
    sampler = smnm.MaskSampler("rbn", (1, 8, 4), n_keep=9, tie_break="random", seed=2, **more)
    call = (torch.arange(7), (1, 8, 4))
    expected = smnm.rbn_masks(*call, n_keep=9, tie_break="random", seed=2, **more)
    assert_same(sampler(7), expected)


@given(
    sizes=st.lists(st.integers(0, 9), max_size=6), stop=st.integers(0, 6), seed=st.integers(-9, 9)
)
def test_any_cut_and_any_resume(sizes, stop, seed):
    """Batches of any sizes, with the state saved and loaded into a new sampler in between."""
    arguments = ("green3d", GRID, 0.9)
    whole = smnm.MaskSampler(*arguments, seed=seed)(sum(sizes))
    sampler = smnm.MaskSampler(*arguments, seed=seed)
    drawn = [sampler(n) for n in sizes[:stop]]
    file = io.BytesIO()
    torch.save(sampler.state_dict(), file)
    file.seek(0)
    resumed = smnm.MaskSampler(*arguments, seed=12345)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    drawn += [resumed(n) for n in sizes[stop:]]
    if drawn:
        assert_same([torch.cat(forms) for forms in zip(*drawn, strict=True)], whole)
    assert int(resumed.next_id) == sum(sizes)


def test_it_is_a_module_with_two_buffers():
    sampler = smnm.MaskSampler("green2d", GRID, 0.9, seed=2**63 - 1)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), sampler)
    assert set(model.state_dict()) == {"0.weight", "0.bias", "1.seed", "1.next_id"}
    assert len(list(model.parameters())) == 2
    state = sampler.state_dict()
    assert {buffer.dtype for buffer in state.values()} == {torch.int64}
    assert int(state["seed"]) == 2**63 - 1
    # Casting a model to a float type leaves the integers alone.
    model.half()
    assert sampler.seed.dtype == sampler.next_id.dtype == torch.int64
    assert "green2d" in repr(sampler)


def test_evaluation_is_no_special_case_and_copies_go_their_own_way():
    sampler = smnm.MaskSampler("green3d", GRID, 0.9, seed=3)
    first = sampler(4)
    twin, pickled = copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))
    second = sampler.eval()(4)
    assert_same(twin(4), second)
    assert_same(pickled(4), second)
    assert not torch.equal(first.visible, second.visible)
    sampler.reset()
    assert_same(sampler(4), first)
    sampler.reset(4)
    assert_same(sampler(4), second)


def test_masks_by_id_do_not_advance_the_stream():
    sampler = smnm.MaskSampler("blue3d", GRID, 0.9, seed=3)
    ids = torch.tensor([2**62, 0, -7, 0])
    expected = smnm.noise_masks(ids, GRID, "blue", 0.9, seed=3)
    assert_same(sampler.masks(ids), expected)
    assert int(sampler.next_id) == 0
    assert_same(sampler(1).visible, expected.visible[1:2])
    assert_same(sampler.masks(ids), expected)


@pytest.mark.parametrize(
    ("arguments", "more", "parts"),
    [
        (("nope", GRID, 0.5), {}, ["kind", "'nope'", "green3d", "rbn"]),
        (("random", GRID), {}, ["mask_ratio", "n_keep", "neither"]),
        (("random", GRID, 0.5), {"n_keep": 3}, ["mask_ratio", "n_keep", "exactly one"]),
        (("random", GRID, 1.5), {}, ["mask_ratio", "1.5", "[0, 1)"]),
        (("random", (4,), 0.5), {}, ["grid", "(4,)", "(T, H, W)"]),
        (("random", GRID, 0.5), {"sigma": 1.0}, ["sigma", "1.0", "None"]),
        (("random", GRID, 0.5), {"windows": (3,)}, ["random", "windows", "allowed"]),
        (("green3d", GRID, 0.5), {"color": "red"}, ["green3d", "color", "sigma"]),
        (("green3d", GRID, 0.5), {"sigma": (2, 1)}, ["sigma", "(2, 1)", "sigma1 < sigma2"]),
        (("rbn", GRID, 0.5), {}, ["grid", "(1, H, W)"]),
        (("rbn", (1, 4, 4), 0.5), {"windows": (2,)}, ["windows", "(2,)", "odd"]),
        (("tube", GRID), {"n_keep": 3}, ["n_keep", "multiple", "3"]),
        (("random", GRID, 0.5), {"seed": 2**63}, ["seed", str(2**63)]),
        (("random", GRID, 0.5), {"seed": 1.0}, ["seed", "1.0", "int"]),
    ],
)
def test_wrong_arguments_fail_when_it_is_made(arguments, more, parts):
    with pytest.raises((ValueError, TypeError)) as error:
        smnm.MaskSampler(*arguments, **more)
    for part in parts:
        assert part in str(error.value)


def test_a_seed_may_be_a_tensor():
    assert int(smnm.MaskSampler("random", GRID, 0.5, seed=torch.tensor(7)).seed) == 7


def test_wrong_sample_ids_are_named():
    with pytest.raises((ValueError, TypeError), match="sample_ids"):
        smnm.MaskSampler("random", GRID, 0.5).masks([0, 1])


def test_a_kind_that_is_no_string_is_named():
    with pytest.raises((ValueError, TypeError), match="kind"):
        smnm.MaskSampler(["random"], GRID, 0.5)


@pytest.mark.parametrize("next_id", [2.5, "a", None, True, 2**63])
def test_a_wrong_place_is_named(next_id):
    with pytest.raises(ValueError, match="next_id"):
        smnm.MaskSampler("random", GRID, 0.5).reset(next_id)
