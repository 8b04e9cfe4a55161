"""Padding: where ``valid`` is False nothing is visible, and every row still shows n_keep tokens."""

import math

import pytest
import torch
from algorithm_1 import algorithm_1
from hypothesis import given
from hypothesis import strategies as st
from rbn_banks import bank_order, tie_breaker
from strategies import IDS, SEEDS, examples
from testing import assert_same, devices, triton_kernels

import smnm_kernels as smnm
from smnm_kernels import kinds, reference
from smnm_kernels.adapters import ClonedMasks, JepaCollator, MaskingGenerator, Vjepa2Collator
from smnm_kernels.arguments import Seed
from smnm_kernels.kinds.kind import parse_valid
from smnm_kernels.kinds.structures import StructureKind
from smnm_kernels.kinds.weighted import patch_on_grid
from smnm_kernels.loading import MaskCollator, WithSampleIds

pytestmark = pytest.mark.usefixtures("poisoned_memory")
#: Kinds that can leave tokens out.
KINDS = [name for name in kinds.KINDS if kinds.make_kind(name, (1, 4, 4), 0.5).takes_valid]
#: Those on more than one frame.
OF_VIDEO = [name for name in KINDS if name not in ("rbn", "time_frequency", "bands", "activity")]


def rows_of(valid_counts, n_tokens, generator):
    """bool [B, n_tokens]: so many True in each row, at random places."""
    rows = torch.zeros(len(valid_counts), n_tokens, dtype=torch.bool)
    for row, count in zip(rows, valid_counts, strict=True):
        row[torch.randperm(n_tokens, generator=generator)[:count]] = True
    return rows


#: Kinds that swap.
HINTED = ("dispersion", "motion", "self_guided")


def values_in_time(name):
    """Of a patch of the input."""
    return 2 if name == "motion" else 1


@st.composite
def padded(draw, name, max_side=5):
    """(kind, sample ids, data or None, valid)"""
    frames = draw(st.sampled_from([1, 2, 3])) if name in OF_VIDEO else 1
    side = st.integers(1, max_side)
    grid = (frames, draw(side), draw(side))
    n_tokens = math.prod(grid)
    n_keep = frames * draw(st.integers(1, n_tokens // frames))
    more = {"hint_ratio": draw(st.sampled_from([0, 0.3, 1.0]))} if name in HINTED else {}
    if name == "rbn":
        more["tie_break"] = draw(st.sampled_from(["first", "random"]))
        more["n_candidates"] = draw(st.sampled_from([None, 1, 3, 9]))
    kind = kinds.make_kind(name, grid, n_keep=n_keep, freq_major=draw(st.booleans()), **more)
    ids = torch.tensor(draw(st.lists(IDS, max_size=4)), dtype=torch.int64)
    counts = draw(st.lists(st.integers(n_keep, n_tokens), min_size=len(ids), max_size=len(ids)))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    data = None
    if kind.needs_data:
        sides = (values_in_time(name) * grid[0], 2 * grid[1], 2 * grid[2])
        data = torch.randn(len(ids), 1, *sides, generator=generator)
    return kind, ids, data, rows_of(counts, n_tokens, generator)


def defined_by_scores(kind, ids, seed, data, valid):
    """Patches of the input are features; scores and masks by the public functions."""
    patches = patches_of(data, patch_on_grid(data, kind.grid))
    row_major = parse_valid(valid, ids, kind.grid, kind.n_keep, kind.freq_major)
    scores = smnm.self_guided_scores(patches, row_major)
    n_masked = math.prod(kind.grid) - kind.n_keep
    hint = kind.n_swapped / n_masked if n_masked else 0
    more = {"masked": "lowest", "hint_ratio": hint, "seed": seed, "valid": row_major}
    masks = smnm.guided_masks(ids, scores, n_keep=kind.n_keep, **more)
    return kind.in_token_order(masks)


def patches_of(data, patch):
    """[B, C, T, H, W] -> [B, N, values], one patch after the other."""
    blocks = [data]
    for axis, length in zip((2, 3, 4), patch, strict=True):
        blocks = [part for block in blocks for part in block.split(length, axis)]
    return torch.stack([block.flatten(1) for block in blocks], 1)


def defined(kind, ids, seed, data, valid):
    """The masks that the definition of the kind gives, ``valid`` in the order of the masks."""
    m = reference
    grid, count = kind.grid, {"n_keep": kind.n_keep, "freq_major": kind.freq_major}
    more = {**count, "seed": seed, "valid": valid}
    if isinstance(kind, kinds.NoiseKind):
        field = (kind.noise.color,)
        return m.noise_masks(
            ids, grid, *field, sigma=kind.noise.given_sigma, tube=kind.tube, **more
        )
    if isinstance(kind, kinds.RbnKind):
        ties = "random" if kind.random_ties else "first"
        return m.rbn_masks(ids, grid, n_candidates=kind.n_candidates, tie_break=ties, **more)
    if isinstance(kind, kinds.DispersionKind):
        n_masked = math.prod(grid) - kind.n_keep
        hint = kind.n_swapped / n_masked if n_masked else 0
        return m.dispersion_masks(ids, data, patch_on_grid(data, grid), hint_ratio=hint, **more)
    if isinstance(kind, kinds.SelfGuidedKind):
        return defined_by_scores(kind, ids, seed, data, valid)
    if isinstance(kind, StructureKind):
        row_major = parse_valid(valid, ids, grid, kind.n_keep, kind.freq_major)
        return kind.in_token_order(m.structure_masks(ids, None, seed, kind, row_major))
    return None


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("name", KINDS)
@examples(40)
@given(data=st.data(), seed=SEEDS)
def test_exact_counts_of_valid_tokens_as_defined(name, device, data, seed):
    kind, ids, x, valid = data.draw(padded(name))
    there = [None if a is None else a.to(device) for a in (x, valid)]
    masks = kind.draw(ids.to(device), Seed(None, seed), *there)
    assert (masks.visible.sum(1) == kind.n_keep).all()
    assert not (masks.visible.cpu() & ~valid).any()
    assert_same(masks, smnm.Masks.from_visible(masks.visible, kind.n_keep))
    expected = defined(kind, ids, seed, x, valid)
    if expected is not None:
        assert_same(masks, expected)
    # Each row by itself, and without padding the masks of no ``valid``.
    for row in range(len(ids)):
        one = [None if a is None else a[row : row + 1] for a in there]
        own = kind.draw(ids[row : row + 1].to(device), Seed(None, seed), *one)
        assert_same(own, smnm.Masks(*(part[row : row + 1] for part in masks)))
    everywhere = torch.ones_like(there[1])
    assert_same(
        kind.draw(ids.to(device), Seed(None, seed), there[0], everywhere),
        kind.draw(ids.to(device), Seed(None, seed), there[0]),
    )


@examples(60)
@given(
    sides=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    n_candidates=st.integers(1, 6),
    random_ties=st.booleans(),
    seed=SEEDS,
    bank=st.integers(-3, 3),
    data=st.data(),
)
def test_rbn_is_algorithm_1_on_the_valid_positions(
    sides, n_candidates, random_ties, seed, bank, data
):
    """From the description alone: the bank's order with the other positions left out."""
    n = math.prod(sides)
    valid = torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    valid[data.draw(st.integers(0, n - 1))] = True
    n_keep = data.draw(st.integers(1, int(valid.sum())))
    order = [p for p in bank_order(bank, n, seed) if valid[p]]
    more = {}
    if random_ties:
        full = tie_breaker(range(n), seed, bank)

        def choose(step, tied):
            sweep, place = divmod(step, len(order))
            return full(sweep * n + order[place], tied)

        more["choose"] = choose
    expected = algorithm_1(order, n_candidates, n_keep, *sides, **more)
    masks = smnm.rbn_masks(
        torch.arange(n_candidates) + bank * n_candidates,
        sides,
        n_keep=n_keep,
        n_candidates=n_candidates,
        tie_break="random" if random_ties else "first",
        seed=seed,
        valid=valid.expand(n_candidates, -1),
    )
    assert [set(row.tolist()) for row in masks.ids_keep] == expected


@pytest.fixture(scope="module")
def gpu():
    return triton_kernels()


DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def on_triton(kernel, *call):
    return kernel(*(a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in call))


@examples(16)
@given(
    rule=st.sampled_from(["weights", "scores"]),
    invert=st.booleans(),
    n=st.integers(1, 70),
    seed=SEEDS,
    data=st.data(),
)
def test_draws_in_triton(gpu, rule, invert, n, seed, data):
    call, valid = draw_call(rule, invert, n, seed, data)
    assert_same(
        on_triton(gpu.draw_masks_kernel, *call, valid), torch.ops.smnm.draw_masks(*call, valid)
    )


@examples(100)
@given(
    rule=st.sampled_from(["weights", "log2_weights", "scores"]),
    invert=st.booleans(),
    n=st.integers(1, 70),
    seed=SEEDS,
    data=st.data(),
)
def test_draws_are_as_defined(rule, invert, n, seed, data):
    call, valid = draw_call(rule, invert, n, seed, data)
    made = torch.ops.smnm.draw_masks(*call, valid)
    assert_same(smnm.Masks(*made), reference.draw_masks_kernel(*call, valid))
    assert (made[0].sum(1) == call[5]).all()
    assert not (made[0] & ~valid).any()


def draw_call(rule, invert, n, seed, data):
    n_keep = data.draw(st.integers(1, n))
    n_swapped = data.draw(st.integers(0, n_keep if invert else n - n_keep))
    counts = data.draw(st.lists(st.integers(n_keep, n), min_size=1, max_size=3))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 999)))
    ids = torch.randint(-99, 99, (len(counts),), generator=generator)
    values = torch.randn(len(counts), n, generator=generator).exp()
    values[:, ::5], values[:, ::7], values[:, ::11] = 0.0, math.nan, -1.0
    call = (ids, None, seed, values, rule, n_keep, invert, n_swapped)
    return call, rows_of(counts, n, generator)


@pytest.mark.parametrize("invert", [False, True])
def test_some_draws_in_triton(gpu, invert):
    generator = torch.Generator().manual_seed(0)
    values, valid = torch.rand(3, 37, generator=generator), rows_of([9, 20, 37], 37, generator)
    for n_swapped in (0, 7):
        call = (torch.tensor([3, -4, 5]), None, 7, values, "weights", 9, invert, n_swapped)
        made = on_triton(gpu.draw_masks_kernel, *call, valid)
        assert_same(made, torch.ops.smnm.draw_masks(*call, valid))


@pytest.mark.slow
@pytest.mark.parametrize("invert", [False, True])
def test_draws_on_large_grids_in_triton(gpu, invert):
    n, n_keep, generator = 4100, 900, torch.Generator().manual_seed(0)
    values = torch.randn(2, n, generator=generator)
    values[:, ::5] = math.nan
    valid = rows_of([1200, 4100], n, generator)
    for n_swapped in (0, 700):
        call = (torch.tensor([7, -3]), None, 11, values, "scores", n_keep, invert, n_swapped)
        assert_same(
            on_triton(gpu.draw_masks_kernel, *call, valid), torch.ops.smnm.draw_masks(*call, valid)
        )


@examples(8)
@given(data=st.data(), seed=SEEDS)
def test_rbn_in_triton(gpu, data, seed):
    kind, ids, _, valid = data.draw(padded("rbn", max_side=4))
    call = (ids, None, seed, *kind.op_arguments, valid)
    assert_same(on_triton(gpu.rbn_masks_kernel, *call), torch.ops.smnm.rbn_masks(*call))


def test_some_rbn_in_triton(gpu):
    valid = rows_of([3, 7], 12, torch.Generator().manual_seed(0))
    kind = kinds.make_kind("rbn", (1, 4, 3), n_keep=3, n_candidates=2)
    call = (torch.tensor([3, -4]), None, 7, *kind.op_arguments, valid)
    assert_same(on_triton(gpu.rbn_masks_kernel, *call), torch.ops.smnm.rbn_masks(*call))


def test_with_all_chance_the_valid_tokens_are_alike():
    """h = 1: uniform over the valid tokens, whatever their weights."""
    ids = torch.arange(40_000)
    scores = torch.tensor([9.0, 1, 5, 0, 3, 7, 2, 8]).expand(len(ids), -1)
    valid = torch.tensor([1, 1, 0, 1, 1, 0, 1, 1]).bool().expand(len(ids), -1)
    for more in ({}, {"masked": "lowest"}, {"temperature": 1.0}):
        masks = smnm.guided_masks(ids, scores, n_keep=2, hint_ratio=1.0, valid=valid, **more)
        shares = masks.visible.float().mean(0)
        assert (shares[valid[0]] - 2 / 6).abs().max() < 0.01


def test_weights_decide_among_the_valid():
    ids = torch.arange(30_000)
    weights = torch.tensor([1.0, 2.0, 1.0, 50.0]).expand(len(ids), -1)
    valid = torch.tensor([True, True, True, False]).expand(len(ids), -1)
    kept = smnm.weighted_masks(ids, weights, n_keep=1, invert=True, valid=valid).visible
    assert (kept.float().mean(0) - torch.tensor([0.25, 0.5, 0.25, 0])).abs().max() < 0.01


def test_the_two_forms_of_valid():
    """[B, N] is in the order of the masks, [B, T, H, W] as the grid is laid out."""
    grid, ids = (1, 3, 4), torch.arange(2)
    valid = torch.rand(2, *grid, generator=torch.Generator().manual_seed(0)) > 0.3
    for freq_major in (False, True):
        kind = kinds.make_kind("random", grid, n_keep=4, freq_major=freq_major)
        flat = (valid.transpose(2, 3) if freq_major else valid).flatten(1)
        whole = kind.draw(ids, Seed(None, 0), valid=valid)
        assert_same(whole, kind.draw(ids, Seed(None, 0), valid=flat))
        assert_same(whole, kind.draw(ids, Seed(None, 0), valid=valid[:, 0]))
        assert not (whole.visible & ~flat).any()
    time_major = smnm.noise_masks(ids, grid, "white", n_keep=4, valid=valid)
    assert_same(whole, time_major.freq_major(grid))


@pytest.mark.parametrize(
    ("valid", "error", "named"),
    [
        ([[True] * 12] * 2, TypeError, r"valid must be a bool tensor \[B, 12\] or .*got list"),
        (torch.ones(2, 12), TypeError, r"valid must be a bool tensor .*got torch.float32"),
        (torch.ones(3, 12).bool(), ValueError, r"valid must have a row for each of the 2"),
        (torch.ones(2, 11).bool(), ValueError, r"\[B, 12\] or \[B, 1, 3, 4\], got \[2, 11\]"),
        (torch.ones(2, 1, 4, 3).bool(), ValueError, r"got \[2, 1, 4, 3\]"),
        (
            torch.arange(12).expand(2, -1) < torch.tensor([[12], [3]]),
            ValueError,
            "at least n_keep=4 tokens of every row, got 3 in row 1",
        ),
    ],
)
def test_mistakes_are_named(valid, error, named):
    for kind in ("random", "rbn"):
        with pytest.raises(error, match=named):
            smnm.MaskSampler(kind, (1, 3, 4), n_keep=4)(2, valid=valid)


def test_each_function_takes_it():
    ids, valid = torch.arange(2), torch.arange(12).expand(2, -1) < 8
    for masks in (
        smnm.noise_masks(ids, (1, 3, 4), "green", n_keep=8, valid=valid),
        smnm.rbn_masks(ids, (1, 3, 4), n_keep=8, valid=valid),
        smnm.weighted_masks(ids, torch.ones(2, 12), n_keep=8, valid=valid),
        smnm.weighted_masks(ids, torch.ones(2, 3, 4), n_keep=8, valid=valid.view(2, 3, 4)),
        smnm.guided_masks(ids, torch.ones(2, 12), n_keep=8, valid=valid),
        smnm.dispersion_masks(ids, torch.ones(2, 1, 1, 6, 8), (1, 2, 2), n_keep=8, valid=valid),
    ):
        assert_same(masks.visible, valid)


@pytest.mark.parametrize("name", KINDS)
def test_compiled_whole(name):
    torch._dynamo.reset()
    grid, generator = (1, 3, 4), torch.Generator().manual_seed(0)
    sampler = smnm.MaskSampler(name, grid, 0.75)
    data = torch.randn(5, 1, values_in_time(name), 6, 8) if sampler.needs_data else None
    valid = rows_of([3, 12, 5, 7, 4], 12, generator)
    compiled = torch.compile(sampler, fullgraph=True, backend="aot_eager")
    made = compiled(5, data, valid)
    sampler.reset()
    assert_same(made, sampler(5, data, valid))


@pytest.mark.parametrize("name", KINDS)
def test_too_few_where_the_host_does_not_look(name):
    """In graphs the first other tokens count as valid, so that counts stay exact."""
    torch._dynamo.reset()
    sampler = smnm.MaskSampler(name, (1, 3, 4), n_keep=5)
    data = torch.randn(2, 1, values_in_time(name), 6, 8) if sampler.needs_data else None
    few = torch.zeros(2, 12, dtype=torch.bool)
    few[:, [4, 9]] = True
    made = torch.compile(sampler, fullgraph=True, backend="aot_eager")(2, data, few)
    shown = torch.zeros(2, 12, dtype=torch.bool)
    shown[:, [0, 1, 2, 4, 9]] = True
    assert_same(made.visible, shown)


def test_ops_refuse_what_would_not_end():
    ids, few = torch.arange(2), torch.zeros(2, 12, dtype=torch.bool)
    rbn = (ids, None, 0, [1, 3, 4], 4, 3, [3, 5], [400, 400, 100, 100], False)
    draw = (ids, None, 0, torch.ones(2, 12), "weights", 4, False, 2)
    for op, call in ((torch.ops.smnm.rbn_masks, rbn), (torch.ops.smnm.draw_masks, draw)):
        with pytest.raises(
            RuntimeError, match=r"valid must be True for at least 4 .* got 0 in row 0"
        ):
            op(*call, few)
        for wrong in (few[:1], few[:, :3], few.int()):
            with pytest.raises(RuntimeError, match=r"valid must be bool \[B, N\]"):
                op(*call, wrong)


def test_samplers():
    valid = torch.arange(12).expand(3, -1) < 6
    both = {"video": valid.view(3, 1, 3, 4), "audio": torch.arange(8).expand(3, -1) > 3}
    sampler = smnm.AudioVideoSampler(
        {"kind": "green3d", "grid": (1, 3, 4), "n_keep": 6},
        {"kind": "rbn", "grid": (1, 4, 2), "n_keep": 4},
    )
    masks = sampler(3, valid=both)
    assert_same(masks.video.visible, valid)
    assert_same(masks.audio.visible, both["audio"])
    assert_same(sampler(3, valid={"video": valid}).video.visible, valid)
    with pytest.raises(TypeError, match='valid must be a dict with "video", "audio" or both'):
        sampler(3, valid=valid)
    hiding = smnm.AudioVideoSampler(
        {"kind": "green3d", "grid": (2, 3, 4), "n_keep": 6},
        {"kind": "rbn", "grid": (1, 4, 2), "n_keep": 2},
        hidden_time=0.5,
    )
    with pytest.raises(TypeError, match="valid must not be given with hidden_time"):
        hiding(3, valid={"video": torch.ones(3, 24).bool()})
    scheduled = smnm.ScheduledSampler("random", (1, 3, 4), smnm.schedules.linear(0.5, 0.75, 3))
    assert_same(scheduled(3, valid=valid).visible, valid)
    assert (scheduled(3, valid=valid).visible & ~valid).sum() == 0
    assert scheduled.step == 2


def test_a_kind_that_cannot_says_so(monkeypatch):
    monkeypatch.setattr(kinds.NoiseKind, "takes_valid", False)
    sampler = smnm.MaskSampler("random", (1, 4, 4), 0.5)
    assert not sampler.settings.takes_valid
    with pytest.raises(TypeError, match="valid must not be given: random masks cannot leave"):
        sampler(2, valid=torch.ones(2, 16).bool())


def test_collators():
    sampler = smnm.MaskSampler("rbn", (1, 3, 4), n_keep=4)
    valid = torch.arange(12) < torch.tensor([4, 9, 12, 5])[:, None]
    examples_ = [{"x": i, "real": row} for i, row in enumerate(valid)]
    dataset = WithSampleIds(examples_, fixed=True)
    expected = sampler.masks(torch.arange(4), valid=valid)
    for where in ("real", lambda batch: batch["real"]):
        batch = MaskCollator(sampler, valid=where)([dataset[i] for i in range(4)])
        assert_same(batch["bool_masked_pos"], expected.masked)
    for name in ("valid", "data"):
        of_name = sampler if name == "valid" else smnm.MaskSampler("dispersion", (1, 3, 4), 0.5)
        collate = MaskCollator(of_name, **{name: "y"})
        with pytest.raises(
            KeyError, match=f"{name}='y' must be a key of the batch.* has 'x', 'real'"
        ):
            collate([dataset[i] for i in range(4)])
    pairs = WithSampleIds([(i, row) for i, row in enumerate(valid)], fixed=True)
    pairs = [pairs[i] for i in range(4)]
    _, masked = MaskCollator(sampler, valid=1)(pairs)
    assert_same(masked, expected.masked)
    with pytest.raises(KeyError, match=r"valid=2 must be a key of the batch.* is a list of 2"):
        MaskCollator(sampler, valid=2)(pairs)
    _, contexts, _ = JepaCollator(sampler, valid=1)(pairs)
    assert_same(contexts[0], expected.ids_keep)
    [(_, contexts, _)] = Vjepa2Collator({1: [sampler]}, n_frames=lambda _: 1, valid=1)(pairs)
    assert_same(contexts[0], expected.ids_keep)


def test_generators():
    valid = (torch.arange(24) % 3 > 0).view(2, 3, 4)
    masked = MaskingGenerator((2, 3, 4), 0.75)(5, valid.numpy())
    assert (masked[~valid.flatten()] == 1).all()
    clones = ClonedMasks(smnm.MaskSampler("random", (2, 3, 4), 0.75), 3)(7, valid)
    assert (clones[:, ~valid.flatten()] == 1).all()
    assert (clones.sum(1) == 18).all()
