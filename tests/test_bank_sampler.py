"""The stream of masks of a bank of noise."""

import copy

import pytest
import torch

import smnm_kernels as smnm
from smnm_kernels.samplers import stream

GRID = (4, 6, 5)


@pytest.fixture(scope="module")
def bank():
    return smnm.NoiseBank.precompute(3, (7, 9, 9), "green", sigma=(0.5, 1.5), seed=11)


@pytest.fixture(scope="module")
def flat_bank():
    return smnm.NoiseBank.precompute(3, (1, 9, 9), "green", sigma=(0.5, 1.5), seed=11)


def equal(one, other):
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("size", [(7, 9, 9), GRID])
def test_masks_are_the_banks_for_any_split_and_after_a_resume(bank, size):
    bank = bank.resized(size)
    sampler = smnm.BankSampler(bank, GRID, 0.9, seed=5)
    whole = bank.masks(torch.arange(12), GRID, 0.9, seed=5)
    parts = [sampler(n) for n in (5, 0, 3)]
    again = smnm.BankSampler(bank, GRID, n_keep=12, seed=0)
    again.load_state_dict(sampler.state_dict())
    parts.append(again(4))
    for field in range(3):
        assert torch.equal(whole[field], torch.cat([part[field] for part in parts]))
    assert equal(sampler.masks(torch.arange(12)), whole)
    assert set(sampler.state_dict()) == {"seed", "next_id"}
    assert equal(copy.deepcopy(again)(2), again(2))


def test_a_tube_is_one_flat_mask_repeated(flat_bank):
    ids = torch.arange(6)
    tube = smnm.BankSampler(flat_bank, (4, 6, 5), 0.9, tube=True, seed=2).masks(ids)
    flat = flat_bank.masks(ids, (6, 5), 0.9, seed=2)
    assert tube.n_keep == 4 * flat.n_keep
    assert torch.equal(tube.visible.view(6, 4, 30), flat.visible[:, None].expand(6, 4, 30))


def test_the_largest_of_valid_tokens_are_visible(bank):
    ids, valid = (
        torch.arange(8),
        torch.rand(8, 120, generator=torch.Generator().manual_seed(0)) > 0.4,
    )
    sampler = smnm.BankSampler(bank, GRID, n_keep=20)
    made = sampler.masks(ids, valid=valid)
    noise = bank.noise(ids, GRID).flatten(1)
    for row in range(8):
        places = [i for i in range(120) if valid[row, i]]
        best = sorted(places, key=lambda i: (-noise[row, i].item(), i))[:20]
        assert made.ids_keep[row].tolist() == sorted(best)
    everywhere = sampler.masks(ids, valid=torch.ones(8, 120, dtype=torch.bool))
    assert equal(everywhere, sampler.masks(ids))
    with pytest.raises(ValueError, match="at least n_keep=20 tokens of every row, got 3 in row 0"):
        sampler.masks(ids, valid=(torch.arange(120) < 3).expand(8, 120))


def test_a_float_cast_leaves_the_bank_as_it_is(bank):
    model = torch.nn.Sequential(smnm.BankSampler(bank, GRID, 0.9))
    assert model.half()[0].bank.volumes.dtype == torch.float32


def test_what_it_says_of_itself(bank):
    said = repr(smnm.BankSampler(bank, GRID, 0.9))
    for word in ("NoiseBank([3, 7, 9, 9]", "n_keep=12", "tube=False"):
        assert word in said


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda b: smnm.BankSampler(b, (8, 6, 5), 0.9), ValueError, r"grid must fit.*\(8, 6, 5\)"),
        (lambda b: smnm.BankSampler(b, GRID), ValueError, "mask_ratio and n_keep"),
        (lambda b: smnm.BankSampler(b, GRID, n_keep=6, tube=True), ValueError, "multiple of the 4"),
        (lambda b: smnm.BankSampler(b, GRID, 0.9)(2, torch.zeros(2)), TypeError, "data must not"),
        (lambda b: smnm.BankSampler(b, GRID, 0.9).masks([1]), TypeError, "sample_ids must be"),
    ],
)
def test_errors(bank, call, error, words):
    with pytest.raises(error, match=words):
        call(bank)


def test_ranks_share_out_the_stream(bank, monkeypatch):
    whole = smnm.BankSampler(bank, GRID, 0.9, seed=5)(8).visible
    parts = []
    for rank in range(2):
        monkeypatch.setattr(stream, "rank_and_world_size", lambda rank=rank: (rank, 2))
        sampler = smnm.BankSampler(bank, GRID, 0.9, seed=5)
        parts.append([sampler(2).visible, sampler(2).visible])
    in_order = [part for step in zip(*parts, strict=True) for part in step]
    assert torch.equal(torch.cat(in_order), whole)
