"""The search for the threshold of noise, by itself: any keys, any guess. And where tiles hold
tokens."""

import importlib.util
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples
from testing import require

from smnm_kernels.tables.constants import MAX_FIELD

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROWS, COLUMNS = 8, 32
KEYS = st.one_of(
    st.integers(-MAX_FIELD, MAX_FIELD),
    st.integers(-3, 3),
    st.sampled_from([-MAX_FIELD, MAX_FIELD]),
)


@pytest.fixture(scope="module")
def found():
    """(bound, how many keys reach it), by the kernels' search."""
    require(importlib.util.find_spec("triton"), "Triton")
    from bound_kernel import search

    def found(keys, n_keep, guess, spacing):
        padded = torch.full((ROWS * COLUMNS,), -MAX_FIELD - 2, dtype=torch.int32)
        padded[: len(keys)] = torch.tensor(keys, dtype=torch.int32)
        out = torch.empty(2, dtype=torch.int32, device=DEVICE)
        near = torch.tensor([guess, spacing], device=DEVICE)
        search[(1,)](padded.to(DEVICE), len(keys), n_keep, near, out, ROWS, COLUMNS)
        return out.tolist()

    return found


@examples(150)
@given(
    keys=st.lists(KEYS, min_size=1, max_size=ROWS * COLUMNS),
    guess=st.floats(-1e9, 1e9, width=32),
    spacing=st.floats(0, 1e9, width=32),
    data=st.data(),
)
def test_any_keys_and_guess(found, keys, guess, spacing, data):
    n_keep = data.draw(st.integers(1, len(keys)))
    bound, n_reaching = found(keys, n_keep, guess, spacing)
    assert n_reaching == sum(key >= bound for key in keys) >= n_keep
    if n_reaching > n_keep:
        assert bound == sorted(keys, reverse=True)[n_keep - 1]


@pytest.mark.parametrize("grid", [(8, 14, 14), (16, 14, 14), (3, 5, 7), (1, 64, 8), (1, 9, 30)])
@pytest.mark.parametrize("color", ["white", "green"])
def test_every_token_has_a_place_of_its_own(grid, color):
    from smnm_kernels.triton_kernels.tiles import places, tile_of

    torus = (grid[0] + 8 if grid[0] > 1 else 1, grid[1] + 8, grid[2] + 8)
    chains = 0 if color == "white" else 2
    tile = tile_of(grid, torus, chains)
    n = math.prod(grid)
    made = places(grid, tile, chains)
    assert len(made) == math.prod(tile.tokens) >= n
    assert made[:n].unique().numel() == n
    size = 4 * tile.columns if chains == 0 else math.prod(tile.sides)
    assert 0 <= made.min() <= made.max() < size


def test_pieces_hold_all_rows_and_few_more():
    from smnm_kernels.triton_kernels.tiles import pieces_of_rows

    assert pieces_of_rows(22) == ((0, 16), (16, 8))
    for n in range(1, 200):
        end = 0
        for first, rows in pieces_of_rows(n):
            assert first == end
            assert rows >= 8
            assert rows & (rows - 1) == 0
            end += rows
        assert n <= end < n + 8
