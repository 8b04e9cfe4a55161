"""First calls on a CUDA device, with their tables, threads and captures: played through on CPU
tensors in Triton's interpreter. What the device itself must show is in test_cuda.py and
test_cuda_graphs.py."""

import copy
import gc
import pickle
import threading
import time
import warnings
from contextlib import contextmanager, nullcontext
from functools import partial
from types import FunctionType

import pytest
import torch
from op_calls import noise_call, noise_masks_call, rbn_bank_call, rbn_masks_call
from testing import assert_same, triton_kernels
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import smnm_kernels as smnm
from smnm_kernels import devices, dispatch, ops, schedules
from smnm_kernels.samplers import stream

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="plays a CUDA device")

IDS, RULE = torch.arange(3), ((3, 5), (0.4, 0.4, 0.1, 0.1))
VIDEO = {"kind": "green3d", "grid": (2, 3, 4), "mask_ratio": 0.75}
AUDIO = {"kind": "rbn", "grid": (1, 4, 3), "mask_ratio": 0.75}
SAMPLERS = {
    **{
        kind: partial(smnm.MaskSampler, kind, (2, 3, 4), 0.75, seed=5)
        for kind in ("green3d", "red2d", "tube", "block", "inverse_block")
    },
    "rbn": partial(smnm.MaskSampler, **AUDIO, seed=5),
    "both": partial(smnm.AudioVideoSampler, VIDEO, AUDIO, seed=5),
    "both, hiding the same moments": partial(
        smnm.AudioVideoSampler, VIDEO, AUDIO, hidden_time=0.5, seed=5
    ),
    "scheduled": partial(
        smnm.ScheduledSampler,
        schedules.stages({0: "random", 2: "green3d"}),
        (2, 3, 4),
        schedules.linear(0.5, 0.75, 3),
        seed=5,
    ),
}


def masks_call(ids, grid=(2, 3, 4), color="green", tube=False, n_keep=4, seed=1):
    return noise_masks_call(ids, grid, color, None, n_keep, None, tube, False, seed)


def rbn_call(ids, ties="first", n_keep=3, seed=1):
    return rbn_masks_call(ids, (1, 4, 3), None, n_keep, 3, *RULE, ties, False, seed)


CALLS = {
    "noise": ("noise", noise_call(IDS, (2, 3, 4), "green", None, 1)),
    "noise, seed in a tensor": ("noise", noise_call(IDS, (2, 3, 4), "red", None, torch.tensor(1))),
    "masks": ("noise_masks", masks_call(IDS)),
    "white masks": ("noise_masks", masks_call(IDS, color="white")),
    "tube": ("noise_masks", masks_call(IDS, tube=True)),
    "masks of a large grid": ("noise_masks", masks_call(IDS[:1], (1, 40, 40), n_keep=40)),
    "threshold": ("threshold", (torch.rand(2, 7), 3)),
    "rbn": ("rbn_masks", rbn_call(IDS)),
    "rbn, random ties": ("rbn_masks", rbn_call(IDS, "random")),
    "banks": (
        "rbn_bank",
        rbn_bank_call(torch.arange(12).repeat(2, 1), 3, 4, (1, 4, 3), *RULE, "first", 1),
    ),
}


@pytest.fixture(scope="module", autouse=True)
def gpu():
    return triton_kernels()


@pytest.fixture(params=CALLS.values(), ids=CALLS)
def call(request):
    return request.param


@pytest.fixture(
    params=[
        # Two samplers in one, whose parts stand here, too, take the interpreter longest.
        pytest.param(make, id=name, marks=[pytest.mark.exhaustive] if name == "both" else [])
        for name, make in SAMPLERS.items()
    ]
)
def make(request):
    return request.param


def kept_tables():
    """(module, name) of what makes tables that stay on the device."""
    from smnm_kernels.triton_kernels import noise_ops, rbn_ops

    for module in (noise_ops, rbn_ops):
        for name, value in vars(module).items():
            if isinstance(value, FunctionType) and hasattr(value, "__wrapped__"):
                yield module, name


@pytest.fixture
def fresh_tables(gpu, monkeypatch):
    from smnm_kernels.triton_kernels import noise_ops, rbn_ops
    from smnm_kernels.triton_kernels.device_tables import keep_on_device

    for module, name in list(kept_tables()):
        table = keep_on_device(getattr(module, name).__wrapped__)
        monkeypatch.setattr(module, name, table)
    for function in (*vars(noise_ops).values(), *vars(rbn_ops).values()):
        if hasattr(function, "cache_clear"):
            function.cache_clear()


#: Finds what runs CUDA tensors anew in every call.
FIND_CUDA_OPS = dispatch._cuda_ops.__wrapped__


def play_triton(monkeypatch, problem):
    """As if Triton had this problem, or None."""
    monkeypatch.setattr(dispatch, "_triton_problem", lambda: problem)
    monkeypatch.setattr(dispatch, "_cuda_ops", FIND_CUDA_OPS)


@pytest.fixture
def cuda_ops(gpu):
    from smnm_kernels.triton_kernels import cuda_ops

    return cuda_ops


@pytest.fixture
def played_cuda(gpu, cuda_ops, fresh_tables, monkeypatch):
    """CPU tensors take the path of CUDA tensors; ``capturing`` is what a test says it is."""
    played = Played()
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "Stream", Played)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", Played)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: played.capturing)
    monkeypatch.setattr(devices, "is_cuda", lambda device: device.type in ("cuda", "cpu"))
    monkeypatch.setattr(stream, "_prepared", set())
    monkeypatch.setattr(cuda_ops, "_loaded", set())
    for warn in ("_warn_of_slow_rbn", "_warn_of_no_tensor_cores"):
        monkeypatch.setattr(cuda_ops, warn, lambda *_: None)
    monkeypatch.setattr(dispatch, "_warn_of_detour", lambda *_: None)
    play_triton(monkeypatch, None)
    for name in dispatch._OPS:
        op = partial(dispatch._on_cuda, name)
        monkeypatch.setattr(ops, name, op)
    return played


class Played:
    """A stream, and whether it is captured."""

    def __init__(self, device=None):
        self.capturing = False

    def synchronize(self):
        pass


class Allocations(TorchDispatchMode):
    """What operations of this thread make, as a pool of the thread sees it."""

    def __init__(self):
        super().__init__()
        self.storages = {}

    def __torch_dispatch__(self, function, types, arguments=(), more=None):
        made = function(*arguments, **(more or {}))
        given = storages_of((arguments, more))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                storage = StorageWeakRef(tensor.untyped_storage())
                if storage.cdata not in given:
                    self.storages[storage.cdata] = storage
        return made

    def alive(self):
        gc.collect()
        return {key for key, storage in self.storages.items() if not storage.expired()}


def storages_of(values):
    return {t.untyped_storage()._cdata for t in tree_leaves(values) if isinstance(t, torch.Tensor)}


def test_nothing_but_the_outputs_outlives_a_first_call(played_cuda, call):
    """torch.compile's CUDA graphs refuse to go on where a tensor in their pool does."""
    op, arguments = call
    with Allocations() as allocations:
        made = dispatch._on_cuda(op, *arguments)
    assert allocations.alive() == storages_of(made)


def test_threads_that_call_at_once_share_one_table(played_cuda):
    from smnm_kernels.triton_kernels.device_tables import keep_on_device

    makers = []

    @keep_on_device
    def table(key, device):
        makers.append(threading.current_thread())
        time.sleep(0.05)
        return object()

    found, start = [], threading.Barrier(8)

    def first_call():
        start.wait()
        found.append(table("key", torch.device("cpu")))

    threads = [threading.Thread(target=first_call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makers) == 1
    assert makers[0] not in threads
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_first_calls_wait_for_each_other(played_cuda, cuda_ops, monkeypatch):
    """While one thread loads a kernel, Triton gives the others one that is not there yet."""
    running, most = [], []

    def launch(ids, *arguments):
        running.append(ids)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    monkeypatch.setattr(cuda_ops, "noise_masks_kernel", launch)
    calls = [masks_call(IDS), masks_call(IDS, color="red")] * 4
    for loaded in (False, True):
        most.clear()
        start = threading.Barrier(8)

        def call(arguments, start=start):
            start.wait()
            dispatch._on_cuda("noise_masks", *arguments)

        threads = [threading.Thread(target=call, args=(arguments,)) for arguments in calls]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(most) == 8
        assert (max(most) > 1) == loaded


def test_a_device_has_tables_of_its_own_made_on_a_stream_of_its_own(played_cuda, monkeypatch):
    from smnm_kernels.triton_kernels.device_tables import keep_on_device

    on = []

    @contextmanager
    def entered(what):
        on.append(what)
        yield
        on.pop()

    monkeypatch.setattr(torch.cuda, "device", entered)
    monkeypatch.setattr(torch.cuda, "stream", entered)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a new stream on {device}")
    table = keep_on_device(lambda key, device: (key, *on))
    for index in (0, 1):
        device = torch.device("cuda", index)
        assert table(7, device) == (7, device, f"a new stream on {device}")
        assert table(7, device) is table(7, torch.device(f"cuda:{index}"))


def test_a_table_that_could_not_be_made_is_made_later(played_cuda):
    from smnm_kernels.triton_kernels.device_tables import keep_on_device

    out_of_memory = [torch.OutOfMemoryError("no room")]

    @keep_on_device
    def table(device):
        if out_of_memory:
            raise out_of_memory.pop()
        return "table"

    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        table(torch.device("cpu"))
    assert table(torch.device("cpu")) == "table"


@pytest.mark.slow
def test_a_first_call_inside_a_capture_is_refused(played_cuda, call, monkeypatch):
    op, arguments = call
    dispatch._on_cuda(op, arguments[0][:0], *arguments[1:])  # needs no kernel, and loads none
    played_cuda.capturing = True
    with monkeypatch.context() as patch:
        for module, name in list(kept_tables()):
            patch.setattr(module, name, lambda *_: pytest.fail("a table was made in a capture"))
        with pytest.raises(RuntimeError, match=f"smnm::{op}.*CUDA graph.*one call before"):
            dispatch._on_cuda(op, *arguments)
    played_cuda.capturing = False
    made = dispatch._on_cuda(op, *arguments)
    played_cuda.capturing = True
    assert_same(dispatch._on_cuda(op, *arguments), made)


@pytest.mark.slow
def test_captures_may_take_other_batches_seeds_and_counts(played_cuda):
    dispatch._on_cuda("noise_masks", *masks_call(IDS, seed=torch.tensor(1)))
    dispatch._on_cuda("rbn_masks", *rbn_call(IDS))
    played_cuda.capturing = True
    other = masks_call(torch.arange(5), n_keep=7, seed=torch.tensor(-3))
    dispatch._on_cuda("noise_masks", *other)
    dispatch._on_cuda("rbn_masks", *rbn_call(torch.arange(5), n_keep=2, seed=9))
    for new in (
        masks_call(IDS),  # the seed is no tensor
        masks_call(IDS, color="red", seed=torch.tensor(1)),
        masks_call(IDS, (2, 4, 4), seed=torch.tensor(1)),
        masks_call(IDS, tube=True, seed=torch.tensor(1)),
    ):
        with pytest.raises(RuntimeError, match="cannot be captured"):
            dispatch._on_cuda("noise_masks", *new)
    with pytest.raises(RuntimeError, match="cannot be captured"):
        dispatch._on_cuda("rbn_masks", *rbn_call(IDS, "random"))


def test_masks_made_on_the_cpu_are_never_captured(played_cuda, monkeypatch):
    play_triton(monkeypatch, "Triton is tired")
    played_cuda.capturing = True
    with pytest.raises(RuntimeError, match=r"made on the CPU cannot be captured.*Triton is tired"):
        dispatch._on_cuda("noise_masks", *masks_call(IDS))


@pytest.mark.slow
def test_a_sampler_can_be_captured_from_the_first_call(played_cuda, cuda_ops, make):
    sampler, eager = make(), make()
    expected = [eager(2) for _ in range(3)]
    # As if this process had made no mask yet, and the sampler came to the device.
    cuda_ops._loaded.clear()
    stream._prepared.clear()
    sampler.to("cpu")
    played_cuda.capturing = True
    for masks in expected:
        assert_same(sampler(2), masks)
    with pytest.raises(RuntimeError, match="cannot be captured"):
        smnm.noise_masks(IDS, (2, 5, 5), "blue", 0.5)


@pytest.fixture
def draws(monkeypatch):
    """The devices that masks of one sample are made on, while nobody asks for masks."""
    seen = []
    monkeypatch.setattr(devices, "is_cuda", lambda device: device.type in ("cuda", "cpu"))
    monkeypatch.setattr(devices, "is_capturing", lambda device: False)
    monkeypatch.setattr(stream, "_prepared", set())
    for kind in (smnm.MaskSampler, smnm.AudioVideoSampler, smnm.ScheduledSampler):
        first_draws = kind._first_draws
        monkeypatch.setattr(
            kind,
            "_first_draws",
            lambda self, first_draws=first_draws: {
                key: lambda ids, draw=draw: (seen.append(ids.device), draw(ids))
                for key, draw in first_draws(self).items()
            },
        )
    return seen


def test_a_sampler_is_prepared_once(draws, make):
    sampler = make()
    n_kinds = 3 if isinstance(sampler, smnm.ScheduledSampler) else 1
    assert len(draws) == n_kinds
    place = int(sampler.next_id)
    sampler.to("cpu").half().to(torch.device("cpu"))
    copies = [copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler)), make()]
    for other in copies:
        other.load_state_dict(sampler.state_dict())
        other(2)
    assert len(draws) == n_kinds
    assert place == int(sampler.next_id) == 0


@pytest.mark.parametrize(
    "arrive",
    [
        lambda sampler: sampler.to("cpu"),
        lambda sampler: torch.nn.Sequential(sampler).to("cpu"),
        copy.deepcopy,
        lambda sampler: pickle.loads(pickle.dumps(sampler)),
        lambda sampler: sampler.load_state_dict(sampler.state_dict(), assign=True),
        lambda sampler: sampler.to("meta").to_empty(device="cpu").reset_parameters(),
    ],
    ids=["to", "to of a model", "deepcopy", "pickle", "load_state_dict", "to_empty"],
)
def test_a_sampler_that_comes_to_a_device_is_prepared(draws, make, arrive):
    sampler = make()
    n_kinds = len(draws)
    draws.clear()
    stream._prepared.clear()
    arrive(sampler)
    assert draws == [torch.device("cpu")] * n_kinds


def test_where_there_is_nothing_to_prepare(draws, make, monkeypatch):
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.device("meta"):
        make()
    if make is not SAMPLERS["scheduled"]:  # its step is in shared memory, which cannot be fake
        with FakeTensorMode():
            make()
    monkeypatch.setattr(devices, "is_capturing", lambda device: True)
    make()
    monkeypatch.setattr(devices, "is_cuda", lambda device: False)
    make()
    assert draws == []


def test_compiled_and_exported_code_prepares_nothing(draws, make):
    if make is SAMPLERS["scheduled"]:
        pytest.skip("a ScheduledSampler is drawn outside compiled code")
    torch._dynamo.reset()
    sampler, eager = make(), make()
    draws.clear()
    stream._prepared.clear()
    compiled = torch.compile(sampler, fullgraph=True, backend="aot_eager")
    assert_same(compiled(3), eager(3))
    torch.export.export(sampler, (3,), strict=False)
    assert draws == []


@pytest.mark.slow
@pytest.mark.parametrize("path", ["on the chip", "in passes"])
def test_kernels_are_launched_on_the_device_of_their_tensors(gpu, monkeypatch, call, path):
    from triton.runtime.interpreter import GridExecutor

    from smnm_kernels.triton_kernels import noise_ops, rbn_ops, threshold_ops

    op, arguments = call
    if path == "in passes":
        monkeypatch.setattr(noise_ops, "tile_of", lambda *_: None)
    guarded, launches = [], []

    @contextmanager
    def on_device_of(tensor):
        guarded.append(tensor.device)
        yield
        guarded.pop()

    run = GridExecutor.__call__

    def launch(*more, **options):
        launches.append(list(guarded))
        return run(*more, **options)

    for module in (noise_ops, rbn_ops, threshold_ops):
        monkeypatch.setattr(module, "on_device_of", on_device_of)
    monkeypatch.setattr(GridExecutor, "__call__", launch)
    getattr(gpu, f"{op}_kernel")(*arguments)
    assert launches
    assert all(devices == [arguments[0].device] for devices in launches)


def test_a_seed_where_the_kernels_cannot_read_it(played_cuda, cuda_ops):
    """On the CPU it is read by the host, as by the CUDA library; elsewhere it is refused."""
    elsewhere = torch.tensor(1, device="meta")
    for op, arguments in (
        ("noise", noise_call(IDS, (2, 3, 4), "green", None, 1)),
        ("noise_masks", masks_call(IDS)),
        ("rbn_masks", rbn_call(IDS)),
    ):
        with pytest.raises(ValueError, match=r"seed_tensor must be on.*cpu, got meta"):
            dispatch._on_cuda(op, arguments[0], elsewhere, *arguments[2:])
    assert cuda_ops._seed_beside(elsewhere, torch.tensor([-7]), 0) == (None, -7)


class FarIds:
    """No sample ids, on a device that is not there."""

    def __init__(self, index):
        self.device = torch.device("cuda", index)

    def __len__(self):
        return 0


def test_without_tensor_cores_colored_noise_warns_once(cuda_ops, monkeypatch):
    monkeypatch.setattr(cuda_ops, "noise_kernel", lambda *_: None)
    monkeypatch.setattr(cuda_ops, "noise_masks_kernel", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    cuda_ops._warn_of_no_tensor_cores.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    first, second, third = map(FarIds, range(3))
    white, green = (None, 1, (1, 1, 9), "white", ()), (None, 1, (1, 1, 9), "green", ())
    with pytest.warns(UserWarning, match=r"Tesla T4 \(compute capability 7\.5\).*data loader"):
        cuda_ops.noise(first, *green)
    with pytest.warns(UserWarning, match=r"7\.5"):
        cuda_ops.noise(second, *green)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cuda_ops.noise_masks(first, *green, 3, False)
        cuda_ops.noise(third, *white)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
        cuda_ops.noise(third, *green)
    cuda_ops._warn_of_no_tensor_cores.cache_clear()
