"""The Triton kernels equal the CPU: on a GPU where there is one, else in Triton's interpreter."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_calls import noise_call, noise_masks_call, rbn_bank_call, rbn_masks_call
from rbn_banks import WEIGHTS
from strategies import IDS, SEEDS, colors_and_sigmas, counts, examples, grids, seeds_in_any_form
from testing import COLORS, IDS_TENSOR, STANDARD_GRIDS, assert_same, triton_kernels

import smnm_kernels as smnm
from smnm_kernels.tables.constants import MAX_FIELD
from smnm_kernels.tables.noise import noise_table, pack

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ODD_GRIDS = [(3, 5, 7), (2, 9, 33), (1, 1, 1), (1, 1, 31), (1, 31, 1), (2, 1, 1), (5, 1, 13)]

pytestmark = pytest.mark.usefixtures("poisoned_memory")


@pytest.fixture(scope="module")
def gpu():
    return triton_kernels()


@pytest.fixture
def in_passes(gpu, monkeypatch):
    """Every grid takes the path of those that do not fit on the chip, in small parts."""
    from smnm_kernels.triton_kernels import noise_ops, threshold_ops

    monkeypatch.setattr(noise_ops, "tile_of", lambda *_: None)
    monkeypatch.setattr(noise_ops, "MAX_SCRATCH_BYTES", 2**16)
    monkeypatch.setattr(threshold_ops, "MAX_CHUNK_BYTES", 2**9)


def assert_equal_on_cpu(gpu, op, call):
    """``call`` holds CPU tensors."""
    there = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in call]
    ours = getattr(gpu, f"{op}_kernel")(*there)
    assert_same(ours, getattr(torch.ops.smnm, op)(*call))


def assert_masks_equal(gpu, ids, grid, color, count, sigma=None, tube=False, seed=0):
    call = noise_masks_call(
        ids, grid, color, count.get("mask_ratio"), count.get("n_keep"), sigma, tube, False, seed
    )
    assert_equal_on_cpu(gpu, "noise_masks", call)


def assert_noise_equal(gpu, ids, grid, color, sigma=None, seed=0):
    assert_equal_on_cpu(gpu, "noise", noise_call(ids, grid, color, sigma, seed))


#: Colors by grid that only the exhaustive tier has: they take the interpreter longest, and each
#: color is left with another grid.
SLOW = {(2, 9, 33): ("green", "red", "blue"), (9, 17, 6): ("red", "green", "blue")}
SLOW_IN_PASSES = SLOW | {(1, 64, 8): ("red",), (3, 5, 7): ("blue",)}


def every_color(grids, slow=SLOW):
    slow = {} if DEVICE == "cuda" else slow
    return pytest.mark.parametrize(
        ("grid", "color"),
        [
            pytest.param(
                *(grid, color),
                marks=[pytest.mark.exhaustive] if color in slow.get(grid, ()) else [],
                id=f"{grid}-{color}",
            )
            for grid in grids
            for color in COLORS
        ],
    )


@pytest.mark.slow
@every_color(STANDARD_GRIDS + ODD_GRIDS)
def test_grids(gpu, grid, color, exhaustive):
    n, seed = math.prod(grid), 2**63 - 1
    # Each sample takes the interpreter up to a second.
    ids = IDS_TENSOR if exhaustive or DEVICE == "cuda" else IDS_TENSOR[[0, 3, 7]]
    assert_noise_equal(gpu, ids, grid, color, seed=seed)
    assert_masks_equal(gpu, ids[1:], grid, color, {"n_keep": 1}, seed=seed)
    for n_keep in {n, max(1, n // 10)}:
        assert_masks_equal(gpu, ids[-2:-1], grid, color, {"n_keep": n_keep}, seed=seed)


@examples(40)
@given(
    ids=st.lists(IDS, max_size=3).map(lambda ids: torch.tensor(ids, dtype=torch.int64)),
    grid=grids(max_tokens=600),
    color_and_sigma=colors_and_sigmas(),
    seed=seeds_in_any_form(),
    tube=st.booleans(),
    data=st.data(),
)
def test_any_noise(gpu, ids, grid, color_and_sigma, seed, tube, data):
    color, sigma = color_and_sigma
    count, _ = data.draw(counts(math.prod(grid), grid[0] if tube else 1))
    assert_masks_equal(gpu, ids, grid, color, count, sigma, tube, seed)
    assert_noise_equal(gpu, ids, grid, color, sigma, seed)


@pytest.mark.slow
@pytest.mark.parametrize("time_scale", [0.0, 2.5])
def test_another_scale_of_time(gpu, time_scale):
    *call, _ = noise_call(IDS_TENSOR[:2], (3, 5, 7), "green", None, 5)
    assert_equal_on_cpu(gpu, "noise", (*call, time_scale))
    assert_equal_on_cpu(gpu, "noise_masks", (*call, 20, False, time_scale))


@pytest.mark.slow
@every_color([(1, 64, 8), (3, 5, 7), (2, 9, 33), (9, 17, 6)], SLOW_IN_PASSES)
def test_grids_in_passes(gpu, in_passes, grid, color, exhaustive):
    ids, n = IDS_TENSOR[2:5], math.prod(grid)
    # Each sample takes the interpreter up to a second.
    few = ids if exhaustive or DEVICE == "cuda" else ids[1:2]
    assert_noise_equal(gpu, few, grid, color, seed=torch.tensor(-3))
    assert_masks_equal(gpu, ids, grid, color, {"n_keep": n // 5}, seed=torch.tensor(-3))
    assert_masks_equal(gpu, few, grid, color, {"n_keep": grid[0]}, tube=True)


@pytest.mark.slow
def test_rbn_in_parts(gpu, monkeypatch):
    from smnm_kernels.triton_kernels import rbn_ops

    monkeypatch.setattr(rbn_ops, "MAX_SCRATCH_BYTES", 3 * 4 * 12 * 4)
    rule = ((3, 5), (0.4, 0.4, 0.1, 0.1), "random")
    call = rbn_masks_call(IDS_TENSOR[2:6], (1, 3, 4), 0.7, None, None, *rule, False, 8)
    assert_equal_on_cpu(gpu, "rbn_masks", call)
    orders = torch.stack([torch.randperm(12) for _ in range(5)])
    assert_equal_on_cpu(gpu, "rbn_bank", rbn_bank_call(orders, 3, 4, (1, 3, 4), *rule, 1))


@pytest.mark.slow
def test_a_grid_too_large_for_the_chip(gpu):
    from smnm_kernels.triton_kernels.noise_ops import device_table
    from smnm_kernels.triton_kernels.tiles import tile_of

    def fits(grid, color):
        table = device_table(grid, color, (), 1.0, torch.device("cpu"))
        return tile_of(grid, table.torus, table.chains) is not None

    assert fits((8, 14, 14), "white")
    assert not fits((5, 50, 50), "white")
    assert_masks_equal(gpu, IDS_TENSOR[:1], (5, 50, 50), "white", {"n_keep": 7})
    assert_masks_equal(gpu, IDS_TENSOR[4:5], (1, 50, 50), "green", {"n_keep": 2499})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("grid", "sigma"),
    [
        ((1, 1, 700), None),  # rows of taps so long that their products leave 16 bits
        ((1, 300, 3), (0.4, 0.9)),  # tiles that see a part of the torus
        ((90, 2, 2), (0.4, 0.9)),
        ((3, 90, 1), (0.3, 0.7)),
    ],
)
def test_long_axes(gpu, in_passes, grid, sigma):
    ids = IDS_TENSOR[1:2] if sigma else torch.tensor([1])
    assert_noise_equal(gpu, ids, grid, "green", sigma)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "grid"),
    [
        ("on the chip", (3, 5, 7)),
        ("on the chip", (1, 14, 14)),
        ("in passes", (1, 14, 14)),
        pytest.param("in passes", (3, 5, 7), marks=pytest.mark.exhaustive),  # ever so long
    ],
    ids=str,
)
@pytest.mark.skipif(smnm.build_info() is None, reason="needs the C++ extension")
def test_clamps(gpu, monkeypatch, grid, path, request):
    """Drawn noise hardly reaches the clamps; this noise is far too loud, and one-sided."""
    from smnm_kernels.triton_kernels import noise_ops

    if path == "in passes":
        request.getfixturevalue("in_passes")
    loud = torch.where(torch.arange(4096) < 1800, -1400, 1400).to(torch.int16)
    monkeypatch.setattr(noise_ops, "noise_quantiles", lambda: loud)
    monkeypatch.setattr(noise_ops, "device_table", noise_ops.device_table.__wrapped__)
    call = noise_call(IDS_TENSOR, grid, "red", 2.0, 0)
    table = noise_table(grid, "red", tuple(call[5]))
    expected = torch.ops.smnm.noise_from_table(*call[:4], pack(table, loud))
    assert (expected == MAX_FIELD * table.scale).any()
    assert (expected < MAX_FIELD * table.scale).any()
    assert_same(gpu.noise_kernel(call[0].to(DEVICE), *call[1:]), expected)


def test_an_order_that_is_no_permutation_ends(gpu):
    order = torch.zeros(1, 12, dtype=torch.int64, device=DEVICE)
    rule = ([3, 5], [400, 400, 100, 100], False)
    made = gpu.rbn_bank_kernel(order, None, 0, (1, 3, 4), 4, 3, *rule)
    assert made.sum() == 3  # the one position, once in each mask


@pytest.mark.slow
def test_the_standard_grids_take_one_launch(gpu, monkeypatch):
    """So none of them may take the path of large grids, with the sigmas it takes by default."""
    from smnm_kernels.triton_kernels import noise_ops

    def no_passes(*_):
        raise AssertionError("a standard grid did not fit on the chip")

    monkeypatch.setattr(noise_ops, "fill_field", no_passes)
    for grid in STANDARD_GRIDS:
        for color in COLORS:
            assert_masks_equal(gpu, IDS_TENSOR[:1], grid, color, {"mask_ratio": 0.9})


def test_strided_ids_and_an_empty_batch(gpu):
    ids = IDS_TENSOR.repeat_interleave(3)[1::3]
    assert not ids.is_contiguous()
    assert_masks_equal(gpu, ids, (4, 6, 5), "green", {"n_keep": 11})
    for grid in ((4, 6, 5), (1, 90, 90)):
        assert_masks_equal(gpu, IDS_TENSOR[:0], grid, "green", {"n_keep": 8}, tube=True)


@examples(60)
@given(
    values=st.integers(1, 40).flatmap(
        lambda n: st.lists(
            st.lists(
                st.one_of(
                    st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan, 1.5, -1.5, 5e-324]),
                    st.floats(width=64),
                ),
                min_size=n,
                max_size=n,
            ),
            min_size=1,
            max_size=2,
        )
    ),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    data=st.data(),
)
def test_threshold_of_any_floats(gpu, values, dtype, data):
    noise = torch.tensor(values, dtype=torch.float64).to(dtype)
    n_keep = data.draw(st.integers(1, noise.shape[1]))
    assert_equal_on_cpu(gpu, "threshold", (noise, n_keep))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threshold_in_chunks(gpu, in_passes, dtype, exhaustive):
    noise = torch.randint(-9, 9, (2, 555), generator=torch.Generator().manual_seed(1)).to(dtype)
    noise[1, 40:400] = math.inf
    few = (361,) if dtype == torch.float64 else (360, 361)
    for n_keep in (1, 100, 359, 360, 361, 555) if exhaustive or DEVICE == "cuda" else few:
        assert_equal_on_cpu(gpu, "threshold", (noise, n_keep))


@examples(25)
@given(
    sides=st.sampled_from([(1, 1), (1, 9), (11, 1), (3, 5), (7, 4), (6, 6), (5, 13)]),
    n_candidates=st.one_of(st.none(), st.integers(1, 9)),
    rule=st.tuples(
        st.sampled_from([(3, 5), (1,), (5, 5), (99,)]),
        st.sampled_from(WEIGHTS),
        st.sampled_from(["first", "random"]),
    ),
    ids=st.lists(IDS, max_size=3).map(lambda ids: torch.tensor(ids, dtype=torch.int64)),
    seed=SEEDS,
    data=st.data(),
)
def test_any_rbn(gpu, sides, n_candidates, rule, ids, seed, data):
    grid, n_tokens = (1, *sides), math.prod(sides)
    n_keep = data.draw(st.integers(1, n_tokens))
    call = rbn_masks_call(ids, grid, None, n_keep, n_candidates, *rule, False, seed)
    assert_equal_on_cpu(gpu, "rbn_masks", call)
    orders = torch.stack([torch.randperm(n_tokens) for _ in range(2)])
    call = rbn_bank_call(orders, n_candidates or 2, n_keep, grid, *rule, torch.tensor(seed))
    assert_equal_on_cpu(gpu, "rbn_bank", call)
