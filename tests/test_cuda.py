"""What only a GPU can show: one launch a call, no waiting, graphs, streams, and R-BN's CUDA kernels
equal to the CPU. The tests named small_rbn also run under compute-sanitizer (gpu_check.sh)."""

import pytest
import torch
from test_triton import COLORS, IDS_TENSOR, STANDARD_GRIDS
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels.bench.profiling import device_work
from smnm_kernels.calls import rbn_masks_call

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

AUDIO, VIDEO = (1, 64, 8), (8, 14, 14)
IMPORTANT = {
    "noise_masks": lambda ids, **more: smnm.noise_masks(ids, VIDEO, "green", 0.9, **more),
    "tube": lambda ids, **more: smnm.noise_masks(ids, VIDEO, "red", 0.9, tube=True, **more),
    "rbn_masks": lambda ids, **more: smnm.rbn_masks(ids, AUDIO, 0.8, **more),
    "rbn_masks, random ties": lambda ids, **more: smnm.rbn_masks(
        ids, AUDIO, 0.8, tie_break="random", **more
    ),
}


@pytest.fixture(params=IMPORTANT.values(), ids=IMPORTANT)
def make(request):
    return request.param


def seeds(value):
    return torch.tensor(value, device="cuda")


def orders(n, n_tokens):
    generator = torch.Generator().manual_seed(n_tokens)
    return torch.stack([torch.randperm(n_tokens, generator=generator) for _ in range(n)])


def assert_rbn_equal(ids, grid, n_keep, **more):
    ours = smnm.rbn_masks(ids.cuda(), grid, n_keep=n_keep, **more)
    assert_same(ours, smnm.rbn_masks(ids, grid, n_keep=n_keep, **more))


def assert_banks_equal(order, n_candidates, n_keep, grid, **more):
    ours = smnm.rbn_bank(order.cuda(), n_candidates, n_keep, grid, **more)
    assert_same(ours, smnm.rbn_bank(order, n_candidates, n_keep, grid, **more))


def test_the_cuda_library_is_there():
    assert smnm.backends()["cuda"] == "available"


@pytest.mark.parametrize("color", COLORS)
@pytest.mark.parametrize("grid", STANDARD_GRIDS, ids=str)
def test_noise_masks_are_one_launch(grid, color):
    ids = torch.arange(5, device="cuda")
    for tube in (False, True):
        made = device_work(lambda tube=tube: smnm.noise_masks(ids, grid, color, 0.9, tube=tube))
        assert len(made) == 1, made


def test_noise_threshold_and_rbn_are_one_launch():
    ids, noise = torch.arange(5, device="cuda"), torch.rand(5, 1568, device="cuda")
    seed = seeds(3)
    rbn_bank = (orders(3, 512).cuda(), seed, 0, AUDIO, 102, 5, (3, 5), (400, 400, 100, 100), True)
    for call in (
        lambda: smnm.noise(ids, VIDEO, "green", seed=seed),
        lambda: smnm.threshold(noise, 0.9),
        lambda: smnm.rbn_masks(ids, AUDIO, 0.8),
        lambda: smnm.rbn_masks(ids, AUDIO, 0.8, tie_break="random", seed=seed),
        # The public rbn_bank checks the orders, which takes launches and waits.
        lambda: torch.ops.smnm.rbn_bank(*rbn_bank),
    ):
        made = device_work(call)
        assert len(made) == 1, made


def test_a_graph_replays_with_new_ids_and_seeds(make):
    ids, seed = torch.arange(70, device="cuda"), seeds(1)
    make(ids, seed=seed)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        made = make(ids, seed=seed)
    for first, value in ((0, 1), (2**40, -5), (-35, 2**63 - 1)):
        ids.copy_(torch.arange(first, first + 70))
        seed.fill_(value)
        graph.replay()
        assert_same(made, make(ids.cpu(), seed=value))


def test_another_stream(make):
    """Ids that are still being made on the stream, and masks that are used on it at once."""
    expected = make(torch.arange(64) * 3)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        ids = torch.arange(64, device="cuda")
        torch.cuda._sleep(20_000_000)
        made = make(ids * 3)
        copies = [tensor.clone() for tensor in made]
    stream.synchronize()
    assert_same(copies, tuple(expected))


def test_nothing_waits_for_the_device(make):
    ids, seed = torch.arange(16, device="cuda"), seeds(1)
    make(ids, seed=seed)
    make(ids, seed=2)
    was = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        made = make(ids, seed=seed)
        make(ids, seed=2)
        smnm.threshold(made.visible.float(), n_keep=3)
    finally:
        torch.cuda.set_sync_debug_mode(was)


def test_a_large_batch(make):
    ids = torch.arange(5000) + 2**33
    assert_same(make(ids.cuda()), make(ids))


@pytest.mark.parametrize("ties", ["first", "random"])
def test_small_rbn_of_every_kind(ties):
    for n_keep, n_candidates in ((102, None), (60, 8), (1, 3), (300, 3)):
        assert_rbn_equal(
            IDS_TENSOR, AUDIO, n_keep, n_candidates=n_candidates, tie_break=ties, seed=-7
        )


def test_small_rbn_of_overfull_banks():
    """K * n_keep > N: the order is swept again."""
    for n_candidates, n_keep in ((4, 35), (5, 17), (1, 20)):
        for ties in ("first", "random"):
            assert_banks_equal(orders(3, 35), n_candidates, n_keep, (1, 7, 5), tie_break=ties)


def test_small_rbn_with_large_windows():
    for windows in ((99,), (25, 3), (1,)):
        assert_rbn_equal(IDS_TENSOR, (1, 13, 9), 23, windows=windows, weights=(0.7, 0.2, 0.1, 1.25))


def test_small_rbn_of_more_rows_than_a_chunk():
    """Rows of one bank are then far apart, and some rows ask for the same mask."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(-40, 40, (600,), generator=generator)
    assert_rbn_equal(ids, (1, 6, 5), 6, tie_break="random", seed=2**40)


def test_small_rbn_in_a_workspace():
    """Too large for shared memory: banks keep their state in global memory."""
    assert_banks_equal(orders(1, 4096), 40, 50, (1, 64, 64), tie_break="random")


def test_rbn_banks_too_large_for_shared_memory():
    assert_rbn_equal(torch.arange(100), (1, 128, 128), 400, n_candidates=40)
    assert_banks_equal(orders(2, 128 * 128), 40, 400, (1, 128, 128), seed=5)


@pytest.mark.parametrize("ties", ["first", "random"])
def test_rbn_in_triton_equals_rbn_in_cuda(ties):
    gpu = pytest.importorskip("smnm_kernels.gpu")
    rule = ((3, 5), (0.4, 0.4, 0.1, 0.1), ties, False, seeds(11))
    for grid, n_keep, n_candidates in ((AUDIO, 102, None), ((1, 7, 5), 20, 3)):
        call = rbn_masks_call(IDS_TENSOR.cuda(), grid, None, n_keep, n_candidates, *rule)
        assert_same(gpu.rbn_masks_kernel(*call), smnm.Masks(*torch.ops.smnm.rbn_masks(*call)))
