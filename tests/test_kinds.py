"""Kinds as objects, and what one that looks at the input gets on every way there is.

The kind here is what CONTRIBUTING says a new one is: a class, and a line of KINDS.
"""

import inspect
import math
import pickle
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels import kinds, ops, schedules
from smnm_kernels.arguments import Seed, parse_grid, parse_n_keep, parse_once
from smnm_kernels.loading import MaskCollator, WithSampleIds

GRID = (1, 3, 4)


@dataclass(frozen=True)
class DarkestKind(kinds.Kind):
    """The n_keep tokens of the largest value of the input, float [B, N], are visible."""

    grid: tuple[int, int, int]
    n_keep: int
    freq_major: bool
    needs_data: ClassVar[bool] = True

    @staticmethod
    @parse_once
    def parse(grid, mask_ratio=None, *, n_keep=None, freq_major=False):
        sides = parse_grid(grid)
        return DarkestKind(sides, parse_n_keep(math.prod(sides), mask_ratio, n_keep), freq_major)

    @property
    def name(self):
        return "darkest"

    @property
    def repeats_over_time(self):
        return False

    def _draw_row_major(self, sample_ids, seed, data, valid):
        return smnm.Masks(*ops.threshold(data.double(), self.n_keep))


@pytest.fixture(autouse=True)
def darkest(monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "darkest", DarkestKind.parse)


@pytest.fixture
def data():
    return torch.rand(5, 12, generator=torch.Generator().manual_seed(0))


def expected(data):
    return smnm.threshold(data.double(), 0.75)


def test_every_kind_knows_its_name_and_is_equal_to_its_like():
    for name in kinds.KINDS:
        made = kinds.make_kind(name, (1, 8, 8), 0.75)
        assert made.name == name
        assert made.grid == (1, 8, 8)
        assert made.n_keep == 16
        again = kinds.make_kind(name, [8, 8], n_keep=16)
        assert made == again
        assert hash(made) == hash(again)
        assert pickle.loads(pickle.dumps(made)) == made


def test_data_comes_to_the_kind(data):
    sampler = smnm.MaskSampler("darkest", GRID, 0.75)
    assert sampler.needs_data
    assert_same(tuple(sampler(5, data)), tuple(expected(data)))
    assert int(sampler.next_id) == 5
    ids = torch.arange(3)
    assert_same(tuple(sampler.masks(ids, data[:3])), tuple(expected(data[:3])))
    ordered = smnm.MaskSampler("darkest", GRID, 0.75, freq_major=True)
    assert_same(tuple(ordered(5, data)), tuple(expected(data).freq_major(GRID)))


def test_data_comes_through_a_schedule(data):
    sampler = smnm.ScheduledSampler(schedules.stages({0: "darkest", 1: "random"}), GRID, 0.75)
    assert_same(tuple(sampler(5, data)), tuple(expected(data)))
    with pytest.raises(TypeError, match="data must not be given: random masks"):
        sampler(5, data)


def test_data_comes_to_each_modality(data):
    sampler = smnm.AudioVideoSampler(
        {"kind": "green3d", "grid": (2, 3, 4), "mask_ratio": 0.75},
        {"kind": "darkest", "grid": GRID, "mask_ratio": 0.75},
    )
    assert_same(tuple(sampler(5, {"audio": data}).audio), tuple(expected(data)))
    with pytest.raises(TypeError, match="green3d masks do not depend on the input"):
        sampler(5, {"audio": data, "video": data})
    with pytest.raises(TypeError, match='"video", "audio" or both, got Tensor'):
        sampler(5, data)


def test_compiled_with_data(data):
    torch._dynamo.reset()
    sampler = smnm.MaskSampler("darkest", GRID, 0.75)
    compiled = torch.compile(sampler, fullgraph=True, backend="aot_eager")
    assert_same(tuple(compiled(5, data)), tuple(expected(data)))


def test_a_collator_finds_the_data(data):
    dataset = WithSampleIds([{"x": row} for row in data], fixed=True)
    sampler = smnm.MaskSampler("darkest", GRID, 0.75)
    for where in ("x", lambda batch: batch["x"]):
        collate = MaskCollator(sampler, data=where)
        batch = collate([dataset[i] for i in range(5)])
        assert torch.equal(batch["bool_masked_pos"], expected(data).masked)
    with pytest.raises(ValueError, match=r"data must be given for MaskSampler.*darkest"):
        MaskCollator(sampler)
    with pytest.raises(ValueError, match=r"data must not be given for MaskSampler.*random"):
        MaskCollator(smnm.MaskSampler("random", GRID, 0.75), data="x")


def test_wrong_data_is_named(data):
    sampler = smnm.MaskSampler("darkest", GRID, 0.75)
    for call in (lambda: sampler(5), lambda: sampler.masks(torch.arange(5))):
        with pytest.raises(TypeError, match=r"data must be a tensor: darkest masks.*NoneType"):
            call()
    with pytest.raises(ValueError, match=r"data must have a row for each of the 4.*\[5, 12\]"):
        sampler(4, data)


@pytest.mark.parametrize("kind", ["green3d", "tube", "rbn", "block"])
def test_a_kind_that_needs_no_data_refuses_it_by_name(kind, data):
    sampler = smnm.MaskSampler(kind, GRID, 0.5)
    assert not sampler.needs_data
    for call in (lambda: sampler(5, data), lambda: sampler.masks(torch.arange(5), data)):
        with pytest.raises(TypeError, match=f"data must not be given: {kind} masks.*got Tensor"):
            call()


def test_a_seed_is_a_tensor_or_a_value():
    ids, seed = torch.arange(2), torch.tensor(7)
    assert Seed.beside(ids, seed) == Seed(seed, 0)
    assert Seed.beside(torch.arange(2, device="meta"), seed) == Seed(None, 7)
    assert (Seed(None, 5) ^ 3) == Seed(None, 6)
    assert int((Seed(seed, 0) ^ 3).tensor) == 4


@pytest.mark.parametrize(
    "name",
    [
        "noise", "threshold", "noise_masks", "rbn_masks", "rbn_bank", "baseline_masks",
        "activity_masks", "activity_segments",
    ],
)  # fmt: skip
def test_the_definition_has_the_signature_of_the_function(name):
    function, reference = (getattr(module, name) for module in (smnm, smnm.reference))
    assert inspect.signature(function) == inspect.signature(reference)


def test_kinds_have_the_defaults_of_the_functions():
    for parse, function in (
        (kinds.NoiseKind.parse, smnm.noise_masks),
        (kinds.RbnKind.parse, smnm.rbn_masks),
        (kinds.InverseBlockKind.parse, smnm.baseline_masks),
    ):
        of_function = inspect.signature(function).parameters
        for name, parameter in inspect.signature(parse).parameters.items():
            assert parameter.default == of_function[name].default, name


def test_slips_are_named(data):
    with pytest.raises(TypeError, match=r"got a tensor of shape \[5, 12\]: call sampler\(len\(x\)"):
        smnm.MaskSampler("random", GRID, 0.5)(data)
    with pytest.raises(
        ValueError, match=r"\(T, H, W\), or two \(H, W\) for one frame, .*got 4 values"
    ):
        smnm.MaskSampler("random", (1, 2, 3, 4), 0.5)
    for no_view in ("count", "from_masked", "nonsense"):
        with pytest.raises(
            ValueError, match="view must be None, a function or one of data2vec_masked"
        ):
            MaskCollator(smnm.MaskSampler("random", GRID, 0.5), view=no_view)
