"""A mask is a function of (seed, sample id, kind, grid, ratio, parameters) and of nothing else."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import colors_and_sigmas, counts, grids, sample_ids, seeds_in_any_form
from testing import assert_same, devices

import smnm_kernels as smnm

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("device", devices()),
]


@st.composite
def noise_calls(draw):
    """(ids, (grid, color), sigma and seed)"""
    color, sigma = draw(colors_and_sigmas())
    arguments = {"sigma": sigma, "seed": draw(seeds_in_any_form())}
    return draw(sample_ids()), (draw(grids()), color), arguments


@st.composite
def rbn_calls(draw):
    """(ids, grid, keyword arguments): every K, window, weight and tie-break."""
    grid = draw(grids(max_tokens=120, flat=True))
    count, _ = draw(counts(grid[1] * grid[2]))
    weight = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
    arguments = count | {
        "n_candidates": draw(st.one_of(st.none(), st.integers(1, 9))),
        "windows": draw(st.lists(st.sampled_from([1, 3, 5, 7, 11]), min_size=1, max_size=3)),
        "weights": draw(st.one_of(st.just((0.4, 0.4, 0.1, 0.1)), st.tuples(*[weight] * 4))),
        "tie_break": draw(st.sampled_from(["first", "random"])),
        "seed": draw(seeds_in_any_form()),
    }
    return draw(sample_ids()), grid, arguments


def on(device, arguments):
    return {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}


def other_orders(ids, data):
    """The same ids reversed, and as every second element of a larger tensor."""
    permutation = data.draw(st.permutations(range(len(ids))))
    spread = torch.full((len(ids), 3), 77, dtype=torch.int64, device=ids.device)
    spread[:, 1] = ids
    expanded = torch.full((1,), 5, dtype=torch.int64, device=ids.device).expand(len(ids))
    return torch.tensor(permutation, dtype=torch.int64, device=ids.device), spread[:, 1], expanded


def assert_pure(draw_masks, ids, data):
    """`draw_masks(ids)` treats each row alone, however the ids come."""
    whole = draw_masks(ids)
    cut = data.draw(st.integers(0, len(ids)))
    parts = zip(draw_masks(ids[:cut]), draw_masks(ids[cut:]), strict=True)
    assert_same(whole, [torch.cat(pair) for pair in parts])
    permutation, strided, expanded = other_orders(ids, data)
    assert_same(draw_masks(ids[permutation]), [part[permutation] for part in whole])
    assert_same(draw_masks(strided), whole)
    assert_same(draw_masks(expanded), draw_masks(expanded.contiguous()))
    assert_same(draw_masks(ids), whole)


@given(call=noise_calls(), data=st.data())
def test_noise_is_the_reference_row_by_row(device, call, data):
    ids, what, arguments = call
    ids, arguments = ids.to(device), on(device, arguments)
    noise = smnm.noise(ids, *what, **arguments)
    assert noise.shape == (len(ids), *what[0])
    assert noise.dtype == torch.float32
    assert_same(noise, smnm.reference.noise(ids, *what, **arguments))
    assert_pure(lambda ids: [smnm.noise(ids, *what, **arguments)], ids, data)


@given(call=noise_calls(), data=st.data())
def test_noise_masks_are_the_threshold_of_the_noise(device, call, data):
    ids, what, arguments = call
    ids, arguments = ids.to(device), on(device, arguments)
    grid = what[0]
    count, _ = data.draw(counts(grid[0] * grid[1] * grid[2]))
    masks = smnm.noise_masks(ids, *what, **count, **arguments)
    assert_same(masks, smnm.threshold(smnm.noise(ids, *what, **arguments), **count))
    assert_same(masks, smnm.reference.noise_masks(ids, *what, **count, **arguments))
    assert_pure(lambda ids: smnm.noise_masks(ids, *what, **count, **arguments), ids, data)


@given(call=noise_calls(), data=st.data())
def test_tube_masks_repeat_one_frame(device, call, data):
    ids, what, arguments = call
    ids, arguments = ids.to(device), on(device, arguments)
    (frames, height, width), color = what
    count, n_keep = data.draw(counts(frames * height * width, frames))
    masks = smnm.noise_masks(ids, *what, **count, tube=True, **arguments)
    frame = smnm.noise_masks(ids, (1, height, width), color, n_keep=n_keep // frames, **arguments)
    assert_same(masks.visible, frame.visible.repeat(1, frames))
    assert_same(masks, smnm.reference.noise_masks(ids, *what, **count, tube=True, **arguments))
    assert_pure(
        lambda ids: smnm.noise_masks(ids, *what, **count, tube=True, **arguments), ids, data
    )


@given(call=rbn_calls(), data=st.data())
def test_rbn_masks_are_the_reference_row_by_row(device, call, data):
    ids, grid, arguments = call
    ids, arguments = ids.to(device), on(device, arguments)
    masks = smnm.rbn_masks(ids, grid, **arguments)
    assert_same(masks, smnm.reference.rbn_masks(ids, grid, **arguments))
    assert_pure(lambda ids: smnm.rbn_masks(ids, grid, **arguments), ids, data)


@given(call=rbn_calls(), data=st.data(), dtype=st.sampled_from([torch.int64, torch.int16]))
def test_rbn_bank_is_the_reference(device, call, data, dtype):
    _, grid, arguments = call
    arguments = on(device, arguments)
    n_tokens = grid[1] * grid[2]
    n_candidates = arguments.pop("n_candidates") or 3
    n_keep = data.draw(st.integers(1, n_tokens))
    arguments = {k: v for k, v in arguments.items() if k not in ("mask_ratio", "n_keep")}
    orders = [
        data.draw(st.permutations(range(n_tokens)))
        for _ in range(data.draw(st.sampled_from([0, 1, 3])))
    ]
    order = torch.tensor(orders, dtype=dtype, device=device).reshape(len(orders), n_tokens)
    bank = smnm.rbn_bank(order, n_candidates, n_keep, grid, **arguments)
    assert bank.shape == (len(orders), n_candidates, n_tokens)
    call = (n_candidates, n_keep, grid)
    assert_same(bank, smnm.reference.rbn_bank(order, *call, **arguments))
    assert_same(bank, smnm.rbn_bank(order.t().contiguous().t(), *call, **arguments))


@pytest.mark.slow
@pytest.mark.parametrize("grid", [(1, 128, 128), (16, 32, 32)])
def test_ties_at_the_threshold_go_to_the_lower_token(device, grid):
    """The integer field ties now and then; some of these samples do so right at the threshold."""
    ids = torch.arange(1000, device=device)
    n_keep = grid[0] * grid[1] * grid[2] // 2
    noise = smnm.noise(ids, grid, "red", sigma=2).flatten(1)
    values, tokens = noise.sort(dim=1, descending=True, stable=True)
    assert (values[:, n_keep - 1] == values[:, n_keep]).sum() > 2
    masks = smnm.noise_masks(ids, grid, "red", sigma=2, n_keep=n_keep)
    assert_same(masks.ids_keep, tokens[:, :n_keep].sort(dim=1).values)


@pytest.mark.parametrize("color", ["white", "red", "blue", "green"])
def test_ids_and_seeds_all_differ(device, color):
    """No two of these collide, neighbours and both halves of the 64 bits included."""
    edge = [0, 1, -1, 2**31, 2**32, 2**32 + 1, 2**62, -(2**62), 2**63 - 1, -(2**63)]
    ids = torch.tensor(edge, device=device)
    fields = [smnm.noise(ids, (1, 6, 6), color, sigma=None, seed=seed).flatten(1) for seed in edge]
    assert len(torch.cat(fields).unique(dim=0)) == len(edge) ** 2


def test_the_number_of_threads_changes_nothing(device, n_threads):
    ids = torch.arange(-9, 37, device=device)
    results = []
    for threads in (1, 2, 3):
        n_threads(threads)
        results.append(
            [
                *smnm.noise_masks(ids, (8, 14, 14), "green", 0.9),
                smnm.noise(ids, (3, 9, 5), "white"),
                *smnm.rbn_masks(ids, (1, 16, 8), 0.8, tie_break="random"),
                *smnm.threshold(smnm.noise(ids, (2, 9, 5), "red"), 0.5),
                *smnm.noise_masks(ids, (4, 7, 7), "blue", 0.5, tube=True),
            ]
        )
    assert_same(results[0], results[1])
    assert_same(results[0], results[2])


def test_global_random_state_is_neither_read_nor_advanced(device):
    ids = torch.arange(4, device=device)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = smnm.noise_masks(ids, (1, 8, 8), "green", 0.5)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert_same(first, smnm.noise_masks(ids, (1, 8, 8), "green", 0.5))


def test_a_smaller_ratio_only_adds_tokens(device):
    """The ratio moves the threshold, not the noise."""
    ids = torch.arange(6, device=device)
    few = smnm.noise_masks(ids, (2, 8, 8), "green", 0.9).visible
    many = smnm.noise_masks(ids, (2, 8, 8), "green", 0.5).visible
    assert bool((many | ~few).all())
