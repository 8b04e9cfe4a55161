"""What others do is restated rightly: counts and forms, spectra, crops, and Algorithm 1."""

import itertools

import numpy as np
import pytest
import torch
from gaussian_fields import covariance_to
from testing import devices

import smnm_kernels as smnm
from smnm_kernels.timing import peers

VIDEO, AUDIO, IMAGE = (8, 14, 14), (1, 64, 8), (1, 14, 14)
COUNTS = [(VIDEO, 0.9, 156), (AUDIO, 0.8, 102), (IMAGE, 0.75, 49)]


def n_tokens(grid):
    return int(np.prod(grid))


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture(params=devices())
def device(request):
    return request.param


# Forms and counts.

MAE = {
    "random": lambda grid, ratio, device: peers.mae_random_masking(
        9, n_tokens(grid), ratio, device
    ),
    "bank": lambda grid, ratio, device: peers.bank_masking(
        torch.rand(5, *(side + 3 for side in grid), device=device), 9, grid, ratio
    ),
    "resident bank": lambda grid, ratio, device: peers.resident_bank_masking(
        torch.rand(5, *(side + 3 for side in grid), device=device), 9, grid, ratio
    ),
    "shared crop": lambda grid, ratio, device: peers.shared_crop_bank_masking(
        torch.rand(5, *(side + 3 for side in grid), device=device), 9, grid, ratio
    ),
    "resized": lambda grid, ratio, device: peers.resized_bank_masking(
        torch.rand(5, *(side + 3 for side in grid), device=device), 9, grid, ratio
    ),
}


@pytest.mark.parametrize(("grid", "ratio", "n_keep"), COUNTS)
@pytest.mark.parametrize("name", MAE)
def test_mae_triples(name, grid, ratio, n_keep, device):
    ids_keep, ids_restore, masked = MAE[name](grid, ratio, device)
    assert {made.device.type for made in (ids_keep, ids_restore, masked)} == {device}
    assert (ids_keep.dtype, ids_restore.dtype) == (torch.int64, torch.int64)
    assert masked.dtype == torch.float32
    assert ids_keep.shape == (9, n_keep)
    every = torch.arange(n_tokens(grid), device=device).expand(9, -1)
    assert torch.equal(ids_restore.sort(dim=1).values, every)
    assert torch.equal(ids_restore.argsort(dim=1)[:, :n_keep], ids_keep)
    assert (masked.sum(1) == n_tokens(grid) - n_keep).all()
    assert (masked.gather(1, ids_keep) == 0).all()
    assert len(masked.unique(dim=0)) == 9


TOPK = {
    "random": lambda grid, ratio, device: peers.rand_topk(9, n_tokens(grid), ratio, device),
    "circulant": lambda *call: peers.circulant_green_masking(9, *call),
    "fft": lambda *call: peers.fft_green_masking(9, *call),
    "conv": lambda *call: peers.conv_green_masking(9, *call),
    "scipy": lambda grid, ratio, device: peers.scipy_green_masking(9, grid, ratio),
}


@pytest.mark.parametrize(("grid", "ratio", "n_keep"), COUNTS)
@pytest.mark.parametrize("name", TOPK)
def test_topk_pairs(name, grid, ratio, n_keep, device):
    visible, ids_keep = TOPK[name](grid, ratio, device)
    if name != "scipy":
        assert {made.device.type for made in (visible, ids_keep)} == {device}
    assert (visible.dtype, ids_keep.dtype) == (torch.bool, torch.int64)
    assert visible.shape == (9, n_tokens(grid))
    assert ids_keep.shape == (9, n_keep)
    assert (visible.sum(1) == n_keep).all()
    assert visible.gather(1, ids_keep).all()
    assert len(visible.unique(dim=0)) == 9


# Banks.


def possible_orders(volume, grid, flipped_axes):
    """{order of the tokens, largest first: (starts, flips)} over all crops and flips."""
    starts = itertools.product(*(range(n - m + 1) for n, m in zip(volume.shape, grid, strict=True)))
    flips = [
        axes
        for n in range(len(flipped_axes) + 1)
        for axes in itertools.combinations(flipped_axes, n)
    ]
    orders = {}
    for start, axes in itertools.product(starts, flips):
        window = tuple(slice(at, at + side) for at, side in zip(start, grid, strict=True))
        noise = volume[window].flip(axes).flatten()
        orders[tuple(noise.argsort(descending=True).tolist())] = (start, axes)
    return orders


def made_orders(masks):
    return [tuple(row) for row in masks[1].argsort(dim=1).tolist()]


@pytest.mark.parametrize("masking", [peers.bank_masking, peers.resident_bank_masking])
def test_a_bank_gives_every_crop_and_flip(masking):
    volumes = torch.rand(2, 4, 5, 6)
    possible = [possible_orders(volume, (3, 4, 6), (0, 1, 2)) for volume in volumes]
    made = set(made_orders(masking(volumes, 600, (3, 4, 6), 0.5)))
    assert made == possible[0].keys() | possible[1].keys()
    assert len(made) == 2 * (2 * 2 * 1) * 8


def test_a_shared_crop_is_the_same_for_the_whole_batch():
    volumes = torch.rand(5, 4, 5, 6)
    possible = [possible_orders(volume, (3, 4, 6), (1, 2)) for volume in volumes]
    seen = set()
    for _ in range(200):
        orders = made_orders(peers.shared_crop_bank_masking(volumes, 3, (3, 4, 6), 0.5))
        (crop,) = {possible[row][order] for row, order in enumerate(orders)}
        seen.add(crop)
    assert len(seen) == (2 * 2 * 1) * 4


def test_shared_crops_repeat_between_batches_and_a_crop_per_sample_does_not():
    """Where only flips are left to draw, four batches are all there are."""
    volumes = torch.rand(8, *VIDEO)

    def batches(masking):
        made = [masking(volumes, 8, VIDEO, 0.9)[2] for _ in range(20)]
        return len(torch.stack(made).flatten(1).unique(dim=0))

    assert batches(peers.shared_crop_bank_masking) == 4
    assert batches(peers.bank_masking) == 20


def test_a_batch_larger_than_the_bank_starts_again_with_another_crop():
    volumes = torch.rand(3, 60, 4, 1)
    possible = [possible_orders(volume, (2, 4, 1), (1, 2)) for volume in volumes]
    orders = made_orders(peers.shared_crop_bank_masking(volumes, 8, (2, 4, 1), 0.5))
    starts = [possible[row % 3][order][0] for row, order in enumerate(orders)]
    pieces = [set(starts[first : first + 3]) for first in (0, 3, 6)]
    assert [len(piece) for piece in pieces] == [1, 1, 1]
    assert len(set.union(*pieces)) == 3


def test_resized_crops_have_random_sizes_and_places():
    """A crop of a linear ramp stays one: its slopes tell its size, its mean its centre."""
    longest, grid = (9, 12, 11), (3, 5, 7)
    places = torch.meshgrid(*(torch.arange(n) for n in longest), indexing="ij")
    for axis, (n, side) in enumerate(zip(longest, grid, strict=True)):
        crops = peers.resized_crops(places[axis].float()[None], 500, grid)
        slopes = crops.diff(dim=1 + axis)
        sizes = slopes[:, 0, 0, 0] * side
        torch.testing.assert_close(slopes * side, sizes.view(-1, 1, 1, 1).expand_as(slopes))
        assert set(sizes.round().int().tolist()) == set(range(side, n + 1))
        starts = crops.mean((1, 2, 3)) - (sizes - 1) / 2
        torch.testing.assert_close(starts, starts.round(), atol=1e-4, rtol=0)
        smallest = sizes.round() == side
        assert set(starts[smallest].round().int().tolist()) == set(range(n - side + 1))
        for other in {0, 1, 2} - {axis}:
            assert crops.diff(dim=1 + other).abs().max() < 1e-4


def test_crops_of_the_grids_size_are_not_resized():
    volumes = torch.rand(3, *IMAGE)
    crops = peers.resized_crops(volumes, 20, IMAGE)
    assert torch.equal(crops.unique(dim=0), volumes.unique(dim=0))
    order = made_orders(peers.resized_bank_masking(volumes[:1], 1, IMAGE, 0.5))
    assert order == made_orders((None, volumes[:1].flatten(1).argsort(1, True).argsort(1)))


# Green noise.


def rows_of_the_filter(field, tokens, monkeypatch):
    """What each white value counts for in each of the tokens: their dot products are the field's
    covariances, exactly, because the field is linear in the noise."""
    drawn = []
    randn = torch.randn

    def recorded(*shape, **options):
        drawn.append(randn(*shape, **options).requires_grad_())
        return drawn[-1]

    with monkeypatch.context() as patch:
        patch.setattr(torch, "randn", recorded)
        made = field()
    (white,) = drawn
    rows = [torch.autograd.grad(made[(0, *token)], white, retain_graph=True)[0] for token in tokens]
    return torch.stack(rows).flatten(1).double().numpy()


def corners_and_centre(grid):
    return [
        *itertools.product(*({0, side - 1} for side in grid)),
        tuple(side // 2 for side in grid),
    ]


def worst_covariance(field, grid, sigmas, monkeypatch):
    """Largest difference from the endless field's covariance, between all corners and the centre,
    in units of the variance at the first corner."""
    tokens = corners_and_centre(grid)
    rows = rows_of_the_filter(lambda: field(1, grid, sigmas), tokens, monkeypatch)
    assert rows.max() > -rows.min()  # the narrow Gaussian minus the wide one
    covariance = rows @ rows.T / (rows[0] @ rows[0])
    expected = [
        [covariance_to(one, "green", sigmas, grid)[other] for other in tokens] for one in tokens
    ]
    return np.abs(covariance - np.array(expected)).max()


@pytest.mark.parametrize("sigmas", [(0.4, 1.4), (0.9, 2.1), (1.2, 1.42), (1.5, 3.0)])
@pytest.mark.parametrize("grid", [VIDEO, AUDIO, IMAGE, (4, 6, 5)])
def test_fft_and_conv_are_windows_of_the_endless_field(grid, sigmas, monkeypatch):
    assert worst_covariance(peers.fft_green, grid, sigmas, monkeypatch) < 0.01
    assert worst_covariance(peers.conv_green, grid, sigmas, monkeypatch) < 0.002


@pytest.mark.parametrize("grid", [VIDEO, IMAGE, (4, 6, 5)])
def test_circulant_products_wrap_around(grid, monkeypatch):
    """The last token of all is the first one's diagonal neighbour, across every edge."""
    sigmas = (1.0, 2.2)
    first, last = (0, 0, 0), tuple(side - 1 for side in grid)
    neighbour = tuple(int(side > 1) for side in grid)

    def covariance(field):
        tokens = [first, neighbour, last]
        rows = rows_of_the_filter(lambda: field(1, grid, sigmas), tokens, monkeypatch)
        return rows @ rows[0] / (rows[0] @ rows[0])

    _, to_neighbour, to_last = covariance(peers.circulant_green)
    assert to_last == pytest.approx(to_neighbour, rel=1e-4)
    endless = covariance_to(first, "green", sigmas, grid)[last]
    assert to_last > endless + 0.2
    for does_not_wrap in (peers.fft_green, peers.conv_green):
        assert covariance(does_not_wrap)[2] == pytest.approx(endless, abs=0.01)


def test_circulant_products_are_right_where_the_grid_is_long(monkeypatch):
    """Half a ring of 60 is out of reach of the filters, so only lags beyond it wrap."""
    grid, sigmas = (1, 60, 60), (1.0, 2.2)
    tokens = [(0, 0, 0), (0, 1, 0), (0, 3, 2), (0, 20, 5), (0, 59, 59)]
    rows = rows_of_the_filter(lambda: peers.circulant_green(1, grid, sigmas), tokens, monkeypatch)
    assert rows.max() > -rows.min()
    covariance = rows @ rows[0] / (rows[0] @ rows[0])
    endless = covariance_to((0, 0, 0), "green", sigmas, grid)
    expected = [endless[token] for token in (*tokens[:-1], (0, 1, 1))]
    np.testing.assert_allclose(covariance, expected, atol=0.002)


def test_scipy_is_right_inside_and_mirrors_at_the_border(monkeypatch):
    """Its fields of unit impulses are the filter itself."""
    grid, sigmas = (1, 25, 24), (0.8, 1.6)
    impulses = iter(torch.eye(600).view(600, *grid))
    monkeypatch.setattr(torch, "randn", lambda shape: next(impulses))
    rows = peers.scipy_green(600, grid, sigmas).flatten(1).double().numpy().T
    centre, inside = (0, 12, 12), (0, slice(9, 16), slice(9, 16))
    one, corner = rows[np.ravel_multi_index(centre, grid)], rows[0]
    covariance = (rows @ one / (one @ one)).reshape(grid)
    expected = covariance_to(centre, "green", sigmas, grid)
    np.testing.assert_allclose(covariance[inside], expected[inside], atol=0.002)
    assert corner @ corner > 1.5 * (one @ one)


@pytest.mark.parametrize("name", ["circulant", "fft", "conv", "scipy"])
def test_the_largest_green_noise_is_visible(name):
    visible, _ = getattr(peers, f"{name}_green_masking")(5, VIDEO, 0.9)
    torch.manual_seed(0)
    noise = getattr(peers, f"{name}_green")(5, VIDEO, peers.draw_sigmas()).flatten(1)
    least_shown = noise.masked_fill(~visible, float("inf")).min(dim=1).values
    largest_hidden = noise.masked_fill(visible, float("-inf")).max(dim=1).values
    assert (least_shown > largest_hidden).all()


def test_sigmas_are_variant_5():
    """Uniform over both ranges but for the corner where the first would be the larger."""
    first, second = np.array([peers.draw_sigmas() for _ in range(4000)]).T
    assert (first < second).all()
    for drawn, low, high in ((first, 0.4, 1.5), (second, 1.4, 3.0)):
        assert low <= drawn.min() < low + 0.01
        assert high - 0.02 < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 0.03


# Tubes and inverse blocks.


@pytest.mark.parametrize(("grid", "ratio", "visible"), [(VIDEO, 0.9, 160), ((4, 5, 7), 0.5, 72)])
def test_tubes_are_equal_over_frames(grid, ratio, visible):
    masked = peers.tube_generator_masking(200, grid, ratio)
    assert masked.dtype == torch.bool
    assert masked.shape == (200, n_tokens(grid))
    assert ((~masked).sum(1) == visible).all()
    frames = masked.view(200, grid[0], -1)
    assert (frames == frames[:, :1]).all()
    assert len(masked.unique(dim=0)) > 190
    share = frames[:, 0].float().mean(0)
    assert (share - ratio).abs().max() < 5 * (ratio * (1 - ratio) / 200) ** 0.5


def boxes(height, width, block):
    """bool [N, N]: the block around each centre, clamped."""
    y, x = torch.arange(height), torch.arange(width)
    near = ((y[:, None] - y).abs() <= block // 2)[:, None, :, None] & (
        (x[:, None] - x).abs() <= block // 2
    )[None, :, None, :]
    return near.reshape(height * width, height * width)


def shows_blocks(visible, unions):
    """bool [B]: trimmed, a mask lies in the blocks of some centres; topped up, it holds them."""
    both = unions.float() @ visible.float().T
    inside, holds = both == visible.sum(1), both == unions.sum(1, keepdim=True)
    return (inside | holds).any(0)


@pytest.mark.parametrize(
    ("grid", "ratio", "n_keep", "n_centres"),
    [(IMAGE, 0.8, 39, 2), ((1, 14, 11), 0.8, 30, 1), ((1, 6, 6), 0.3, 25, 1)],
)
def test_inverse_blocks_show_blocks(grid, ratio, n_keep, n_centres):
    masked = peers.inverse_block_masking(64, grid, ratio)
    assert masked.dtype == torch.float32
    assert masked.shape == (64, n_tokens(grid))
    assert set(masked.unique().tolist()) == {0.0, 1.0}
    visible = masked == 0
    assert (visible.sum(1) == n_keep).all()
    box = boxes(*grid[1:], 5)
    unions = box
    if n_centres == 2:
        unions = (box[:, None] | box).flatten(0, 1)
    assert shows_blocks(visible, unions).all()
    assert shows_blocks(peers.rand_topk(64, n_tokens(grid), ratio)[0], unions).sum() < 8
    assert len(visible.unique(dim=0)) > 48


def test_inverse_blocks_reach_every_patch_of_an_audio_grid():
    visible = peers.inverse_block_masking(500, AUDIO, 0.8) == 0
    assert (visible.sum(1) == 102).all()
    shares = visible.view(500, 64, 8).float().mean(0).numpy()
    assert shares.min() > 0.04
    assert shares[:32].mean() == pytest.approx(shares[32:].mean(), abs=0.03)
    assert shares[:, :4].mean() == pytest.approx(shares[:, 4:].mean(), abs=0.03)


def test_without_centres_inverse_blocks_are_random_patches():
    masked = peers.inverse_block_masking(50, (1, 4, 4), 0.75)
    assert ((masked == 0).sum(1) == 4).all()


# R-BN.

RBN = [peers.rbn_python, peers.rbn_numpy]


@pytest.mark.parametrize(
    ("grid", "ratio", "n_candidates"),
    [
        (AUDIO, 0.8, 5),
        (IMAGE, 0.75, 4),
        (IMAGE, 0.5, 3),  # the order is swept again
        ((1, 7, 5), 0.2, 4),
        ((1, 9, 3), 0.6, 1),
        ((1, 2, 13), 0.8, 7),
    ],
)
def test_r_bn_is_algorithm_1(grid, ratio, n_candidates):
    orders = torch.rand(3, n_tokens(grid)).argsort(dim=1)
    batch = 3 * n_candidates
    python, numpy = (made(batch, grid, ratio, n_candidates, orders) for made in RBN)
    n_keep = int(python[0].sum())
    assert n_keep == int(n_tokens(grid) * (1 - ratio))
    assert python.dtype == numpy.dtype == torch.bool
    assert torch.equal(python, numpy)
    ours = smnm.rbn_bank(orders, n_candidates, n_keep, grid, tie_break="first")
    assert torch.equal(python, ours.flatten(0, 1))


@pytest.mark.parametrize("made", RBN)
def test_r_bn_draws_its_own_orders_and_cuts_the_last_bank(made):
    visible = made(12, AUDIO, 0.8)
    assert visible.shape == (12, 512)
    assert (visible.sum(1) == 102).all()
    banks = visible[:10].view(2, 5, 512).sum(1)
    assert banks.max() == 1
    assert banks.sum() == 2 * 510
    assert len(visible.unique(dim=0)) == 12
    orders = torch.rand(3, 512).argsort(dim=1)
    assert torch.equal(made(12, AUDIO, 0.8, None, orders), made(15, AUDIO, 0.8, 5, orders)[:12])


@pytest.mark.parametrize("made", RBN)
def test_r_bn_makes_two_masks_at_the_least(made):
    orders = torch.rand(2, 196).argsort(dim=1)
    visible = made(4, IMAGE, 0.25, orders=orders)
    assert torch.equal(visible, made(4, IMAGE, 0.25, 2, orders))
    assert visible.view(2, 2, 196).any(1).all()
