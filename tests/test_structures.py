"""The op of all structures, and the kinds that are new in it: bands, frames, multi-block, running
cell."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import IDS, examples, sample_ids, seeds_in_any_form, small_grids
from testing import IDS_TENSOR, assert_same, devices, triton_kernels
from torch._dynamo.testing import CompileCounterWithBackend

import smnm_kernels as smnm
from smnm_kernels.arguments import Seed
from smnm_kernels.kinds import KINDS, make_kind
from smnm_kernels.kinds.baselines import BASELINES
from smnm_kernels.kinds.multi_block import PRESETS
from smnm_kernels.kinds.structures import StructureKind
from smnm_kernels.reference import structures as definition
from smnm_kernels.tables.constants import STRUCTURES

pytestmark = pytest.mark.usefixtures("poisoned_memory")
#: Where the originals raise, or cut to the batch: those of video, spectrograms and images.
GRIDS = [(8, 14, 14), (1, 64, 8), (14, 14), (5, 38), (1, 7, 7)]
FLAT = {"time_frequency", "bands"}
#: Parameters other than the defaults.
PARAMETERS = {
    "inverse_block": st.fixed_dictionaries({"block_size": st.integers(1, 9)}),
    "bands": st.fixed_dictionaries(
        {"time_bands": st.integers(0, 3), "freq_bands": st.integers(1, 3)}
    ),
    "multi_block": st.one_of(
        st.fixed_dictionaries({"preset": st.sampled_from(list(PRESETS))}),
        st.fixed_dictionaries(
            {
                "n_blocks": st.integers(1, 6),
                "scale": st.sampled_from([0.01, 0.2, (0.05, 0.5), 1.0]),
                "aspect": st.sampled_from([1, 0.01, 100, (0.2, 5.0)]),
                "context_scale": st.sampled_from([0.1, 1.0, (0.3, 0.9)]),
            }
        ),
    ),
}


@st.composite
def kinds(draw, name, max_side=17):
    frames, height, width = draw(small_grids(max_side))
    grid = (1 if name in FLAT else frames, height, width)
    repeated = grid[0] if name not in ("frames", "running_cell") else 1
    n_keep = repeated * draw(st.integers(1, math.prod(grid) // repeated))
    parameters = draw(PARAMETERS.get(name, st.just({})))
    return make_kind(name, grid, n_keep=n_keep, **parameters)


@st.composite
def valid_tokens(draw, kind, batch):
    """bool [B, N] with enough True ones, or None."""
    if draw(st.booleans()):
        return None
    n_tokens = math.prod(kind.grid)
    n_valid = draw(st.integers(kind.n_keep, n_tokens))
    noise = torch.rand(batch, n_tokens, generator=torch.Generator().manual_seed(n_valid))
    return smnm.threshold(noise, n_keep=n_valid).visible


def op_call(kind, ids, seed, valid=None):
    seeds = (seed, 0) if isinstance(seed, torch.Tensor) else (None, seed)
    return (ids, *seeds, valid, *kind.op_arguments)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("name", BASELINES)
@given(first=IDS, seed=seeds_in_any_form(), data=st.data())
@examples(40)
def test_equal_to_the_definition(device, name, first, seed, data):
    kind, ids = data.draw(kinds(name)), torch.arange(first, first + 2)
    valid = data.draw(valid_tokens(kind, len(ids)))
    there = [
        part.to(device) if isinstance(part, torch.Tensor) else part
        for part in op_call(kind, ids, seed, valid)
    ]
    ours = smnm.Masks(*torch.ops.smnm.structure_masks(*there))
    assert definition.structure_parameters(kind) == kind.parameters
    seeds = op_call(kind, ids, seed)[1:3]
    assert_same(ours, definition.structure_masks(ids, *seeds, kind, valid))
    assert (ours.visible.sum(1) == kind.n_keep).all()
    if valid is not None:
        assert not (ours.visible.cpu() & ~valid).any()
    everything = torch.ones(len(ids), math.prod(kind.grid), dtype=torch.bool, device=device)
    all_valid = (*there[:3], everything, *there[4:])
    without = (*there[:3], None, *there[4:])
    assert_same(
        torch.ops.smnm.structure_masks(*all_valid), torch.ops.smnm.structure_masks(*without)
    )


@pytest.fixture(scope="module")
def gpu():
    return triton_kernels()


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def test_of_equal_random_words_the_first_place_comes_first():
    """In all frames, before the second is visible in any, whether ``valid`` is given or not."""
    n_places, grid = 289, (3, 17, 17)
    noise = smnm.noise(torch.arange(400), (1, 17, 17), "white").flatten(1)
    values, order = noise.sort(dim=1, descending=True, stable=True)
    sample, rank = (values[:, 1:] == values[:, :-1]).nonzero()[0].tolist()
    first, second = order[sample, rank : rank + 2].tolist()
    # No place has a block of its own: one block covers all.
    parameters, n_keep = (34, 1), 3 * (rank + 1)
    everything = torch.ones(1, 3 * n_places, dtype=torch.bool)
    for valid in (None, everything):
        call = (torch.tensor([sample]), None, 0, valid, grid, "inverse_block", parameters, n_keep)
        visible = torch.ops.smnm.structure_masks(*call)[0].view(3, n_places)
        assert visible[:, first].all()
        assert not visible[:, second].any()
        assert_same(visible.view(1, -1), smnm.reference.structure_masks_kernel(*call).visible)
    call = (*call[:-1], n_keep + 1)  # one frame of the second
    visible = torch.ops.smnm.structure_masks(*call)[0].view(3, n_places)
    assert visible[:, first].all()
    assert visible[:, second].tolist() == [True, False, False]


def assert_triton_equal(gpu, *call):
    there = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in call]
    assert_same(gpu.structure_masks_kernel(*there), torch.ops.smnm.structure_masks(*call))


@pytest.mark.parametrize("name", BASELINES)
@given(seed=seeds_in_any_form(), in_passes=st.booleans(), data=st.data())
@examples(12)
def test_triton_equals_the_cpu(gpu, name, seed, in_passes, data):
    from smnm_kernels.triton_kernels import structure_ops

    kind = data.draw(kinds(name, 9))
    valid = data.draw(valid_tokens(kind, 1))
    with pytest.MonkeyPatch.context() as patch:
        if in_passes:
            patch.setattr(structure_ops, "MAX_TOKENS_ON_CHIP", 0)
        assert_triton_equal(gpu, *op_call(kind, torch.tensor([2**40 + 3]), seed, valid))


@pytest.mark.parametrize("valid", [None, torch.ones(1, 40, dtype=torch.bool)])
def test_triton_where_all_tokens_are_visible(gpu, valid, monkeypatch):
    """Padding is not among them."""
    from smnm_kernels.triton_kernels import structure_ops

    call = op_call(make_kind("grid", (2, 4, 5), 0), torch.arange(1), 3, valid)
    assert_triton_equal(gpu, *call)
    monkeypatch.setattr(structure_ops, "MAX_TOKENS_ON_CHIP", 0)
    assert_triton_equal(gpu, *call)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*BASELINES, "target_block"])
def test_triton_on_standard_grids(gpu, name):
    grid = (1, 64, 8) if name in FLAT else (8, 14, 14)
    kind = make_kind("multi_block" if name == "target_block" else name, grid, 0.75)
    call = op_call(kind, torch.tensor([7]), 11)
    if name == "target_block":
        call = (*call[:4], grid, name, (3, *kind.area, *kind.aspect), kind.n_target)
    assert_triton_equal(gpu, *call)
    valid = torch.rand(1, math.prod(grid), generator=torch.Generator().manual_seed(0)) < 0.9
    assert_triton_equal(gpu, *call[:3], valid, *call[4:])


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("ratio", [0.5, 0.8, 0.95])
def test_counts_are_exact_and_rows_alone(name, grid, ratio):
    if name in FLAT and len(grid) == 3 and grid[0] > 1:
        with pytest.raises(ValueError, match=rf"grid for {name} masks must be \(1, T, F\)"):
            make_kind(name, grid, ratio)
        return
    kind, seed = make_kind(name, grid, ratio), Seed(None, 5)
    n_places = math.prod(grid[-2:]) if kind.repeats_over_time else math.prod(grid)
    shown = int(n_places * round(100 * (1 - ratio)) / 100)
    assert kind.n_keep == shown * (math.prod(kind.grid) // n_places)
    masks = kind.draw(IDS_TENSOR, seed)
    assert (masks.visible.sum(1) == kind.n_keep).all()
    assert_same(masks, smnm.Masks.from_visible(masks.visible, kind.n_keep))
    alone = [kind.draw(IDS_TENSOR[i : i + 1], seed) for i in range(len(IDS_TENSOR))]
    assert_same(masks, [torch.cat(parts) for parts in zip(*alone, strict=True)])


# What each structure looks like.


def visible(name, grid, ratio, n=100, **parameters):
    kind = make_kind(name, grid, ratio, **parameters)
    return kind.draw(torch.arange(n), Seed(None, 0)).visible.unflatten(1, kind.grid)


def test_bands_are_masked_as_a_whole():
    """All lines are whole, but for those of the last band."""
    mask = ~visible("bands", (1, 64, 8), 0.5)[:, 0]
    whole = mask.all(2)[:, :, None] | mask.all(1)[:, None]
    assert (mask & ~whole).flatten(1).sum(1).max() < 3 * 64  # a part of one band
    assert mask.all(2).any(1).float().mean() > 0.9
    assert mask.all(1).any(1).float().mean() > 0.9


def test_bands_of_one_axis_alone():
    of_time = ~visible("bands", (1, 64, 8), 0.75, freq_bands=0, time_width=6)[:, 0]
    assert ((of_time.sum(2) % 8 != 0).sum(1) <= 6).all()
    of_mel = ~visible("bands", (1, 64, 8), 0.75, time_bands=0, freq_width=2)[:, 0]
    assert ((of_mel.sum(1) % 64 != 0).sum(1) <= 2).all()


def test_bands_are_as_wide_as_they_may_be():
    """The first band has at least as many patches as are masked here."""
    masked = ~visible("bands", (1, 64, 8), None, 400, n_keep=504, freq_bands=0, time_width=5)[:, 0]
    rows = masked.any(2).long()
    last, first = 63 - rows.flip(1).argmax(1), rows.argmax(1)
    assert set((last - first).tolist()) == {0, 1, 2, 3, 4}


def test_frames_are_masked_as_a_whole():
    mask = visible("frames", (8, 14, 14), 0.75)
    assert (mask.flatten(2).all(2).sum(1) == 2).all()
    assert len(mask.flatten(2).all(2).unique(dim=0)) > 20  # of 28
    partly = visible("frames", (8, 14, 14), None, n_keep=2 * 196 + 50).flatten(2).sum(2)
    assert (partly.sort(1).values == torch.tensor([0] * 5 + [50, 196, 196])).all()
    assert (visible("frames", (1, 64, 8), 0.75)[:, 0].all(2).sum(1) == 16).all()


def test_a_cell_runs():
    mask = visible("running_cell", (8, 6, 6), 0.5)
    cells = mask.unflatten(3, (3, 2)).unflatten(2, (3, 2))
    assert (cells.sum((3, 5)) == 2).all()  # two of four in every cell and frame
    assert (mask[:, :4].sum(1) == 2).all()  # each place in two of four frames
    assert (mask[:, 1:] != mask[:, :-1]).flatten(2).any(2).all()
    assert torch.equal(mask[:, :4], mask[:, 4:])
    assert len(mask.unique(dim=0)) == 4
    odd = visible("running_cell", (3, 5, 7), 0.75)
    assert (odd.flatten(1).sum(1) == 26).all()


def test_what_a_decoder_restores_is_exact():
    """The use that RunningCellKind describes."""
    grid, ids, seed = (8, 14, 14), torch.arange(20), Seed(None, 3)
    encoder = make_kind("tube", grid, 0.9).draw(ids, seed)
    decoder = make_kind("running_cell", grid, n_keep=700).draw(ids, seed, valid=encoder.masked)
    assert (decoder.visible.sum(1) == 700).all()
    assert not (decoder.visible & encoder.visible).any()
    cells = visible("running_cell", grid, 0.5, 1)
    assert cells.sum() == 784


# Multi-block.


@pytest.mark.parametrize("device", devices())
@given(
    grid=small_grids(),
    parameters=PARAMETERS["multi_block"],
    share=st.floats(0, 1),
    freq_major=st.booleans(),
    ids=sample_ids(3),
    seed=seeds_in_any_form(),
)
def test_multi_block_equals_the_definition(device, grid, parameters, share, freq_major, ids, seed):
    n_keep = grid[0] * max(1, int(share * grid[1] * grid[2]))
    call = {"grid": grid, "n_keep": n_keep, "freq_major": freq_major, **parameters}
    there = seed.to(device) if isinstance(seed, torch.Tensor) else seed
    ours = smnm.multi_block_masks(ids.to(device), **call, seed=there)
    assert_same(ours, smnm.reference.multi_block_masks(ids, **call, seed=seed))
    assert_same(ours.masks, smnm.Masks.from_visible(ours.visible, n_keep))
    targets = ours.ids_target.cpu()
    assert ((targets[..., 1:] - targets[..., :-1]) > 0).all()
    assert ((targets >= 0) & (targets < math.prod(grid))).all()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("preset", PRESETS)
def test_targets_have_one_count(grid, preset):
    made = smnm.multi_block_masks(IDS_TENSOR, grid, 0.9, preset=preset)
    settings, sides = PRESETS[preset], (1, *grid)[-3:]
    low = {"i-jepa": 15, "v-jepa-short": 15, "v-jepa-long": 70}[preset]
    n_target = sides[0] * (low * math.prod(sides[1:]) // 100)
    assert list(made.ids_target.shape) == [len(IDS_TENSOR), settings.n_blocks, n_target]
    assert [part.shape[1] for part in made.jepa[1]] == [n_target] * settings.n_blocks


def test_context_and_targets_meet_only_where_they_must():
    for grid, ratio, preset in (
        ((14, 14), 0.8, "i-jepa"),
        ((8, 14, 14), 0.9, "i-jepa"),
        ((8, 14, 14), 0.9, "v-jepa-short"),
    ):
        made = smnm.multi_block_masks(torch.arange(300), grid, ratio, preset=preset)
        hit = made.visible.gather(1, made.ids_target.flatten(1)).any(1)
        assert hit.float().mean() < 0.2 if preset == "v-jepa-short" else not hit.any()
    # Too few are left: a target becomes visible, the last first.
    made = smnm.multi_block_masks(torch.arange(300), (14, 14), n_keep=150, n_blocks=2, scale=0.3)
    shown = made.visible[:, None].expand(-1, 2, -1).gather(2, made.ids_target).sum((0, 2))
    assert shown[0] < shown[1] / 2


def test_targets_are_blocks():
    """Of equal lower and upper end: all patches of a block, or nearly."""
    made = smnm.multi_block_masks(torch.arange(200), (14, 14), 0.75, scale=0.25, aspect=1)
    y, x = made.ids_target // 14, made.ids_target % 14
    for place in (y, x):
        assert (place.amax(2) - place.amin(2) == 6).all()  # 7 by 7
    tall = smnm.multi_block_masks(torch.arange(200), (14, 14), 0.75, scale=0.2, aspect=4)
    y, x = tall.ids_target // 14, tall.ids_target % 14
    assert (y.amax(2) - y.amin(2) > 2 * (x.amax(2) - x.amin(2))).all()


def test_multi_block_over_time_and_order():
    ids = torch.arange(6)
    made = smnm.multi_block_masks(ids, (3, 6, 8), 0.75)
    frames = made.ids_target.unflatten(2, (3, -1))
    assert torch.equal(frames % 48, frames[:, :, :1].expand_as(frames))
    other = smnm.multi_block_masks(ids, (3, 6, 8), 0.75, freq_major=True)
    flags = torch.zeros(6, made.ids_target.shape[1], 144, dtype=torch.bool)
    ours = flags.scatter(2, made.ids_target, True).unflatten(2, (3, 6, 8)).transpose(3, 4)
    assert torch.equal(ours.flatten(2), flags.scatter(2, other.ids_target, True))
    assert_same(made.masks.freq_major((3, 6, 8)), other.masks)


def test_the_kind_is_the_context():
    sampler = smnm.MaskSampler("multi_block", (8, 14, 14), 0.9, preset="v-jepa-long", seed=4)
    made = smnm.multi_block_masks(torch.arange(5), (8, 14, 14), 0.9, preset="v-jepa-long", seed=4)
    assert_same(sampler(5), made.masks)


def test_multi_block_compiles_once():
    torch._dynamo.reset()
    counter = CompileCounterWithBackend("aot_eager")

    @torch.compile(fullgraph=True, backend=counter)
    def draw(ids):
        return smnm.multi_block_masks(ids, (2, 7, 7), 0.75, scale=(0.1, 0.3), aspect=2)

    expected = smnm.reference.multi_block_masks(
        torch.arange(4), (2, 7, 7), 0.75, scale=(0.1, 0.3), aspect=2
    )
    for _ in range(2):
        assert_same(tuple(draw(torch.arange(4))), tuple(expected))
    assert counter.frame_count == 1


@pytest.mark.parametrize(
    ("kind", "change", "error", "named"),
    [
        ("bands", {"time_width": 9}, ValueError, r"time_width must be an int in \[1, 8\].*got 9"),
        ("bands", {"freq_width": 0}, ValueError, r"freq_width must be .*\[1, 6\].*got 0"),
        ("bands", {"time_bands": -1}, ValueError, r"time_bands must be .*\[0, 64\], got -1"),
        ("bands", {"time_bands": 0, "freq_bands": 0}, ValueError, "must not both be 0"),
        ("multi_block", {"preset": "jepa"}, ValueError, "preset must be one of i-jepa, .*'jepa'"),
        ("multi_block", {"n_blocks": 65}, ValueError, r"n_blocks must be .*\[1, 64\], got 65"),
        ("multi_block", {"scale": 0}, ValueError, r"scale must be a number in \(0, 1\].*got 0"),
        ("multi_block", {"scale": (0.3, 0.2)}, ValueError, r"scale must be .*got \(0.3, 0.2\)"),
        ("multi_block", {"scale": (0.1, 0.2, 0.3)}, TypeError, "scale must be a number"),
        ("multi_block", {"aspect": "1"}, TypeError, r"aspect must be a number in \[0.01, 100\]"),
        ("multi_block", {"aspect": math.nan}, ValueError, "aspect must be .*got nan"),
        ("multi_block", {"aspect": 0.001}, ValueError, "aspect must be .*got 0.001"),
        ("multi_block", {"context_scale": 1.5}, ValueError, "context_scale must be .*got 1.5"),
        ("frames", {"n_keep": 49}, ValueError, r"n_keep must be in \[1, 48\].*got 49"),
    ],
)  # fmt: skip
def test_mistakes_are_named(kind, change, error, named):
    settings = {"mask_ratio": 0.5} if "n_keep" not in change else {}
    with pytest.raises(error, match=named):
        smnm.MaskSampler(kind, (1, 8, 6), **settings, **change)


@pytest.mark.parametrize(
    ("structure", "parameters", "named"),
    [
        ("grids", (), "structure must be one of STRUCTURES, got grids"),
        ("grid", (2,), "parameters of grid must be 2 ints"),
        ("grid", (0, 1), r"parameters\[0\] of grid must be in \[1, 4\]"),
        ("bands", (0, 0, 1, 1), "parameters of bands"),
        ("bands", (1, 1, 5, 1), r"parameters\[2\] of bands"),
        ("multi_block", (65, 1, 2, 1, 2, 1, 2), r"parameters\[0\]"),
        ("multi_block", (2, 2, 1, 1, 2, 1, 2), r"parameters\[1\] .* at most the next"),
        ("target_block", (0, 1, 21, 1, 2), r"parameters\[2\]"),
    ],
)
def test_an_op_called_past_the_checks_refuses(structure, parameters, named):
    ids = torch.arange(2)
    with pytest.raises(RuntimeError, match=named):
        torch.ops.smnm.structure_masks(ids, None, 0, None, (1, 4, 5), structure, parameters, 5)
    for valid in (torch.ones(2, 19) > 0, torch.ones(2, 20), torch.ones(2, 20) < 0):
        with pytest.raises(RuntimeError, match="valid"):
            torch.ops.smnm.structure_masks(ids, None, 0, valid, (1, 4, 5), "block", (), 5)


@pytest.mark.parametrize("name", BASELINES)
def test_kinds_leave_out_what_is_not_valid(name):
    grid, ids, seed = (1, 12, 8), torch.arange(9), Seed(None, 4)
    if name not in FLAT:
        grid = (3, 12, 8)
    n_tokens = math.prod(grid)
    ends = n_tokens - 4 * ids
    valid = torch.arange(n_tokens) < ends[:, None]  # recordings that end before the window does
    for freq_major in (False, True):
        kind = make_kind(name, grid, 0.5, freq_major=freq_major)
        in_order = valid
        if freq_major:
            in_order = valid.unflatten(1, grid).transpose(2, 3).flatten(1)
        masks = kind.draw(ids, seed, valid=in_order)
        assert_same(masks, smnm.Masks.from_visible(masks.visible, kind.n_keep))
        assert not (masks.visible & ~in_order).any()
        assert torch.equal(masks.visible[0], kind.draw(ids, seed).visible[0])
    with pytest.raises(ValueError, match=rf"valid must be True for at least n_keep={kind.n_keep}"):
        kind.draw(ids, seed, valid=valid & False)


def test_too_few_valid_tokens_are_refused_on_the_cpu_and_the_first_shown_elsewhere(gpu):
    kind = make_kind("block", (2, 4, 5), 0.5)
    valid = torch.zeros(1, 40, dtype=torch.bool)
    valid[:, 7:15] = True
    call = op_call(kind, torch.arange(1), 1, valid)
    with pytest.raises(RuntimeError, match="valid must be True for at least 20 tokens"):
        torch.ops.smnm.structure_masks(*call)
    visible = gpu.structure_masks_kernel(
        *(part.to(DEVICE) if isinstance(part, torch.Tensor) else part for part in call)
    ).visible.cpu()
    assert_same(visible, smnm.reference.structure_masks_kernel(*call).visible)
    assert (visible.sum(1) == 20).all()
    assert visible[:, 7:15].all()


def test_valid_in_a_graph():
    torch._dynamo.reset()
    kind = make_kind("multi_block", (2, 6, 7), 0.75)
    ids, valid = torch.arange(5), torch.arange(84).expand(5, -1) % 5 > 0
    compiled = torch.compile(
        lambda ids, valid: kind.draw(ids, Seed(None, 1), valid=valid),
        fullgraph=True,
        backend="aot_eager",
    )
    assert_same(tuple(compiled(ids, valid)), tuple(kind.draw(ids, Seed(None, 1), valid=valid)))


def test_what_is_repeated_over_time_is_said_alike():
    for name in KINDS:
        kind = make_kind(name, (1, 8, 8), 0.5)
        if isinstance(kind, StructureKind):
            assert kind.repeats_over_time == STRUCTURES[name]
