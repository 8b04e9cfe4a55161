"""The stream is drawn once: not again in workers, nor when a checkpointed region is computed again,
and by each rank its own part."""

import copy
import io
import pickle
from unittest import mock

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testing import assert_same
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from torch.utils.data import DataLoader, Dataset

import smnm_kernels as smnm

GRID = (2, 4, 4)


def sampler(kind="green3d"):
    return smnm.MaskSampler(kind, (1, 8, 4) if kind == "rbn" else GRID, 0.75, seed=5)


class Drawing(Dataset):
    """Draws and, where that is refused, says why; asks for masks by id, which always works."""

    def __init__(self):
        self.sampler = sampler()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        try:
            drawn, refused = self.sampler(1).visible[0], ""
        except RuntimeError as error:
            drawn, refused = torch.zeros(0), str(error)
        by_id = self.sampler.masks(torch.tensor([index])).visible[0]
        return {"drawn": drawn, "refused": refused, "by id": by_id}


@pytest.mark.slow
@pytest.mark.parametrize(("context", "workers"), [("fork", 2), ("spawn", 1)])
def test_data_loader_workers_get_masks_by_id_but_no_stream(context, workers):
    loader = DataLoader(Drawing(), None, num_workers=workers, multiprocessing_context=context)
    expected = sampler()(4).visible
    for example, visible in zip(loader, expected, strict=True):
        for remedy in ("data loader worker", "smnm_kernels.loading", "sampler.masks(sample_ids)"):
            assert remedy in example["refused"]
        assert_same(example["by id"], visible)


def test_a_data_loader_without_workers_draws_the_stream():
    drawn = [example["drawn"] for example in DataLoader(Drawing(), None)]
    assert_same(torch.stack(drawn), sampler()(4).visible)


def layer(x, weight, masks):
    """The sine and the products keep what their gradients need, masks among it."""
    return (x * weight * (1 + masks.masked)).sin()


def one_after_the_other(sampler, region, x, weight):
    for _ in range(2):
        x = region(lambda x: layer(x, weight, sampler(len(x))), x)
    return x


def several_calls_in_one(sampler, region, x, weight):
    def block(x):
        for _ in range(3):
            x = layer(x, weight, sampler(len(x)))
        return x

    return region(block, x)


def nested(sampler, region, x, weight):
    def block(x):
        x = layer(x, weight, sampler(len(x)))
        x = region(lambda x: layer(x, weight, sampler(len(x))), x)
        return layer(x, weight, sampler(len(x)))

    return region(block, x)


def nested_alone(sampler, region, x, weight):
    return region(lambda x: region(lambda x: layer(x, weight, sampler(len(x))), x).sin(), x)


def ends_with_a_call_no_gradient_needs(sampler, region, x, weight):
    """Stopping early, the backward pass does not come to it."""
    for _ in range(2):
        x = region(lambda x: layer(x, weight, sampler(len(x))) + sampler(len(x)).masked, x)
    return x


def dropping_out(sampler, region, x, weight):
    """What else is random in a region stays as it is."""
    return region(lambda x: torch.nn.functional.dropout(layer(x, weight, sampler(len(x)))).sin(), x)


REGIONS = [
    one_after_the_other,
    several_calls_in_one,
    nested,
    nested_alone,
    ends_with_a_call_no_gradient_needs,
]


def plain(function, *arguments):
    return function(*arguments)


def checkpointed(sampler, **options):
    def region(function, *arguments):
        contexts = sampler.checkpoint_contexts
        return checkpoint(function, *arguments, use_reentrant=False, context_fn=contexts, **options)

    return region


def leaves():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 32, generator=generator, requires_grad=True)
    return x, torch.randn(32, generator=generator, requires_grad=True)


def trained(regions, sampler, region):
    """Output and gradients of two steps, with the masks drawn after each."""
    torch.manual_seed(0)
    found = []
    for _ in range(2):
        x, weight = leaves()
        y = regions(sampler, region, x, weight)
        between = sampler(1).visible
        y.sum().backward()
        found += [y.detach(), x.grad, weight.grad, between, sampler(1).visible]
    return found


@pytest.mark.parametrize("early_stop", [True, False])
@pytest.mark.parametrize(
    ("regions", "preserve_rng_state"),
    [*((regions, False) for regions in REGIONS), *((r, True) for r in [*REGIONS, dropping_out])],
)
def test_checkpoint_contexts_change_neither_gradients_nor_stream(
    regions, preserve_rng_state, early_stop
):
    ours, theirs = sampler(), sampler()
    with set_checkpoint_early_stop(early_stop):
        found = trained(regions, ours, checkpointed(ours, preserve_rng_state=preserve_rng_state))
    assert_same(found, trained(regions, theirs, plain))


def test_checkpoint_contexts_serve_as_many_backward_passes_as_there_are():
    """Two losses of one region, and a gradient of a gradient."""
    gradients = []
    for region in (checkpointed, lambda sampler: plain):
        ours = sampler()
        x, weight = leaves()
        y = one_after_the_other(ours, region(ours), x, weight)
        first = torch.autograd.grad(y.sum(), x, retain_graph=True)
        second = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        third = torch.autograd.grad(second[0].sum(), weight)
        gradients.append([*first, *second, *third, ours(1).visible])
    assert_same(*gradients)


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_a_checkpointed_region_without_contexts_is_refused_in_backward(use_reentrant):
    ours = sampler()
    x, weight = leaves()
    y = checkpoint(lambda x: layer(x, weight, ours(len(x))), x, use_reentrant=use_reentrant)
    with pytest.raises(RuntimeError) as error:
        y.sum().backward()
    for part in ("backward pass", "before the region", "context_fn=sampler.checkpoint_contexts"):
        assert part in str(error.value)
    # The forward pass drew, the backward pass did not.
    assert_same(ours(2).visible, sampler()(5).visible[3:])


def compiled_inside(ours, weight, fullgraph, backend="aot_eager"):
    """A checkpointed region of compiled code."""

    def block(x):
        return layer(x, weight, ours(len(x)))

    return torch.compile(block, backend=backend, fullgraph=fullgraph)


@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("compiled_before", [True, False])
@pytest.mark.parametrize(
    "backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.exhaustive)]
)
def test_one_graph_in_a_checkpointed_region_is_refused(backend, compiled_before, use_reentrant):
    torch._dynamo.reset()
    ours = sampler()
    x, weight = leaves()
    block = compiled_inside(ours, weight, True, backend)
    if compiled_before:
        block(x).sum().backward()
    y = checkpoint(block, x, use_reentrant=use_reentrant)
    before = int(ours.next_id)
    with pytest.raises(RuntimeError, match="Draw the masks before the region and pass them in"):
        y.sum().backward()
    assert int(ours.next_id) == before


def test_contexts_are_for_eager_code():
    torch._dynamo.reset()
    ours = sampler()
    x, weight = leaves()
    with pytest.raises(Exception, match="checkpoint_contexts are for eager code"):
        checkpointed(ours)(compiled_inside(ours, weight, True), x)


def test_with_graph_breaks_it_is_as_in_eager_code():
    torch._dynamo.reset()
    ours, theirs = sampler(), sampler()
    x, weight = leaves()
    with pytest.raises(RuntimeError, match="context_fn"):
        checkpoint(compiled_inside(ours, weight, False), x, use_reentrant=False).sum().backward()
    ours.reset()
    found = []
    for region, each in ((checkpointed(ours), ours), (plain, theirs)):
        x, weight = leaves()
        region(compiled_inside(each, weight, False), x).sum().backward()
        found.append((x.grad, weight.grad, each.next_id))
    torch.testing.assert_close(*found)


def test_a_compiled_checkpoint_is_refused():
    torch._dynamo.reset()
    ours = sampler()
    x, weight = leaves()

    def block(x):
        return layer(x, weight, ours(len(x)))

    def region(x):
        return checkpoint(block, x, use_reentrant=False)

    def region_with_contexts(x):
        return checkpoint(block, x, use_reentrant=False, context_fn=ours.checkpoint_contexts)

    for fullgraph in (True, False):
        compiled = torch.compile(region, backend="aot_eager", fullgraph=fullgraph)
        with pytest.raises(RuntimeError, match="context_fn"):
            compiled(x).sum().backward()
    with pytest.raises(Exception, match="checkpoint_contexts"):
        torch.compile(region_with_contexts, backend="aot_eager")(x)


def test_a_region_that_draws_more_when_computed_again_is_named():
    ours = sampler()
    x, weight = leaves()
    passes = []

    def block(x):
        passes.append(None)
        for _ in passes:
            x = layer(x, weight, ours(len(x)))
        return x

    with set_checkpoint_early_stop(False), pytest.raises(RuntimeError, match="more than the 1"):
        checkpointed(ours, determinism_check="none")(block, x).sum().backward()


def test_contexts_of_one_sampler_do_not_serve_another():
    ours, other = sampler(), sampler()
    x, weight = leaves()
    y = checkpointed(other)(lambda x: layer(x, weight, ours(len(x))), x)
    with pytest.raises(RuntimeError, match="context_fn"):
        y.sum().backward()


@pytest.mark.parametrize("failing", ["forward", "backward"])
def test_a_sampler_goes_on_after_an_exception_in_the_region(failing):
    ours, theirs = sampler(), sampler()
    x, weight = leaves()
    passes = []

    def block(x):
        passes.append(None)
        y = layer(x, weight, ours(len(x)))
        if len(passes) == (1 if failing == "forward" else 2):
            raise ZeroDivisionError
        return layer(y, weight, ours(len(x)))

    with pytest.raises(ZeroDivisionError):
        checkpointed(ours)(block, x).sum().backward()
    theirs.reset(3 if failing == "forward" else 6)
    assert_same(ours(4), theirs(4))
    expected = trained(several_calls_in_one, theirs, plain)
    assert_same(trained(several_calls_in_one, ours, checkpointed(ours)), expected)


def test_batch_size_of_the_only_rank():
    ours, theirs = sampler(), sampler()
    for n in (3, 0, 2):
        assert_same(ours([n]), theirs(n))
        assert_same(ours((n,)), theirs(n))


def test_memory_from_nowhere_is_filled_on_request():
    """A model made on the meta device: to_empty leaves what was in the memory."""
    with torch.device("meta"):
        ours = sampler()
    ours.to_empty(device="cpu")
    ours.seed.fill_(77)
    ours.next_id.fill_(-1)
    ours.reset_parameters()
    assert_same(ours(3), sampler()(3))


@pytest.mark.parametrize(
    "batch_size",
    [-1, 2.0, True, None, "4", [], [3, 1], [-1], [2.0], [True], [None], ["4"], [[3]], {3}, b"3"],
)
def test_wrong_batch_sizes_are_named(batch_size):
    ours = sampler()
    with pytest.raises(ValueError, match="batch_size") as error:
        ours(batch_size)
    assert repr(batch_size) in str(error.value)
    assert int(ours.next_id) == 0


def as_rank(rank, world_size):
    """As if this were one process of a group."""
    return mock.patch.multiple(
        torch.distributed,
        is_initialized=lambda: True,
        get_rank=lambda: rank,
        get_world_size=lambda: world_size,
    )


@pytest.mark.parametrize("batch_size", [[3], [3, 1, 1], [4, -1], [1, None]])
def test_wrong_batch_sizes_of_two_ranks_are_refused_on_both(batch_size):
    for rank in range(2):
        with as_rank(rank, 2), pytest.raises(ValueError, match=r"batch_size.*the 2 ranks"):
            sampler()(batch_size)


def shares(world_size):
    """What each of a few calls gives all ranks: one size for all, or one for each."""
    n = st.integers(0, 5)
    call = n | st.lists(n, min_size=world_size, max_size=world_size)
    return st.tuples(st.just(world_size), st.lists(call, min_size=1, max_size=4))


@given(
    runs=st.lists(st.integers(1, 5).flatmap(shares), min_size=1, max_size=2),
    kind=st.sampled_from(["random", "rbn"]),
)
def test_any_shares_of_any_ranks_are_the_single_stream(runs, kind):
    """Each run goes on from a state of the one before, with another number of ranks."""
    drawn, state = [], sampler(kind).state_dict()
    for world_size, calls in runs:
        of_ranks = [sampler(kind) for _ in range(world_size)]
        for ours in of_ranks:
            ours.load_state_dict(state)
        for batch_size in calls:
            for rank, ours in enumerate(of_ranks):
                with as_rank(rank, world_size):
                    masks = ours(batch_size)
                own = batch_size[rank] if isinstance(batch_size, list) else batch_size
                assert len(masks.visible) == own
                drawn.append(masks)
        states = [{k: int(v) for k, v in ours.state_dict().items()} for ours in of_ranks]
        assert states == states[:1] * world_size
        state = of_ranks[-1].state_dict()
    n = sum(len(masks.visible) for masks in drawn)
    assert_same([torch.cat(forms) for forms in zip(*drawn, strict=True)], sampler(kind)(n))


def saved_and_loaded(module):
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module)), saved_and_loaded],
    ids=["deepcopy", "pickle", "torch.save"],
)
def test_a_copy_goes_on_from_the_same_place_by_itself(copied):
    """As part of a model, and between a forward pass and its backward pass."""
    model = torch.nn.ModuleDict({"sampler": sampler()})
    ours = model["sampler"]
    x, weight = leaves()
    y = checkpointed(ours)(lambda x: layer(x, weight, ours(len(x))), x)
    twin = copied(model)["sampler"]
    y.sum().backward()
    expected = sampler().masks(torch.arange(3, 7))
    for each in (ours, twin):
        assert_same(each(4), expected)
    x, weight = leaves()
    y = checkpointed(twin)(lambda x: layer(x, weight, twin(len(x))), x)
    y.sum().backward()
    assert (int(ours.next_id), int(twin.next_id)) == (7, 10)
