"""R-BN samples: which bank and mask a sample id names, coverage, and how clustered they are."""

import pytest
import torch
from algorithm_1 import algorithm_1, mean_score
from hypothesis import given
from hypothesis import strategies as st
from rbn_banks import as_sets, bank_order, tie_breaker
from strategies import IDS, SEEDS, examples
from testing import assert_same, devices

import smnm_kernels as smnm

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("device", devices()),
]


@examples(150)
@given(
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    sample_id=IDS,
    seed=SEEDS,
    n_candidates=st.integers(1, 7),
    tie_break=st.sampled_from(["first", "random"]),
    data=st.data(),
)
def test_sample_s_is_mask_s_mod_k_of_bank_s_div_k(
    device, sides, sample_id, seed, n_candidates, tie_break, data
):
    height, width = sides
    n_tokens = height * width
    n_keep = data.draw(st.integers(1, n_tokens))
    masks = smnm.rbn_masks(
        torch.tensor([sample_id], device=device),
        (1, height, width),
        n_keep=n_keep,
        n_candidates=n_candidates,
        tie_break=tie_break,
        seed=seed,
    )
    bank = sample_id // n_candidates
    order = bank_order(bank, n_tokens, seed)
    tied = {"choose": tie_breaker(order, seed, bank)} if tie_break == "random" else {}
    drawn = algorithm_1(order, n_candidates, n_keep, height, width, **tied)
    assert set(masks.ids_keep[0].tolist()) == drawn[sample_id - bank * n_candidates]


def test_rows_equal_the_bank_of_the_same_order(device):
    grid, n_tokens, seed = (1, 64, 8), 512, 11
    orders = torch.tensor([bank_order(b, n_tokens, seed) for b in range(3)], device=device)
    for tie_break in ("first", "random"):
        bank = smnm.rbn_bank(orders, 5, 102, grid, tie_break=tie_break, seed=seed)
        masks = smnm.rbn_masks(
            torch.arange(15, device=device), grid, 0.8, tie_break=tie_break, seed=seed
        )
        assert torch.equal(masks.visible, bank.flatten(0, 1))


@pytest.mark.parametrize(
    ("grid", "count", "n_candidates"),
    [
        ((1, 64, 8), {"mask_ratio": 0.8}, 5),
        ((1, 64, 8), {"mask_ratio": 0.75}, 4),
        ((1, 14, 14), {"mask_ratio": 0.75}, 4),
        ((1, 14, 14), {"mask_ratio": 0.9}, 10),
        ((1, 10, 10), {"n_keep": 30}, 3),
        ((1, 10, 10), {"n_keep": 70}, 2),
        ((1, 10, 10), {"mask_ratio": 0}, 2),
        ((1, 1, 1), {"n_keep": 1}, 2),
    ],
)
def test_the_default_k_covers_without_overlap(device, grid, count, n_candidates):
    ids = torch.arange(-2 * n_candidates, 2 * n_candidates, device=device)
    masks = smnm.rbn_masks(ids, grid, **count)
    given = smnm.rbn_masks(ids, grid, **count, n_candidates=n_candidates)
    assert torch.equal(masks.visible, given.visible)
    times_visible = masks.visible.view(4, n_candidates, -1).sum(1)
    if n_candidates * masks.n_keep <= masks.visible.shape[1]:
        assert times_visible.max() == 1
        assert bool((times_visible.sum(1) == n_candidates * masks.n_keep).all())
    else:
        assert times_visible.min() >= 1


def clustering(masks):
    return [
        sum(mean_score(mask, 64, 8) for mask in same_k) / len(same_k)
        for same_k in zip(*masks, strict=True)
    ]


def test_clustering_at_64_by_8(device):
    """Mean score of a mask's own visible patches, for masks 0 to 4 of 40 banks of 5."""
    ids, grid = torch.arange(200, device=device), (1, 64, 8)

    def banks(visible):
        return as_sets(visible.view(40, 5, 512))

    # One bank varies by 0.06: the last of a single run shows anything from 0.25 to 0.45.
    first = clustering(banks(smnm.rbn_masks(ids, grid, 0.8).visible))
    assert first == pytest.approx([0.21, 0.21, 0.23, 0.265, 0.34], abs=0.03)
    assert first[4] > 1.15 * max(first[:4])
    random_ties = smnm.rbn_masks(ids, grid, 0.8, tie_break="random").visible
    assert clustering(banks(random_ties)) == pytest.approx([0.26] * 5, abs=0.03)
    white = smnm.noise_masks(ids, grid, "white", 0.8).visible
    assert clustering(banks(white)) == pytest.approx([1.05] * 5, abs=0.04)
    blue = smnm.noise_masks(ids, grid, "blue", 0.8).visible
    assert clustering(banks(blue)) == pytest.approx([0.86] * 5, abs=0.05)


def test_banks_differ(device):
    """Consecutive banks have orders of their own."""
    masks = smnm.rbn_masks(torch.arange(0, 200, 5, device=device), (1, 16, 8), 0.8)
    assert len(masks.visible.unique(dim=0)) == 40


def test_positions_are_visible_equally_often(device):
    """4000 samples, each position visible with probability 102/512: 5 standard errors."""
    share = 102 / 512
    for tie_break in ("first", "random"):
        masks = smnm.rbn_masks(
            torch.arange(4000, device=device), (1, 64, 8), 0.8, tie_break=tie_break
        )
        spread = (masks.visible.double().mean(0) - share).abs().max()
        assert spread < 5 * (share * (1 - share) / 4000) ** 0.5


def test_windows_far_wider_than_the_grid(device):
    ids = torch.arange(3, device=device)
    wide = smnm.rbn_masks(ids, (1, 2, 40), 0.8, windows=(3, 999))
    assert_same(wide, smnm.reference.rbn_masks(ids, (1, 2, 40), 0.8, windows=(3, 999)))
    assert smnm.rbn_masks(ids[:1], (1, 1, 20000), 0.8, windows=(39999,)).n_keep == 4000


@pytest.mark.parametrize("n_tokens", [1024, 1025, 2**20, 2**20 + 1])
def test_orders_of_any_length(device, n_tokens):
    """A single mask takes the first positions of its bank's order: cut where two neighbours are
    hardest to tell apart."""
    drawn = smnm.reference.words(n_tokens, smnm.reference.Purpose.ORDER, 3, 5)
    keys, order = torch.from_numpy(drawn.astype("int64")).sort(stable=True)
    gaps = torch.where(order[1:] < order[:-1], keys[1:] - keys[:-1], 2**32)
    closest = 1 + int(gaps.argmin())
    for n_keep in (1, closest, n_tokens // 2):
        masks = smnm.rbn_masks(
            torch.tensor([3], device=device),
            (1, 1, n_tokens),
            n_keep=n_keep,
            n_candidates=1,
            seed=5,
        )
        assert_same(masks.ids_keep[0].cpu(), order[:n_keep].sort().values)


@pytest.mark.slow
@pytest.mark.parametrize("tie_break", ["first", "random"])
def test_scores_that_outgrow_the_caches(device, tie_break):
    ids, call = torch.arange(33, device=device), ((1, 65, 65), 0.97)
    masks = smnm.rbn_masks(ids, *call, tie_break=tie_break)
    assert_same(masks, smnm.reference.rbn_masks(ids, *call, tie_break=tie_break))


@pytest.mark.parametrize("last", [0.091, 0.092, 20000])
def test_scores_at_the_bounds_of_their_types(device, last):
    """The highest score is 16382, the last of 16 bits; 16384; and one of 28 bits."""
    ids, rule = torch.arange(8, device=device), {"windows": (3,), "weights": (4, 4, 0.1, last)}
    for n_keep in (12, 25):
        masks = smnm.rbn_masks(ids, (1, 5, 5), n_keep=n_keep, n_candidates=4, **rule)
        expected = smnm.reference.rbn_masks(ids, (1, 5, 5), n_keep=n_keep, n_candidates=4, **rule)
        assert_same(masks, expected)
