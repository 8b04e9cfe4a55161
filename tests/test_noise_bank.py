"""The offline pipeline: precompute, save, load mapped, crop and flip, threshold."""

import itertools

import numpy as np
import pytest
import torch

import smnm_kernels as smnm
from smnm_kernels import reference
from smnm_kernels.noise_bank import _crop_words

GRID = (4, 6, 5)


@pytest.fixture(scope="module")
def bank():
    return smnm.NoiseBank.precompute(3, (7, 9, 9), "green", sigma=(0.5, 1.5), seed=11)


def test_volumes_are_the_noise_of_their_number(bank):
    for m in range(3):
        volume = smnm.noise(torch.tensor([m]), (7, 9, 9), "green", sigma=(0.5, 1.5), seed=11)
        assert torch.equal(bank.volumes[m], volume[0])


def test_crop_words_are_the_reference_words():
    ids = torch.tensor([0, 1, -1, 2**62, -(2**62), 12345678901])
    for seed in (0, -5, 2**63 - 1):
        drawn = torch.stack(_crop_words(ids, torch.tensor(seed)), dim=1)
        for row, sample_id in zip(drawn.tolist(), ids.tolist(), strict=True):
            words = reference.philox(np.array([0, 1]), reference.Purpose.CROP, sample_id, seed)
            assert row == [*words[:, 0].tolist(), int(words[0, 1])]


def test_every_crop_is_a_flipped_window_of_a_volume(bank):
    crops = bank.noise(torch.arange(40), GRID, seed=3)
    seen = set()
    for crop in crops:
        found = [
            (m, *start, flips)
            for m in range(3)
            for start in itertools.product(range(4), range(4), range(5))
            for flips in itertools.product((False, True), repeat=3)
            if torch.equal(crop, _window(bank.volumes[m], start, flips))
        ]
        assert len(found) == 1
        seen.add(found[0])
    assert len(seen) > 35
    assert {place[0] for place in seen} == {0, 1, 2}
    assert {flip for place in seen for flip in place[4]} == {False, True}


def _window(volume, start, flips):
    t, y, x = start
    window = volume[t : t + 4, y : y + 6, x : x + 5]
    return window.flip([axis for axis, flip in enumerate(flips) if flip])


def test_without_flips(bank):
    crop = bank.noise(torch.tensor([5]), GRID, flips=False, seed=3)[0]
    windows = (
        _window(bank.volumes[m], start, (False,) * 3)
        for m in range(3)
        for start in itertools.product(range(4), range(4), range(5))
    )
    assert any(torch.equal(crop, window) for window in windows)


def _on_grid(volume, grid):
    """The definition: between the centres of a volume's cells there are straight lines."""
    volume, out = volume.double(), torch.zeros(grid, dtype=torch.float64)
    for token in itertools.product(*map(range, grid)):
        at = [
            (i + 0.5) * length / side - 0.5
            for i, side, length in zip(token, grid, volume.shape, strict=True)
        ]
        for corner in itertools.product((0, 1), repeat=3):
            share, place = 1.0, []
            for x, after, length in zip(at, corner, volume.shape, strict=True):
                low = int(x // 1)
                share *= (x - low) if after else 1 - (x - low)
                place.append(min(low + after, length - 1))
            out[token] += share * volume[tuple(place)]
    return out


def test_a_resized_bank_has_the_whole_volumes_on_the_grid(bank):
    small = bank.resized(GRID)
    assert (small.volumes.dtype, small.volumes.shape) == (torch.float32, (3, *GRID))
    assert small.origin == bank.origin | {"resized_from": [7, 9, 9]}
    for made, volume in zip(small.volumes, bank.volumes, strict=True):
        assert torch.allclose(made.double(), _on_grid(volume, GRID), atol=1e-6)
        by_torch = torch.nn.functional.interpolate(
            volume[None, None], size=GRID, mode="trilinear", align_corners=False
        )
        assert torch.allclose(made, by_torch[0, 0], atol=1e-5)
    assert torch.equal(bank.resized((7, 9, 9)).volumes, bank.volumes)


def test_samples_of_a_resized_bank_are_flipped_volumes(bank):
    small, seen = bank.resized(GRID), set()
    for row in small.noise(torch.arange(60), GRID, seed=3):
        seen |= {
            (m, flips)
            for m in range(3)
            for flips in itertools.product((False, True), repeat=3)
            if torch.equal(row, _window(small.volumes[m], (0, 0, 0), flips))
        }
    assert len(seen) > 18  # of 24, by chance


def test_neighbours_correlate_after_a_crop_and_not_after_a_resize():
    """Of the paper's volumes at 8 x 14 x 14: at sigma (0.95, 2.2) next tokens correlate 0.70."""
    grid = (8, 14, 14)
    bank = smnm.NoiseBank.precompute(4, (64, 64, 64), "green", sigma=(0.95, 2.2), seed=1)
    crops, wholes = (b.noise(torch.arange(200), grid) for b in (bank, bank.resized(grid)))
    for x, expected in ((crops, 0.70), (wholes, 0.0)):
        for axis in (1, 2, 3):
            side = x.shape[axis]
            near = [x.narrow(axis, start, side - 1).flatten() for start in (0, 1)]
            assert torch.corrcoef(torch.stack(near))[0, 1].item() == pytest.approx(
                expected, abs=0.06
            )


def test_masks_are_the_threshold_of_the_crops_for_any_split(bank):
    ids = torch.tensor([9, -4, 2**62, 7])
    whole = bank.masks(ids, GRID, 0.9, seed=torch.tensor(8))
    assert whole.n_keep == 12
    expected = smnm.threshold(bank.noise(ids, GRID, seed=8), 0.9)
    parts = [bank.masks(part, GRID, 0.9, seed=8) for part in ids.split(1)]
    for field in range(3):
        assert torch.equal(whole[field], expected[field])
        assert torch.equal(whole[field], torch.cat([part[field] for part in parts]))


@pytest.mark.parametrize("mmap", [True, False])
def test_saved_and_loaded(bank, tmp_path, mmap):
    bank.save(tmp_path / "bank.npy")
    loaded = smnm.NoiseBank.load(tmp_path / "bank.npy", mmap=mmap)
    assert torch.equal(loaded.volumes, bank.volumes)
    assert loaded.origin == {"color": "green", "sigma": [0.5, 0.5, 1.5, 1.5], "seed": 11}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bank.json", "bank.npy"]
    assert "seed=11" in repr(loaded)


def test_precomputed_to_disk(bank, tmp_path):
    watched = []

    def progress(volumes):
        watched.extend(volumes)
        return watched

    on_disk = smnm.NoiseBank.precompute(
        3,
        (7, 9, 9),
        sigma=(0.5, 1.5),
        seed=11,
        path=tmp_path / "b.npy",
        progress=progress,
    )
    assert watched == [0, 1, 2]
    assert torch.equal(on_disk.volumes, bank.volumes)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.json", "b.npy"]


def test_two_dimensional_bank():
    bank = smnm.NoiseBank.precompute(2, (1, 20, 20), "blue")
    assert bank.masks(torch.arange(3), (1, 8, 8), 0.75).visible.sum(1).tolist() == [16] * 3


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda b: b.noise(torch.arange(2), (8, 6, 5)), ValueError, "grid.*(7, 9, 9).*(8, 6, 5)"),
        (lambda b: b.noise(torch.arange(2.0), GRID), TypeError, "sample_ids.*int64.*float32"),
        (lambda b: b.resized((7, 9, 10)), ValueError, "grid.*(7, 9, 9).*(7, 9, 10)"),
        (lambda b: b.masks(torch.arange(2), GRID), ValueError, "mask_ratio and n_keep"),
        (lambda b: b.save("bank.pt"), ValueError, r"path.*\.npy.*bank\.pt"),
        (lambda b: smnm.NoiseBank(torch.zeros(3, 4)), ValueError, r"volumes.*\[3, 4\]"),
        (lambda b: smnm.NoiseBank(torch.arange(3)), TypeError, "volumes.*int64"),
        (lambda b: smnm.NoiseBank.precompute(0), ValueError, "n_volumes.*0"),
        (lambda b: smnm.NoiseBank.precompute(1, (8,)), ValueError, "grid"),
        (lambda b: smnm.NoiseBank.precompute(1, color="pink"), ValueError, "color.*pink"),
    ],
)
def test_errors(bank, call, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(").replace(")", r"\)")):
        call(bank)


def test_an_interrupted_precompute_leaves_nothing(tmp_path):
    def interrupted(volumes):
        yield volumes[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        smnm.NoiseBank.precompute(3, (2, 9, 9), path=tmp_path / "b.npy", progress=interrupted)
    assert list(tmp_path.iterdir()) == []
