"""Masks from easy to hard: who gets which, the share at each step, and what is refused."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from testing import assert_same

import smnm_kernels as smnm
from smnm_kernels.samplers import stream
from smnm_kernels.schedules import linear

GRID, N_KEEP, SEED = (2, 4, 4), 8, 9
EASY, HARD = {"kind": "random"}, {"kind": "green3d", "sigma": (0.5, 1.5)}


def sampler(share, seed=SEED, **more):
    return smnm.CurriculumSampler(EASY, HARD, GRID, n_keep=N_KEEP, share=share, seed=seed, **more)


def expected(ids, share, seed=SEED):
    """Sample by sample, from the definition: white noise of one value, uniform, says which."""
    rows = []
    for one in ids.tolist():
        chance = smnm.noise(torch.tensor([one]), (1, 1, 1), "white", seed=seed ^ 0x6A09E667F3BCC909)
        is_hard = (chance.item() / 3**0.5 + 1) / 2 < share
        of = smnm.MaskSampler(**(HARD if is_hard else EASY), grid=GRID, n_keep=N_KEEP, seed=seed)
        rows.append(of.masks(torch.tensor([one])))
    return smnm.Masks(*(torch.cat(parts) for parts in zip(*rows, strict=True)))


@examples(100)
@given(
    share=st.floats(0, 1),
    seed=st.integers(0, 2**63 - 1),
    first=st.integers(-(2**62), 2**62),
    n=st.integers(1, 6),
)
def test_each_sample_has_the_mask_of_its_kind(share, seed, first, n):
    ids = torch.arange(first, first + n)
    assert_same(sampler(share, seed).masks(ids), expected(ids, share, seed))


def test_the_ends_are_the_two_kinds():
    ids = torch.arange(200)
    for share, arguments in ((0, EASY), (1, HARD)):
        alone = smnm.MaskSampler(**arguments, grid=GRID, n_keep=N_KEEP, seed=SEED)
        assert_same(sampler(share).masks(ids), alone.masks(ids))


def test_the_share_is_what_the_schedule_says_and_no_sample_turns_back():
    ids, n = torch.arange(4000), 4000
    hard = smnm.MaskSampler(**HARD, grid=GRID, n_keep=N_KEEP, seed=SEED).masks(ids).visible
    scheduled, before = sampler(linear(0.0, 1.0, 8, places=6), every="epoch"), None
    for step in range(9):
        scheduled.set_epoch(step)
        is_hard = (scheduled.masks(ids).visible == hard).all(1)
        share = step / 8
        # Five deviations; the masks of the two kinds are hardly ever equal by chance.
        assert abs(is_hard.sum().item() - share * n) <= 5 * (n * share * (1 - share)) ** 0.5
        assert before is None or not (before & ~is_hard).any()
        before = is_hard


@examples(60)
@given(sizes=st.lists(st.integers(0, 4), max_size=10), stop=st.integers(0, 10))
def test_any_split_and_a_resume_make_the_masks_of_the_step(sizes, stop):
    running, first = sampler(linear(0.0, 1.0, 6, places=6)), 0
    for step, size in enumerate(sizes):
        if step == stop:
            saved = running.state_dict()
            running = sampler(linear(0.0, 1.0, 6, places=6), seed=0)
            running.load_state_dict(saved)
        ids = torch.arange(first, first + size)
        share = round(min(step, 6) / 6, 6)
        wanted = [sampler(share).masks(ids[i : i + 1]) for i in range(size)]
        made = running(size)
        assert made.visible.shape == (size, 32)
        for i, one in enumerate(wanted):
            assert torch.equal(made.ids_keep[i], one.ids_keep[0])
        first += size


def test_ranks_share_out_the_stream(monkeypatch):
    whole, parts = sampler(0.5)(8).visible, []
    for rank in range(2):
        monkeypatch.setattr(stream, "rank_and_world_size", lambda rank=rank: (rank, 2))
        of_rank = sampler(0.5)
        parts.append([of_rank(2).visible, of_rank(2).visible])
    assert torch.equal(torch.cat([p for step in zip(*parts, strict=True) for p in step]), whole)


def test_data_goes_to_the_kind_that_looks_at_it():
    clips = torch.rand(5, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    ids, grid = torch.arange(5), (2, 4, 4)
    mixed = smnm.CurriculumSampler(EASY, {"kind": "motion"}, grid, n_keep=8, share=0.5)
    assert mixed.needs_data
    one = smnm.MaskSampler("random", grid, n_keep=8).masks(ids).visible
    two = smnm.MaskSampler("motion", grid, n_keep=8).masks(ids, clips).visible
    made = mixed.masks(ids, clips).visible
    assert all(torch.equal(made[i], one[i]) or torch.equal(made[i], two[i]) for i in range(5))
    with pytest.raises(TypeError, match="data must be a tensor"):
        mixed.masks(ids)
    with pytest.raises(TypeError, match="data must not be given"):
        sampler(0.5).masks(ids, clips)


def test_tokens_that_are_not_valid_stay_masked_in_any_order():
    valid = torch.ones(4, 32, dtype=torch.bool)
    valid[:, 5:15] = False
    for freq_major in (False, True):
        made = sampler(0.5, freq_major=freq_major).masks(torch.arange(4), valid=valid)
        assert not made.visible[~valid].any()
        assert made.visible.sum(1).tolist() == [N_KEEP] * 4


def test_what_it_says_of_itself():
    assert "'random' to 'green3d', grid=(2, 4, 4), n_keep=8, share=0.5" in repr(sampler(0.5))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"easy": {"kind": "tube"}, "n_keep": None, "mask_ratio": 0.7}, ValueError,
         "n_keep must be the same for both kinds, got 8 of tube and 9 of green3d; give n_keep"),
        ({"easy": HARD}, ValueError, "two kinds must differ, both are green3d"),
        ({"easy": {"kind": "motion"}, "hard": {"kind": "self_guided"}}, ValueError,
         "of motion and self_guided, one looks at the input and the other at features"),
        ({"easy": "random"}, TypeError, "easy must be a dict with kind"),
        ({"easy": {"sigma": 1}}, TypeError, "easy must be a dict with kind"),
        ({"easy": {"kind": "pink"}}, ValueError, "easy: kind must be one of"),
        ({"hard": {"kind": "green3d", "windows": 3}}, TypeError, "hard: green3d masks have no"),
        ({"hard": HARD | {"freq_major": True}}, ValueError, "freq_major must be the same"),
        ({"share": 1.5}, ValueError, r"share must be in \[0, 1\], got 1.5"),
        ({"share": "half"}, TypeError, "share must be a number"),
        ({"share": linear(0.0, 2.0, 4)}, ValueError, "at step 4: share must be in"),
    ],
)  # fmt: skip
def test_what_is_refused(arguments, error, message):
    given = {"easy": EASY, "hard": HARD, "grid": GRID, "n_keep": N_KEEP, "share": 0.5} | arguments
    with pytest.raises(error, match=message):
        smnm.CurriculumSampler(**given)
