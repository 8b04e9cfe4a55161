"""What masks are worth: cases worked out by hand, brute force, and numbers known of each kind."""

import itertools
import math
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import smnm_kernels as smnm
from smnm_kernels.analysis import quality
from smnm_kernels.analysis.spectrum import expected_spectrum, radial_spectrum

VIDEO, AUDIO = (8, 14, 14), (1, 64, 8)
SQRT2 = math.sqrt(2)


def picture(*rows):
    """bool [1, 1, H, W] of strings, # = visible."""
    return torch.tensor([[[[c == "#" for c in row] for row in rows]]])


def checkerboard(frames, height, width):
    """[1, T, H, W], the other colour in every frame."""
    t, y, x = (torch.arange(n) for n in (frames, height, width))
    return ((t[:, None, None] + y[:, None] + x) % 2 == 0)[None]


def all_masks(n_tokens, n_keep):
    """Every mask of n_keep among n_tokens once, [B, 1, 1, N]."""
    rows = [[i in kept for i in range(n_tokens)] for kept in choices(n_tokens, n_keep)]
    return torch.tensor(rows)[:, None, None]


def choices(n_tokens, n_keep):
    return map(set, itertools.combinations(range(n_tokens), n_keep))


def iid(shape, p, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < p


@lru_cache
def masks_of(kind, grid, ratio, n=1000):
    return smnm.MaskSampler(kind, grid, ratio).masks(torch.arange(n)).visible.unflatten(1, grid)


# Clustering.


@pytest.mark.parametrize(
    ("mask", "score"),
    [
        (picture("...."), 0),
        (picture("#...", "..#.", "...."), 0),  # a knight's move is on no line
        (picture("##", "##"), 2 * (0.4 + 0.4 + 0.1)),  # neighbours lie in both windows
        (picture("#.#"), 0.4),
        (picture("#..#"), 0),  # outside of both windows
        (picture(".###."), (1.2 + 1.6 + 1.2) / 3),
        # 25 diagonal pairs one step apart; two apart 24 along lines and 16 along diagonals.
        (checkerboard(1, 6, 6), 2 * (2 * 0.1 * 25 + 0.4 * 24 + 0.1 * 16) / 18),
        # The same patch in two frames has no neighbours; frames count by their visible patches.
        (picture("#.").expand(1, 2, 1, 2), 0),
        (torch.stack([picture("##", "##"), picture("#.", "..")], 2).flatten(1, 2), 1.8 * 4 / 5),
    ],
)
def test_clustering_by_hand(mask, score):
    assert quality.clustering(mask).tolist() == [pytest.approx(score, abs=1e-12)]


@pytest.mark.parametrize(
    ("mask", "weight"),
    [
        (picture("##"), 0.8),
        (picture("#", "#"), 0.04),
        (picture("#.", ".#"), 0.002),
        (picture(".#", "#."), 6),
    ],
)
def test_each_line_has_its_weight(mask, weight):
    scores = quality.clustering(mask, windows=(3,), weights=(0.8, 0.04, 0.002, 6))
    assert scores.item() == weight


@pytest.mark.parametrize("sides", [(1, 12), (9, 2), (3, 4), (8, 11)])
@pytest.mark.parametrize("windows", [(3,), (3, 5), (9, 1, 31)])
def test_clustering_is_the_mean_of_the_reference_score(sides, windows):
    masks = iid((3, 2, *sides), 0.5)
    thousandths = (300, 20, 500, 7)
    weights = (0.3, 0.02, 0.5, 0.007)
    for mask, found in zip(masks, quality.clustering(masks, windows, weights), strict=True):
        scores = [
            smnm.reference.rbn_score(frame.numpy(), int(y), int(x), windows, thousandths)
            for frame in mask
            for y, x in frame.nonzero()
        ]
        assert found.item() == pytest.approx(np.mean(scores) / 1000, rel=1e-12)


def test_random_masks_have_their_share_of_all_visible():
    """Two tokens are both visible in (n - 1) / (N - 1) of the masks that show the first."""
    full = torch.ones((1, *AUDIO), dtype=torch.bool)
    expected = quality.clustering(full).item() * 101 / 511
    assert expected == pytest.approx(1.05, abs=0.005)
    scores = quality.clustering(masks_of("random", AUDIO, 0.8))
    assert scores.mean().item() == pytest.approx(expected, abs=5 * scores.std().item() / 1000**0.5)
    every = quality.clustering(all_masks(7, 3).reshape(-1, 1, 1, 7)).mean().item()
    ones = quality.clustering(torch.ones(1, 1, 1, 7, dtype=torch.bool)).item()
    assert every == pytest.approx(ones * 2 / 6, rel=1e-12)


def test_known_clustering_at_64_by_8():
    """DESIGN.md, section 4: its five numbers of "first" are of one bank, 0.83 is of one sigma."""
    ids = torch.arange(2000)

    def scores(tie_break):
        visible = smnm.rbn_masks(ids, AUDIO, 0.8, tie_break=tie_break).visible
        return quality.clustering(visible.unflatten(1, AUDIO)).view(400, 5).numpy()

    first, of_one_bank = scores("first"), np.array([0.20, 0.21, 0.25, 0.26, 0.42])
    assert first.mean(0) == pytest.approx([0.204, 0.212, 0.231, 0.268, 0.344], abs=0.01)
    assert (abs(of_one_bank - first.mean(0)) < 2 * first.std(0)).all()
    assert scores("random").mean(0) == pytest.approx([0.26] * 5, abs=0.01)
    blue = {
        sigma: smnm.noise_masks(ids, AUDIO, "blue", 0.8, sigma=sigma).visible.unflatten(1, AUDIO)
        for sigma in (1.0, None)
    }
    assert quality.clustering(blue[1.0]).mean().item() == pytest.approx(0.835, abs=0.015)
    assert quality.clustering(blue[None]).mean().item() == pytest.approx(0.87, abs=0.015)


@pytest.mark.parametrize(
    ("grid", "ratio", "kinds"),
    [
        (AUDIO, 0.8, ("inverse_block", "red2d", "green2d", "random", "blue2d", "rbn")),
        (VIDEO, 0.9, ("red3d", "green3d", "random", "blue3d")),
    ],
)
def test_red_clusters_more_than_random_more_than_blue_more_than_rbn(grid, ratio, kinds):
    scores = [quality.clustering(masks_of(kind, grid, ratio)).mean().item() for kind in kinds]
    for more, less in itertools.pairwise(scores):
        assert more > 1.07 * less, scores


# The largest hole.


@pytest.mark.parametrize(
    ("mask", "distance"),
    [
        (checkerboard(1, 6, 7), 1),
        (checkerboard(4, 6, 7), 1),
        (torch.ones(1, 2, 3, 4, dtype=torch.bool), 0),
        (picture("#.....", "......", "......"), math.hypot(2, 5)),
        (picture(*["." * 9] * 3, *["...###..."] * 3, *["." * 9] * 3), 3 * SQRT2),
        (picture("####", "....", "...."), 2),
        # Time counts as a side: from the first frame's corner to the last frame's other one.
        (torch.arange(3 * 5 * 7).view(1, 3, 5, 7) == 0, math.sqrt(4 + 16 + 36)),
    ],
)
def test_largest_hole_by_hand(mask, distance):
    assert quality.largest_hole(mask) == (pytest.approx(distance), pytest.approx(distance))


@pytest.mark.parametrize("grid", [(1, 7, 9), (4, 5, 6), (1, 1, 30)])
def test_largest_hole_by_brute_force(grid):
    """Masks do not see each other's patches, however unlike they are."""
    masks = torch.cat([iid((6, *grid), p, seed=i) for i, p in enumerate((0.02, 0.9, 0.1))])
    masks[:, -1, -1, -1] = True
    holes = []
    for mask in masks:
        distance = torch.cdist((~mask).nonzero().double(), mask.nonzero().double())
        holes.append(distance.amin(1).max().item())
    assert max(holes) > 2 * np.median(holes)
    assert quality.largest_hole(masks) == pytest.approx((np.mean(holes), max(holes)))


def test_rbn_leaves_smaller_holes_than_blue_than_random_than_red():
    kinds = ("rbn", "blue2d", "random", "red2d")
    holes = [quality.largest_hole(masks_of(kind, AUDIO, 0.8)).mean for kind in kinds]
    assert all(1.07 * small < large for small, large in itertools.pairwise(holes)), holes


def test_a_mask_that_shows_nothing_has_no_hole():
    masks = torch.ones(3, 1, 2, 2, dtype=torch.bool)
    masks[1] = False
    with pytest.raises(ValueError, match="visible must show a patch in every mask"):
        quality.largest_hole(masks)


# Coverage.


def test_all_permutations_cover_alike():
    found = quality.coverage(all_masks(6, 2))
    assert found.deviation == pytest.approx(0, abs=1e-9)
    assert found.chi2_per_dof == pytest.approx(0, abs=1e-9)


def test_one_mask_over_and_over_covers_nothing_else():
    """Each visible token lies sqrt(B (1 - p) / p) above the mean; the squares' mean is B."""
    found = quality.coverage(picture("#...").expand(50, 1, 1, 4))
    assert found.deviation == pytest.approx(math.sqrt(50 * 3))
    assert found.chi2_per_dof == pytest.approx(50)
    complement = quality.coverage(picture(".###").expand(50, 1, 1, 4))
    assert complement == pytest.approx(found)  # a token too rarely visible deviates as well


def test_where_all_is_visible_nothing_deviates():
    found = quality.coverage(torch.ones(5, 1, 2, 2, dtype=torch.bool))
    assert (found.deviation, found.chi2_per_dof) == (0, 0)


def test_coverage_of_random_masks():
    """1568 squares of mean 1 and variance 2, 20 times."""
    found = [
        quality.coverage(
            smnm.noise_masks(torch.arange(1000) + 1000 * i, VIDEO, "white", 0.9).visible.unflatten(
                1, VIDEO
            )
        )
        for i in range(20)
    ]
    chi2 = np.mean([each.chi2_per_dof for each in found])
    assert chi2 == pytest.approx(1, abs=5 * math.sqrt(2 / 1568 / 20))
    assert np.mean([each.deviation for each in found]) == pytest.approx(found[0].expected, abs=0.2)


@pytest.mark.parametrize(
    ("n_tokens", "expected", "error"),
    [
        (1, math.sqrt(2 / math.pi), 1e-6),
        (2, 2 / math.sqrt(math.pi), 1e-6),
        (1568, None, 0.02),
    ],
)
def test_expected_largest_deviation(n_tokens, expected, error):
    if expected is None:  # 3000 draws, each with a standard deviation of 0.25
        normal = torch.randn(3000, n_tokens, generator=torch.Generator().manual_seed(0))
        expected = normal.abs().amax(1).mean().item()
    found = quality.coverage(iid((2, 1, 1, n_tokens), 0.5)).expected
    assert found == pytest.approx(expected, abs=error)


def test_frames_that_are_alike_leave_the_squares_mean():
    frame = iid((30, 1, 4, 5), 0.3)
    one, tube = quality.coverage(frame), quality.coverage(frame.expand(30, 6, 4, 5))
    assert tube.chi2_per_dof == pytest.approx(one.chi2_per_dof)
    assert tube.deviation == pytest.approx(one.deviation)


def test_rbn_shares_out_the_tokens_and_blocks_keep_to_the_edge():
    assert quality.coverage(masks_of("rbn", AUDIO, 0.8)).chi2_per_dof < 0.02
    assert quality.coverage(masks_of("blue2d", AUDIO, 0.8)).chi2_per_dof == pytest.approx(
        1, abs=0.3
    )
    assert quality.coverage(masks_of("block", AUDIO, 0.8)).chi2_per_dof > 100


# Changes in time.


@pytest.mark.parametrize(
    ("mask", "changes"),
    [
        (picture("#..#.").expand(1, 7, 1, 5), 0),
        (checkerboard(4, 6, 6), 2),
        # One of four moves on: half of the tokens differ, and 2 p (1 - p) = 3/8.
        (torch.eye(4, dtype=torch.bool).view(1, 4, 1, 4), 4 / 3),
        (torch.ones(1, 3, 2, 2, dtype=torch.bool), 0),
        (checkerboard(1, 6, 6), None),
    ],
)
def test_changes_in_time_by_hand(mask, changes):
    found = quality.changes_in_time(mask)
    assert found == (None if changes is None else pytest.approx(changes))


def test_masks_of_other_shares_each_have_their_own_expectation():
    masks = torch.cat([iid((100, 6, 10, 10), p) for p in (0.02, 0.5)])
    assert quality.changes_in_time(masks) == pytest.approx(1, abs=0.01)


def test_green_changes_less_than_random_and_more_than_red():
    found = {
        kind: quality.changes_in_time(masks_of(kind, VIDEO, 0.9))
        for kind in ("tube", "green2d", "red3d", "green3d", "random")
    }
    assert found["tube"] == found["green2d"] == 0
    assert 0.3 < found["red3d"] < 0.9 * found["green3d"] < 0.7
    assert found["random"] == pytest.approx(1568 / 1567, abs=0.005)


# Repeats.


def test_distinct_by_hand():
    masks = all_masks(9, 4)  # more than a byte of tokens
    assert quality.distinct(masks) == (126, 0)
    assert quality.distinct(masks.repeat(3, 1, 1, 1)) == (126, pytest.approx(2 / 3))
    assert quality.distinct(masks[:1].expand(10, 1, 1, 9)) == (1, pytest.approx(0.9))


def test_a_grid_repeats_and_noise_does_not():
    grid = (1, 16, 12)
    assert quality.distinct(masks_of("grid", grid, 0.75)) == (4, pytest.approx(0.996))
    assert quality.distinct(masks_of("green2d", grid, 0.75)) == (1000, 0)


# Spectra.


@pytest.mark.parametrize(
    ("grid", "color", "sigma"),
    [(AUDIO, "white", None), (AUDIO, "green", (0.6, 1.7)), ((4, 12, 12), "blue", 0.7)],
)
def test_noise_differs_from_its_formula_by_sampling(grid, color, sigma):
    fields = smnm.noise(torch.arange(530), grid, color, sigma=sigma)
    found = quality.spectrum_error(fields, grid, color, sigma)
    assert 0.01 < found.sampling < 0.04
    assert found.error < 1.6 * found.sampling
    assert quality.spectrum_error(1.1 * fields, grid, color, sigma).error > 0.15
    wrong = quality.spectrum_error(fields, grid, "green", (0.6, 2.2))
    assert wrong.error > 5 * wrong.sampling


def test_error_is_the_distance_of_all_fields_together():
    """Also where the parts of the batch are uneven: 50 of 130."""
    fields = smnm.noise(torch.arange(130), AUDIO, "red", sigma=0.8)
    power, expected = radial_spectrum(fields)[1], expected_spectrum(AUDIO, "red", 1.1)[1]
    distance = np.linalg.norm(power - expected) / np.linalg.norm(expected)
    found = quality.spectrum_error(fields, AUDIO, "red", 1.1)
    assert found.error == pytest.approx(distance, rel=1e-5)


def test_sampling_error_is_what_it_says():
    """The root mean square of 50 errors, each from 50 parts of 75 fields."""
    normal = torch.randn(50, 75, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    found = [quality.spectrum_error(fields, (1, 8, 8), "white") for fields in normal]
    actual = np.sqrt(np.mean([each.error**2 for each in found]))
    claimed = np.sqrt(np.mean([each.sampling**2 for each in found]))
    assert claimed == pytest.approx(actual, rel=0.12)


@pytest.mark.parametrize("shape", [(1, 1, 4, 4), (5, 1, 4, 5), (5, 4, 4)])
def test_wrong_fields_are_named(shape):
    with pytest.raises(ValueError, match=r"fields must be .*\(1, 4, 4\)"):
        quality.spectrum_error(torch.zeros(shape), (1, 4, 4), "white")


# The row of the table.


def test_report_says_what_the_functions_say():
    sampler = smnm.MaskSampler("green3d", VIDEO, 0.9, seed=3, sigma="variant-1")
    row = quality.report(sampler, 101, batch=25)
    assert row == quality.report(sampler, 101, batch=1000)
    ids = torch.arange(101)
    visible = sampler.masks(ids).visible.unflatten(1, VIDEO)
    hole, fair = quality.largest_hole(visible), quality.coverage(visible)
    fields = smnm.noise(ids, VIDEO, "green", sigma="variant-1", seed=3)
    error = quality.spectrum_error(fields, VIDEO, "green", "variant-1")
    expected = {
        "n_masks": 101,
        "clustering": quality.clustering(visible).mean().item(),
        "largest_hole_mean": hole.mean,
        "largest_hole_worst": hole.worst,
        "coverage_deviation": fair.deviation,
        "coverage_expected": fair.expected,
        "coverage_chi2_per_dof": fair.chi2_per_dof,
        "changes_in_time": quality.changes_in_time(visible),
        "distinct": 101,
        "repeat_rate": 0,
        "spectrum_error": error.error,
        "spectrum_sampling_error": error.sampling,
    }
    assert row == pytest.approx(expected, rel=6e-4)
    assert all(value == float(f"{value:.4g}") for value in row.values())


def test_report_leaves_out_what_there_is_not():
    rbn = quality.report(smnm.MaskSampler("rbn", AUDIO, 0.8), 20, batch=8)
    missing = {name for name, value in rbn.items() if value is None}
    assert missing == {"changes_in_time", "spectrum_error", "spectrum_sampling_error"}
    # A mask that is repeated over T has the two-dimensional spectrum of its frame.
    tube = quality.report(smnm.MaskSampler("green2d", VIDEO, 0.9), 20, batch=20)
    frame = quality.report(smnm.MaskSampler("green2d", (1, 14, 14), 0.9), 20, batch=20)
    for name in ("spectrum_error", "spectrum_sampling_error"):
        assert tube[name] == frame[name] > 0


def test_report_takes_what_has_a_grid_and_masks():
    def masks(ids):
        return SimpleNamespace(visible=torch.eye(6, dtype=torch.bool)[ids % 6])

    row = quality.report(SimpleNamespace(grid=(1, 2, 3), masks=masks), 12, batch=5)
    assert (row["distinct"], row["repeat_rate"], row["coverage_chi2_per_dof"]) == (6, 0.5, 0)
    assert row["largest_hole_worst"] == 2.236
    assert row["largest_hole_mean"] == float(f"{(2 * math.sqrt(5) + SQRT2) / 3:.4g}")


def test_report_refuses_tokens_in_another_order():
    sampler = smnm.MaskSampler("rbn", AUDIO, 0.8, freq_major=True)
    with pytest.raises(ValueError, match="freq_major"):
        quality.report(sampler, 4, batch=4)


@pytest.mark.parametrize(
    "visible",
    [
        torch.ones(2, 8, dtype=torch.bool),
        torch.ones(2, 1, 2, 4),
        torch.ones(0, 1, 2, 4, dtype=torch.bool),
    ],
)
@pytest.mark.parametrize(
    "name", ["clustering", "largest_hole", "coverage", "changes_in_time", "distinct"]
)
def test_wrong_masks_are_named(name, visible):
    with pytest.raises(ValueError, match=r"visible must be bool \[B, T, H, W\], got"):
        getattr(quality, name)(visible)
