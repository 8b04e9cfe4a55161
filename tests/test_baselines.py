"""Masks of structures, as users draw them; and what grid, block, inverse block and time-frequency
masks look like."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import small_grids
from testing import assert_same, devices
from torch._dynamo.testing import CompileCounterWithBackend

import smnm_kernels as smnm
from smnm_kernels import baseline_masks
from smnm_kernels.kinds.baselines import BASELINES

IDS = torch.tensor([0, 1, -5, 2**40, 2**62])


@pytest.mark.parametrize("device", devices())
@given(
    kind=st.sampled_from(list(BASELINES)),
    grid=small_grids(),
    share=st.floats(0, 1),
    block_size=st.integers(1, 6),
    freq_major=st.booleans(),
    seed=st.integers(-(2**63), 2**63 - 1),
    first=st.integers(-(2**62), 2**62),
    tensor=st.booleans(),
)
def test_equal_to_the_definition(
    device, kind, grid, share, block_size, freq_major, seed, first, tensor
):
    frames, height, width = (1, *grid[1:]) if kind in ("time_frequency", "bands") else grid
    call = {
        "grid": (frames, height, width),
        "kind": kind,
        "n_keep": frames * max(1, int(share * height * width)),
        "block_size": block_size,
        "freq_major": freq_major,
    }
    ids = torch.arange(first, first + 3)
    seeds = torch.tensor(seed, device=device) if tensor else seed
    ours = baseline_masks(ids.to(device), **call, seed=seeds)
    assert_same(ours, smnm.reference.baseline_masks(ids, **call, seed=seed))
    smnm.Masks.from_visible(ours.visible, call["n_keep"])


@pytest.mark.parametrize("kind", BASELINES)
def test_they_are_kinds_of_a_sampler_and_compile_once(kind):
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")
    grid = (1, 12, 8) if kind in ("time_frequency", "bands") else (3, 12, 8)
    eager, other = (smnm.MaskSampler(kind, grid, 0.75, seed=2) for _ in range(2))
    expected = smnm.reference.baseline_masks(torch.arange(6), grid, kind, 0.75, seed=2)
    compiled = torch.compile(other, fullgraph=True, backend=counter)
    for _ in range(3):
        assert_same(compiled(6), eager(6))
    assert counter.frame_count == 1
    eager.reset()
    assert_same(eager(6), expected)


def visible(kind, mask_ratio, grid=(1, 16, 12)):
    return baseline_masks(torch.arange(200), grid, kind, mask_ratio).visible.unflatten(1, grid[1:])


def test_a_quarter_on_a_grid_is_every_other_patch_of_every_other_row():
    for mask in visible("grid", 0.75):
        rows, columns = mask.any(1), mask.any(0)
        assert rows.sum() == 8
        assert columns.sum() == 6
    # The offset changes from sample to sample.
    assert len(visible("grid", 0.75).flatten(1).unique(dim=0)) == 4


def neighbours_alike(mask):
    return (mask[:, :, 1:] == mask[:, :, :-1]).float().mean()


def test_blocks_hang_together():
    """Grid patches differ from their neighbours, random ones agree with half of them."""
    assert neighbours_alike(visible("grid", 0.5)) < 0.5
    assert neighbours_alike(visible("inverse_block", 0.5)) > 0.65
    assert neighbours_alike(visible("block", 0.5)) > 0.75


def spreads(masks):
    """The longer side of the rectangle round the True patches of each mask, less one."""
    places = [mask.nonzero() for mask in masks.unflatten(1, (16, 12))]
    return [int((place.amax(0) - place.amin(0)).max()) for place in places]


def test_an_inverse_block_is_visible_and_a_block_is_masked():
    ids, grid = torch.arange(200), (1, 16, 12)
    one_square = baseline_masks(ids, grid, "inverse_block", n_keep=4, block_size=3)
    assert max(spreads(one_square.visible)) == 2
    part_of_the_first = baseline_masks(ids, grid, "block", n_keep=180)
    assert max(spreads(part_of_the_first.masked)) <= 7


def test_time_frequency_hides_whole_rows_and_columns():
    mask = visible("time_frequency", 0.75)
    assert mask.sum((1, 2)).tolist() == [48] * 200
    # sqrt(1/4) of 16 rows and 12 columns.
    assert mask.any(2).sum(1).tolist() == [8] * 200
    assert mask.any(1).sum(1).tolist() == [6] * 200


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        ({"kind": "grids"}, ["kind", "'grids'", "inverse_block"]),
        ({"kind": "time_frequency", "grid": (2, 4, 4)}, ["(1, T, F)", "(2, 4, 4)"]),
        ({"block_size": 0}, ["block_size", "0"]),
        ({"mask_ratio": 1.0}, ["mask_ratio", "1.0"]),
        ({"freq_major": 1}, ["freq_major", "1"]),
        ({"sample_ids": IDS.int()}, ["sample_ids", "int32"]),
    ],
)
def test_errors_name_what_came(call, parts):
    call = {"sample_ids": IDS, "grid": (1, 4, 4), "kind": "block", "mask_ratio": 0.5, **call}
    with pytest.raises((ValueError, TypeError)) as raised:
        baseline_masks(**call)
    for part in parts:
        assert part in str(raised.value)


def test_only_an_inverse_block_has_a_size():
    smnm.MaskSampler("inverse_block", (1, 8, 8), 0.5, block_size=3)
    with pytest.raises(TypeError, match="block masks have no parameter block_size"):
        smnm.MaskSampler("block", (1, 8, 8), 0.5, block_size=3)
