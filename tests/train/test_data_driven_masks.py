"""A kind of mask that looks at the input is given what the model is given."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from clips import pretrain, rows

from smnm_kernels import Masks, kinds, ops
from smnm_kernels.arguments import parse_grid, parse_n_keep

SEEN = []


@dataclass(frozen=True)
class BrightestKind(kinds.Kind):
    """The patches of 16 x 16 pixels with the largest sums are visible."""

    grid: tuple[int, int, int]
    n_keep: int
    freq_major: bool = False
    needs_data: ClassVar[bool] = True
    name = "brightest"
    repeats_over_time = False

    @staticmethod
    def parse(grid, mask_ratio=None, *, n_keep=None):
        sides = parse_grid(grid)
        return BrightestKind(sides, parse_n_keep(math.prod(sides), mask_ratio, n_keep))

    def _draw_row_major(self, sample_ids, seed, data):
        SEEN.append(data)
        _, height, width = self.grid
        sums = data.unflatten(-2, (height, 16)).unflatten(-1, (width, 16)).sum((1, 2, 4, 6))
        return Masks(*ops.threshold(sums.flatten(1).double(), self.n_keep))


def test_the_trainer_gives_it_the_normalised_input(images, tmp_path, monkeypatch):
    monkeypatch.setitem(kinds.KINDS, "brightest", BrightestKind.parse)
    SEEN.clear()
    out = tmp_path / "run"
    assert (
        pretrain(images, "--out", out, "--steps", 2, "--mask", "brightest", modality="image") == 0
    )
    assert len(rows(out)) == 2
    *steps, picture = SEEN
    assert [data.shape for data in steps] == [torch.Size([2, 3, 1, 96, 96])] * 2
    assert picture.shape == (3, 3, 1, 96, 96)
    for data in SEEN:
        assert data.dtype == torch.float32
        assert data.min() < 0 < data.max()


def test_the_trainer_masks_whole_sounds(sounds, tmp_path):
    out = tmp_path / "run"
    assert (
        pretrain(
            sounds, "--out", out, "--steps", 2, "--mask", "activity", "--mask-ratio", 0.4,
            modality="audio",
        )
        == 0
    )  # fmt: skip
    assert len(rows(out)) == 2
    assert all(math.isfinite(row["loss"]) for row in rows(out))
