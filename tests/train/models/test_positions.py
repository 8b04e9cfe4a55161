"""Position codes against the formulas, value by value, and that no two places share one."""

import math
from typing import get_args

import pytest

from smnm_kernels.train.models.positions import (
    POSITIONS,
    Positions,
    axes,
    columns_rows,
    flat,
    flat_columns,
    position_codes,
    rows_columns,
    rows_columns_transposed,
)

LENGTHS = [(8, 14, 14), (1, 64, 8), (8, 6, 6), (1, 1, 1), (1, 5, 3)]


def test_flat_is_videomaes_table():
    grid, dim = (2, 3, 4), 12
    codes = flat(grid, dim)
    for token in range(24):
        for j in range(dim):
            angle = token / 10000 ** (2 * (j // 2) / dim)
            expected = math.cos(angle) if j % 2 else math.sin(angle)
            assert codes[token, j].item() == pytest.approx(expected, abs=1e-6)


def test_flat_columns_is_msm_maes_table_of_the_picture_with_time_to_the_right():
    codes, theirs = flat_columns((1, 4, 3), 8), flat((1, 3, 4), 8)
    for time in range(4):
        for band in range(3):
            assert (codes[time * 3 + band] == theirs[band * 4 + time]).all()


def place_code(row, column, dim):
    """sines and cosines of the column, then of the row"""
    frequencies = [10000 ** (-i / (dim / 4)) for i in range(dim // 4)]
    return [f(p * w) for p in (column, row) for f in (math.sin, math.cos) for w in frequencies]


@pytest.mark.parametrize("grid", [(1, 5, 3), (1, 3, 3), (1, 64, 8)])
def test_rows_columns_is_maes_table(grid):
    codes = rows_columns(grid, 16)
    expected = [place_code(y, x, 16) for y in range(grid[1]) for x in range(grid[2])]
    assert codes.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


def test_audiomaes_table_is_made_for_the_other_orientation():
    codes = rows_columns_transposed((1, 64, 8), 16)
    expected = [place_code(i // 64, i % 64, 16) for i in range(512)]
    assert codes.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]
    proper = rows_columns((1, 64, 8), 16)
    assert (codes == proper).all(1).sum() == 8


def test_cav_maes_table_of_sound_is_of_the_picture_with_time_to_the_right():
    codes = columns_rows((1, 64, 8), 16)
    # row = band, column = time
    expected = [place_code(band, time, 16) for time in range(64) for band in range(8)]
    assert codes.tolist() == [pytest.approx(row, abs=1e-6) for row in expected]


@pytest.mark.parametrize("dim", [128, 192])
@pytest.mark.parametrize("grid", LENGTHS)
@pytest.mark.parametrize("kind", [kind for kind in POSITIONS if kind != "given"])
def test_every_place_has_a_code_of_its_own(kind, grid, dim):
    if "rows" in kind and grid[0] > 1:
        with pytest.raises(ValueError, match=r"grid must be \(1, H, W\) for these positions"):
            POSITIONS[kind](grid, dim)
        return
    codes = POSITIONS[kind](grid, dim)
    assert codes.shape == (math.prod(grid), dim)
    assert len(codes.unique(dim=0)) == math.prod(grid)


def test_the_class_token_has_zeros():
    codes = position_codes("rows_columns", (1, 5, 3), 16, class_token=True)
    assert codes.shape == (16, 16)
    assert not codes[0].any()
    assert (codes[1:] == rows_columns((1, 5, 3), 16)).all()


def test_widths_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="dim must be a multiple of 2 for these positions, got 7"):
        flat((1, 2, 2), 7)
    with pytest.raises(ValueError, match="dim must be a multiple of 4 for these positions, got 6"):
        rows_columns((1, 2, 2), 6)
    with pytest.raises(ValueError, match=r"dim must be at least 6 for grid \(2, 2, 2\), got 4"):
        axes((2, 2, 2), 4)


def test_settings_name_what_there_is():
    assert set(get_args(Positions)) == set(POSITIONS)
