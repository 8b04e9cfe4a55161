"""A wrong argument raises ValueError or TypeError before any work, and the message names the
argument, what came and what is allowed; the reference says the same."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

import smnm_kernels as smnm

IDS = torch.arange(2)
ORDER = torch.arange(16)[None]
RIGHT = {
    "noise": {"sample_ids": IDS, "grid": (2, 4, 4), "color": "green"},
    "noise_masks": {"sample_ids": IDS, "grid": (2, 4, 4), "color": "green", "mask_ratio": 0.5},
    "threshold": {"noise": torch.zeros(2, 16), "mask_ratio": 0.5},
    "rbn_masks": {"sample_ids": IDS, "grid": (1, 4, 4), "mask_ratio": 0.5},
    "rbn_bank": {"order": ORDER, "n_candidates": 2, "n_keep": 4, "grid": (1, 4, 4)},
}
WITH_IDS = ["noise", "noise_masks", "rbn_masks"]
WITH_GRID = [*WITH_IDS, "rbn_bank"]
WITH_RATIO = ["noise_masks", "threshold", "rbn_masks"]
NOISES = ["noise", "noise_masks"]
BANKS = ["rbn_masks", "rbn_bank"]

#: (functions, wrong arguments, the argument to be named, what else the message holds)
WRONG = [
    (WITH_IDS, {"sample_ids": [0, 1]}, "sample_ids", ["list", "int64"]),
    (WITH_IDS, {"sample_ids": None}, "sample_ids", ["NoneType", "int64"]),
    (WITH_IDS, {"sample_ids": np.arange(2)}, "sample_ids", ["ndarray", "int64"]),
    (WITH_IDS, {"sample_ids": IDS.int()}, "sample_ids", ["int32", "int64"]),
    (WITH_IDS, {"sample_ids": IDS.float()}, "sample_ids", ["float32", "int64"]),
    (WITH_IDS, {"sample_ids": IDS[None]}, "sample_ids", ["[1, 2]", "[B]"]),
    (WITH_IDS, {"sample_ids": IDS[0]}, "sample_ids", ["[]", "[B]"]),
    (WITH_GRID, {"grid": (16,)}, "grid", ["(16,)", "(T, H, W)", "(H, W)"]),
    (WITH_GRID, {"grid": (4, 0)}, "grid", ["(4, 0)", "positive"]),
    (WITH_GRID, {"grid": (1, 2, 4, 2)}, "grid", ["(1, 2, 4, 2)", "(T, H, W)"]),
    (WITH_GRID, {"grid": (1, 0, 4)}, "grid", ["(1, 0, 4)", "positive"]),
    (WITH_GRID, {"grid": (1, -4, -4)}, "grid", ["(1, -4, -4)", "positive"]),
    (WITH_GRID, {"grid": (1, 4.0, 4)}, "grid", ["4.0", "ints"]),
    (WITH_GRID, {"grid": (True, 4, 4)}, "grid", ["True", "ints"]),
    (WITH_GRID, {"grid": 16}, "grid", ["16", "(T, H, W)"]),
    (WITH_GRID, {"grid": None}, "grid", ["None", "(T, H, W)"]),
    (WITH_GRID, {"grid": "144"}, "grid", ["'144'", "(T, H, W)"]),
    (WITH_GRID, {"grid": (2**11, 2**11, 2**11)}, "grid", ["2048", str(2**30)]),
    (WITH_GRID, {"seed": 1.5}, "seed", ["1.5", "int"]),
    (WITH_GRID, {"seed": None}, "seed", ["None", "int"]),
    (WITH_GRID, {"seed": True}, "seed", ["True", "int"]),
    (WITH_GRID, {"seed": 2**63}, "seed", [str(2**63), "2**63"]),
    (WITH_GRID, {"seed": -(2**63) - 1}, "seed", [str(-(2**63) - 1), "2**63"]),
    (WITH_GRID, {"seed": torch.tensor([1, 2])}, "seed", ["[2]", "one-element"]),
    (WITH_GRID, {"seed": torch.tensor(1.0)}, "seed", ["float32", "int64"]),
    (
        WITH_GRID,
        {"seed": torch.zeros(1, dtype=torch.int64, device="meta")},
        "seed",
        ["meta", "cpu"],
    ),
    (WITH_RATIO, {"mask_ratio": 1}, "mask_ratio", ["1", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": 1.0}, "mask_ratio", ["1.0", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": -0.1}, "mask_ratio", ["-0.1", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": float("nan")}, "mask_ratio", ["nan", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": float("inf")}, "mask_ratio", ["inf", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": "0.5"}, "mask_ratio", ["'0.5'", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": True}, "mask_ratio", ["True", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": torch.tensor(0.5)}, "mask_ratio", ["tensor", "[0, 1)"]),
    (WITH_RATIO, {"mask_ratio": 0.99}, "mask_ratio", ["0.99", "at most "]),
    (WITH_RATIO, {"mask_ratio": None}, "mask_ratio and n_keep", ["exactly one", "neither"]),
    (WITH_RATIO, {"n_keep": 4}, "mask_ratio and n_keep", ["exactly one", "0.5", "4"]),
    (WITH_RATIO, {"mask_ratio": None, "n_keep": 0}, "n_keep", ["0", "[1, "]),
    (WITH_RATIO, {"mask_ratio": None, "n_keep": -3}, "n_keep", ["-3", "[1, "]),
    (WITH_RATIO, {"mask_ratio": None, "n_keep": 33}, "n_keep", ["33", "[1, "]),
    (WITH_RATIO, {"mask_ratio": None, "n_keep": 4.0}, "n_keep", ["4.0", "int"]),
    (WITH_RATIO, {"mask_ratio": None, "n_keep": True}, "n_keep", ["True", "int"]),
    (["rbn_bank"], {"n_keep": 0}, "n_keep", ["0", "[1, 16]"]),
    (["rbn_bank"], {"n_keep": 17}, "n_keep", ["17", "[1, 16]"]),
    (["noise_masks"], {"tube": True, "mask_ratio": 0.95}, "mask_ratio", ["0.95", "16"]),
    (["noise_masks"], {"tube": True, "mask_ratio": None, "n_keep": 3}, "n_keep", ["3", "multiple"]),
    (["noise_masks"], {"tube": 1}, "tube", ["1", "True or False"]),
    (NOISES, {"color": "pink"}, "color", ["'pink'", "white, red, blue, green"]),
    (NOISES, {"color": None}, "color", ["None", "white, red, blue, green"]),
    (NOISES, {"color": []}, "color", ["[]", "white, red, blue, green"]),
    (NOISES, {"color": "white", "sigma": 1.0}, "sigma", ["1.0", "None"]),
    (NOISES, {"color": "red", "sigma": 0}, "sigma", ["0", "range"]),
    (NOISES, {"color": "red", "sigma": -1.0}, "sigma", ["-1.0", "range"]),
    (NOISES, {"color": "red", "sigma": 100}, "sigma", ["100", "[0.2, 8]"]),
    (NOISES, {"color": "red", "sigma": (2, 1)}, "sigma", ["(2, 1)", "low <= high"]),
    (NOISES, {"color": "blue", "sigma": (1, 2, 3)}, "sigma", ["(1, 2, 3)", "(low, high)"]),
    (NOISES, {"color": "blue", "sigma": "variant-5"}, "sigma", ["'variant-5'", "(low, high)"]),
    (NOISES, {"color": "blue", "sigma": float("nan")}, "sigma", ["nan", "low <= high"]),
    (NOISES, {"color": "blue", "sigma": True}, "sigma", ["True", "number"]),
    (NOISES, {"color": "blue", "sigma": 0.2}, "sigma", ["0.2", "low <= high"]),
    (NOISES, {"sigma": 1.5}, "sigma", ["1.5", "pair"]),
    (NOISES, {"sigma": "variant-6"}, "sigma", ["'variant-6'", "variant-5", "main-text"]),
    (NOISES, {"sigma": (2, 2)}, "sigma", ["(2, 2)", "sigma1 < sigma2"]),
    (NOISES, {"sigma": (2, 1)}, "sigma", ["(2, 1)", "sigma1 < sigma2"]),
    (NOISES, {"sigma": ((2, 3), (1, 2))}, "sigma", ["((2, 3), (1, 2))", "sigma1 < sigma2"]),
    (NOISES, {"sigma": ((2, 1), 3)}, "sigma", ["(2, 1)", "low <= high"]),
    (NOISES, {"sigma": (1, "2")}, "sigma", ["'2'", "pair"]),
    (NOISES, {"sigma": (1.4, 1.401)}, "sigma", ["1.401", "sigma1 <= 0.9"]),
    (BANKS, {"grid": (2, 4, 2)}, "grid", ["(2, 4, 2)", "(1, H, W)"]),
    (BANKS, {"windows": (3, -5)}, "windows", ["(3, -5)", "odd positive"]),
    (BANKS, {"windows": (4,)}, "windows", ["(4,)", "odd positive"]),
    (BANKS, {"windows": (0,)}, "windows", ["(0,)", "odd positive"]),
    (BANKS, {"windows": ()}, "windows", ["()", "non-empty"]),
    (BANKS, {"windows": (3.0,)}, "windows", ["3.0", "ints"]),
    (BANKS, {"windows": 3}, "windows", ["3", "sequence"]),
    (BANKS, {"weights": (0.4, 0.4, 0.1)}, "weights", ["(0.4, 0.4, 0.1)", "four"]),
    (BANKS, {"weights": 0.4}, "weights", ["0.4", "four"]),
    (BANKS, {"weights": (0.4, 0.4, 0.1, 0.1005)}, "weights", ["0.1005", "three places"]),
    (BANKS, {"weights": (0.4, 0.4, 0.1, 1 / 3)}, "weights", ["0.3333", "three places"]),
    (BANKS, {"weights": (0.4, 0.4, 0.1, -0.1)}, "weights", ["-0.1", "non-negative"]),
    (BANKS, {"weights": (0.4, 0.4, 0.1, float("nan"))}, "weights", ["nan", "three places"]),
    (BANKS, {"weights": (0.4, 0.4, 0.1, "a")}, "weights", ["'a'", "decimals"]),
    (BANKS, {"weights": (1e9, 0, 0, 0)}, "weights", ["1000000000.0", "at most"]),
    (BANKS, {"tie_break": "last"}, "tie_break", ["'last'", "first, random"]),
    (BANKS, {"tie_break": None}, "tie_break", ["None", "first, random"]),
    (BANKS, {"n_candidates": 0}, "n_candidates", ["0", "[1, "]),
    (BANKS, {"n_candidates": -1}, "n_candidates", ["-1", "[1, "]),
    (BANKS, {"n_candidates": 10**6}, "n_candidates", ["1000000", "[1, "]),
    (BANKS, {"n_candidates": 2.0}, "n_candidates", ["2.0", "int"]),
    (BANKS, {"n_candidates": True}, "n_candidates", ["True", "int"]),
    (["rbn_bank"], {"order": [list(range(16))]}, "order", ["list", "permutation"]),
    (["rbn_bank"], {"order": ORDER.float()}, "order", ["float32", "integer"]),
    (["rbn_bank"], {"order": ORDER.bool()}, "order", ["bool", "integer"]),
    (["rbn_bank"], {"order": ORDER[0]}, "order", ["[16]", "[G, 16]"]),
    (["rbn_bank"], {"order": ORDER[:, :15]}, "order", ["[1, 15]", "[G, 16]"]),
    (["rbn_bank"], {"order": ORDER + 1}, "order", ["row 0", "permutation"]),
    (["rbn_bank"], {"order": torch.cat([ORDER, ORDER * 0])}, "order", ["row 1", "permutation"]),
    (["rbn_bank"], {"order": ORDER - 2 * ORDER}, "order", ["row 0", "permutation"]),
    (["threshold"], {"noise": [[1.0, 2.0]]}, "noise", ["list", "floating"]),
    (
        ["threshold"],
        {"noise": torch.zeros(2, 16, dtype=torch.int64)},
        "noise",
        ["int64", "floating"],
    ),
    (["threshold"], {"noise": torch.zeros(2, 16) > 1}, "noise", ["bool", "floating"]),
    (["threshold"], {"noise": torch.zeros(16)}, "noise", ["[16]", "[B, N]"]),
    (["threshold"], {"noise": torch.zeros(2, 0, 4)}, "noise", ["[2, 0, 4]", "[B, N]"]),
    (["noise_masks", "rbn_masks"], {"freq_major": "no"}, "freq_major", ["'no'", "True or False"]),
    (BANKS, {"windows": None}, "windows", ["None"]),
    (BANKS, {"windows": 3.0}, "windows", ["3.0"]),
    (BANKS, {"windows": (2**28 - 1,) * 2, "weights": (0,) * 4}, "windows", ["268435456 together"]),
    (BANKS, {"weights": None}, "weights", ["None"]),
    (BANKS, {"weights": (1e308,) * 4}, "weights", ["1e+308"]),
    (["rbn_bank"], {"n_candidates": None}, "n_candidates", ["None", "int"]),
    (sorted(RIGHT.keys() - {"threshold", "rbn_bank"}), {"grid": {1, 4, 5}}, "grid", ["three"]),
]
TABLE = [
    pytest.param(function, *case, id=f"{function}-{'-'.join(case[0])}-{i}")
    for i, (functions, *case) in enumerate(WRONG)
    for function in functions
]


@pytest.mark.parametrize(("function", "wrong", "name", "parts"), TABLE)
def test_message_names_the_argument_what_came_and_what_is_allowed(function, wrong, name, parts):
    for module in (smnm, smnm.reference):
        with pytest.raises((ValueError, TypeError)) as error:
            getattr(module, function)(**RIGHT[function] | wrong)
        message = str(error.value)
        for part in (name, *parts):
            assert part in message


@pytest.mark.parametrize("function", RIGHT)
def test_the_right_arguments_are_right(function):
    """Else every row of the table above could fail for another reason."""
    for module in (smnm, smnm.reference):
        getattr(module, function)(**RIGHT[function])


class Sides(Sequence):
    """Prints as an address, which another one may have later."""

    def __init__(self, *sides):
        self.sides = sides

    def __len__(self):
        return len(self.sides)

    def __getitem__(self, i):
        return self.sides[i]

    __repr__ = object.__repr__


def test_arguments_are_only_taken_for_others_that_are_the_same():
    """The functions remember what they made of arguments."""

    def n_tokens(grid, **more):
        return smnm.noise_masks(IDS, grid, "white", n_keep=2, **more).visible.shape[1]

    assert [n_tokens(Sides(1, 4, n)) for n in range(5, 12)] == [4 * n for n in range(5, 12)]
    sides = memoryview(bytearray([1, 4, 4]))
    assert n_tokens(sides) == 16
    sides[1] = 8
    assert n_tokens(sides) == 32
    assert n_tokens((1, 4, 4)) == n_tokens([1, 4, 4]) == 16
    for wrong in ((1.0, 4, 4), (True, 4, 4), "144"):
        with pytest.raises(TypeError, match="grid"):
            n_tokens(wrong)
    for yes in (1, 1.0, np.True_, "True"):
        assert n_tokens((1, 4, 4), tube=True) == 16
        with pytest.raises(TypeError, match="tube"):
            n_tokens((1, 4, 4), tube=yes)


@pytest.mark.parametrize("sides", [(16, 8), (12, 6)])
def test_symbols_are_not_remembered(sides):
    def masked(x):
        grid = (1, x.shape[0], x.shape[1])
        return smnm.noise_masks(torch.arange(2), grid, "white", n_keep=2).visible

    graph = make_fx(masked, tracing_mode="symbolic")(torch.zeros(sides))
    assert graph(torch.zeros(sides)).shape == (2, sides[0] * sides[1])


def test_an_empty_batch_is_no_excuse():
    for wrong in ({"mask_ratio": 1.5}, {"color": "pink"}, {"grid": (0, 1, 1)}, {"sigma": (2, 1)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            smnm.noise_masks(**RIGHT["noise_masks"] | {"sample_ids": IDS[:0]} | wrong)
