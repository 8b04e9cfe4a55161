"""What only a GPU can show: one launch a call, no waiting, graphs, streams, and R-BN's CUDA kernels
equal to the CPU. The tests named small_rbn also run under compute-sanitizer (gpu_check.sh)."""

import copy
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from op_calls import noise_masks_call, rbn_masks_call
from testing import COLORS, IDS_TENSOR, STANDARD_GRIDS, assert_same

import smnm_kernels as smnm
from smnm_kernels.timing.profiling import device_work

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


def test_two_streams_at_once(make):
    """Each waits for its own ids, with a seed of its own; nothing is shared between them."""
    streams = [torch.cuda.Stream() for _ in range(2)]
    made = [[], []]
    for first in range(0, 40, 8):
        for seed, stream in enumerate(streams):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(1_000_000)
                ids = torch.arange(first, first + 8, device="cuda")
                made[seed].append(make(ids, seed=seeds(seed)))
    torch.cuda.synchronize()
    for seed, batches in enumerate(made):
        expected = make(torch.arange(40), seed=seed)
        assert_same([torch.cat(forms) for forms in zip(*batches, strict=True)], expected)


def test_a_table_made_on_one_stream_is_read_on_others():
    grid = (5, 9, 7)  # of no other test
    ids = torch.arange(6)
    with torch.cuda.stream(torch.cuda.Stream()):
        first = smnm.noise_masks(ids.cuda(), grid, "green", 0.8)
    with torch.cuda.stream(torch.cuda.Stream()):
        second = smnm.noise_masks(ids.cuda(), grid, "green", 0.8)
    torch.cuda.synchronize()
    expected = smnm.noise_masks(ids, grid, "green", 0.8)
    assert_same(first, expected)
    assert_same(second, expected)


def on_threads(work, n):
    """What ``work(i)`` returned on each of n threads that start at once."""
    start = threading.Barrier(n)

    def begun(i):
        start.wait()
        return work(i)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(begun, range(n)))


def test_first_calls_of_many_threads():
    """As under DataParallel; each thread on a stream of its own."""
    grid = (5, 7, 9)  # of no other test

    def work(i):
        with torch.cuda.stream(torch.cuda.Stream()):
            made = smnm.noise_masks(torch.arange(i, i + 4, device="cuda"), grid, "green", 0.8)
            torch.cuda.current_stream().synchronize()
        return made

    for i, made in enumerate(on_threads(work, 8)):
        assert_same(made, smnm.noise_masks(torch.arange(i, i + 4), grid, "green", 0.8))


def test_unaligned_ids_and_seeds_take_the_same_kernel():
    gpu = pytest.importorskip("smnm_kernels.triton_kernels.on_chip")

    def n_kernels():
        return len(gpu.noise_masks_on_chip.device_caches[torch.cuda.current_device()][0])

    ids, seed = torch.arange(40, device="cuda"), seeds([3, 4])
    smnm.noise_masks(ids[:17], VIDEO, "green", n_keep=17, seed=seed[0])
    before = n_kernels()
    for count, some in ((1, ids[1:2]), (16, ids[1:17]), (156, ids[3::2]), (160, ids)):
        ours = smnm.noise_masks(some, VIDEO, "green", n_keep=count, seed=seed[1])
        assert_same(ours, smnm.noise_masks(some.cpu(), VIDEO, "green", n_keep=count, seed=4))
    assert n_kernels() == before


def test_a_seed_on_the_cpu_is_read_by_the_host():
    call = noise_masks_call(torch.arange(3), VIDEO, "green", 0.9, None, None, False, False, 7)
    made = torch.ops.smnm.noise_masks(call[0].cuda(), torch.tensor(7), 0, *call[3:])
    assert_same(made, torch.ops.smnm.noise_masks(*call))


@pytest.fixture
def second_device():
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    return torch.device("cuda", 1)


def test_the_device_of_the_ids_does_the_work(make, second_device):
    ids = torch.arange(20)
    for device in (second_device, torch.device("cuda", 0)):
        with torch.cuda.device(0):
            made = make(ids.to(device), seed=torch.tensor(3, device=device))
            torch.cuda.synchronize(device)
        assert {tensor.device for tensor in made} == {device}
        assert_same(made, tuple(make(ids, seed=3)))


def test_a_seed_on_another_device_is_refused(second_device):
    for call in (
        noise_masks_call(torch.arange(3), VIDEO, "green", 0.9, None, None, False, False, 7),
        rbn_masks_call(
            torch.arange(3), AUDIO, 0.8, None, None, (3, 5), (0.4,) * 4, "first", False, 7
        ),
    ):
        op = torch.ops.smnm.rbn_masks if len(call) == 9 else torch.ops.smnm.noise_masks
        with pytest.raises((ValueError, RuntimeError), match="seed_tensor must be on the CPU or"):
            op(call[0].cuda(), torch.tensor(7, device=second_device), 0, *call[3:])


@pytest.mark.parametrize("kind", ["green3d", "rbn"])
def test_data_parallel_replicas_make_the_masks_of_their_ids(kind, second_device):
    sampler = smnm.MaskSampler(kind, VIDEO if kind == "green3d" else AUDIO, 0.8, seed=9)

    class ByIds(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.sampler = copy.deepcopy(sampler)

        def forward(self, ids):
            return tuple(self.sampler.masks(ids))

    parallel = torch.nn.DataParallel(ByIds().cuda(), [0, 1])
    ids = torch.arange(33)
    for _ in range(3):
        assert_same(parallel(ids.cuda()), tuple(sampler.masks(ids)))


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
    gpu = pytest.importorskip("smnm_kernels.triton_kernels")
    rule = ((3, 5), (0.4, 0.4, 0.1, 0.1), ties, False, seeds(11))
    for grid, n_keep, n_candidates in ((AUDIO, 102, None), ((1, 7, 5), 20, 3)):
        call = rbn_masks_call(IDS_TENSOR.cuda(), grid, None, n_keep, n_candidates, *rule)
        assert_same(gpu.rbn_masks_kernel(*call), smnm.Masks(*torch.ops.smnm.rbn_masks(*call)))
