"""What hypothesis draws arguments from: everything the functions allow, the corners often."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

SEEDS = st.one_of(
    st.sampled_from([0, 1, -1, 2**32, 2**63 - 1, -(2**63)]), st.integers(-(2**63), 2**63 - 1)
)
IDS = st.one_of(
    st.integers(0, 50),
    st.sampled_from([2**62, -(2**62), 2**32 - 1, 2**32, -1]),
    st.integers(-(2**62), 2**62),
)
SIDES = st.sampled_from([1, 2, 3, 4, 5, 7, 8, 9, 13, 14, 16, 17, 31])
#: On a GPU each new grid costs seconds of compiling, and so does each new torus, which is what a
#: sigma makes of a grid: these colors have five.
GPU_GRIDS = [
    (1, 1, 1), (1, 1, 31), (1, 5, 7), (1, 9, 13), (1, 14, 14), (1, 31, 3),
    (2, 1, 1), (3, 5, 7), (4, 16, 13), (5, 9, 4), (8, 14, 14), (11, 3, 17),
]  # fmt: skip
GPU_COLORS_AND_SIGMAS = [
    ("white", None), ("red", None), ("red", 0.6), ("red", (0.4, 0.8)), ("blue", None),
    ("blue", 0.6), ("green", None), ("green", "variant-2"), ("green", (0.4, 1.4)),
    ("green", ((0.3, 1.6), (1.8, 3.0))),
]  # fmt: skip


def examples(n: int) -> settings:
    """Instead of a hundred in the exhaustive tier; in the others in proportion."""
    return settings(max_examples=n * settings.default.max_examples // 100)


def sample_ids(max_size: int = 5):
    return st.lists(IDS, max_size=max_size).map(lambda ids: torch.tensor(ids, dtype=torch.int64))


@st.composite
def grids(draw, max_tokens: int = 2000, flat: bool = False):
    if torch.cuda.is_available():
        few = [g for g in GPU_GRIDS if math.prod(g) <= max_tokens and (g[0] == 1 or not flat)]
        return draw(st.sampled_from(few))
    frames = 1 if flat else draw(st.sampled_from([1, 1, 2, 3, 4, 5, 8, 11]))
    return draw(
        st.tuples(st.just(frames), SIDES, SIDES).filter(lambda g: g[0] * g[1] * g[2] <= max_tokens)
    )


def small_grids(max_side: int = 17):
    """(T, H, W) of few frames."""
    if torch.cuda.is_available():
        return st.sampled_from([(1, 5, 7), (1, 13, 4), (3, 9, 8)])
    side = st.integers(1, max_side)
    return st.tuples(st.integers(1, 3), side, side)


def seeds_in_any_form():
    """An int, or a tensor of one."""
    return st.one_of(
        SEEDS, SEEDS.map(lambda seed: torch.tensor(seed)), SEEDS.map(lambda s: torch.tensor([s]))
    )


def _level(low: float, high: float):
    return st.integers(round(low * 100), round(high * 100)).map(lambda n: n / 100)


def _range(low: float, middle: float, high: float):
    return st.tuples(_level(low, middle), _level(middle, high))


def colors_and_sigmas():
    """(color, sigma): None, presets, numbers, ranges and the mixed pairs of green."""
    if torch.cuda.is_available():
        return st.sampled_from(GPU_COLORS_AND_SIGMAS)
    one = st.one_of(st.none(), _level(0.4, 4), _range(0.4, 2, 4), _range(0.4, 0.5, 0.9))
    sigma1 = st.one_of(_level(0.3, 1.2), _range(0.3, 0.8, 1.6))
    sigma2 = st.one_of(_level(1.9, 6), _range(1.8, 2.2, 6))
    presets = [f"variant-{i}" for i in range(1, 6)] + ["main-text"]
    return st.one_of(
        st.just(("white", None)),
        st.tuples(st.sampled_from(["red", "blue"]), one),
        st.tuples(st.just("green"), st.one_of(st.none(), st.sampled_from(presets))),
        st.tuples(st.just("green"), st.tuples(sigma1, sigma2)),
    )


@st.composite
def counts(draw, n_tokens: int, frames: int = 1):
    """(keyword arguments, n_keep they mean) for masks of ``frames`` equal frames."""
    per_frame = n_tokens // frames
    if draw(st.booleans()):
        n_keep = frames * draw(st.integers(1, per_frame))
        return {"n_keep": n_keep}, n_keep
    near_one = 1 - Fraction(1, per_frame)
    thousandths = draw(
        st.one_of(st.sampled_from([0, 1, 500, 750, 800, 900, 999]), st.integers(0, 999))
    )
    exact = min(Fraction(thousandths, 1000), near_one)
    form = draw(st.sampled_from([float, Decimal, Fraction, np.float32, np.float64]))
    written = exact if form is Fraction or exact == near_one else form(str(thousandths / 1000))
    return {"mask_ratio": written}, frames * int(per_frame * (1 - exact))
