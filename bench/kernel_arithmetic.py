"""What a sample's mask needs, whichever instructions make it: words, multiply-adds and bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import torch

from smnm_kernels import reference
from smnm_kernels.tables.constants import TAP_SHIFT, TAP_UNIT
from smnm_kernels.tables.noise import NoiseTable, noise_table

SEED = 0


def of_noise(
    ids: torch.Tensor, grid: tuple, color: str, sigma: tuple, n_keep: int, *_: object
) -> dict:
    """Text by phase, the mean over the samples. A pass reads and writes each value once."""
    n = math.prod(grid)
    needs = {"threshold": keys_read(ids, grid, color, sigma, n_keep)}
    needs["writing"] = moved(n, n + 8 * (n + n_keep))
    if color == "white":
        return {"words": words(n), "white values": moved(4 * n, 4 * n)} | needs
    table = noise_table(grid, color, sigma)
    (pt, ph, pw), (_, gh, gw) = table.torus, grid
    n_white = 8 * (-(-pt // 8) * ph * pw if pt > 1 else -(-ph // 8) * pw)
    taps = [taps_of_sample(table, int(sample_id)) for sample_id in ids]
    n_chains = mean(len(chains) for chains in taps)
    along = [mean(sum(chain[axis] for chain in chains) for chains in taps) for axis in range(3)]
    after_w, after_h = pt * ph * gw, pt * gh * gw
    last = 4 * n * n_chains
    needs |= {
        "words": words(n_white // 2),
        "lookups": f"{n_white:,} quantiles; {moved(4 * n_white // 2, 2 * n_white)}",
        "pass along w": products(after_w * along[2], 2 * pt * ph * pw, 2 * after_w * n_chains),
        "pass along h": products(
            after_h * along[1], 2 * after_w * n_chains, last if pt == 1 else 2 * after_h * n_chains
        ),
        "difference": f"{number(n * (n_chains - 1))} subtractions; {moved(last, 4 * n)}",
    }
    if pt > 1:
        needs["pass along t"] = products(n * along[0], 2 * after_h * n_chains, last)
    return needs


def of_rbn(ids: torch.Tensor, grid: tuple, n_keep: int, k: int, windows: tuple, *_: object) -> dict:
    """Text by phase, of a sample: a bank has ``k``."""
    n = math.prod(grid)
    lines = 8 * (max(windows) // 2)
    return {
        "words": words(n / k),
        "sort": f"{number(n / k)} words, by size",
        "sweep": f"{number(n / k)} visits; {number(n_keep * lines)} scores raised",
        "writing": moved(n, n + 8 * (n + n_keep)),
    }


def taps_of_sample(table: NoiseTable, sample_id: int) -> list[list[int]]:
    """How many taps of each chain are not zero, along t, h and w."""
    drawn = int(reference.words(4, reference.Purpose.SIGMA, sample_id, SEED)[0])
    pair = table.pairs[drawn * len(table.pairs) >> 32].tolist()
    starts = np.cumsum([0, *table.torus])
    last_pass = 0 if table.torus[0] > 1 else 1
    counts = []
    for level, gain in ((pair[0], TAP_UNIT), (pair[1], pair[2])):
        if level < 0:
            continue
        rows = [table.taps[level, a:b].numpy().astype(int) for a, b in pairwise(starts)]
        rows[last_pass] = (rows[last_pass] * gain + TAP_UNIT // 2) >> TAP_SHIFT
        counts.append([int(np.count_nonzero(row)) for row in rows])
    return counts


def keys_read(ids: torch.Tensor, grid: tuple, color: str, sigma: tuple, n_keep: int) -> str:
    """The interval of integers that holds the n_keep-th largest is halved until it holds one."""
    noise = reference.noise_kernel(ids, None, SEED, grid, color, sigma).flatten(1).numpy()
    n, rounds = noise.shape[1], []
    for row in noise.astype(np.float64):
        # Integers again: multiples of the smallest difference.
        values = np.unique(row)
        keys = np.rint(row / np.diff(values).min()).astype(np.int64)
        low, high, at_least, made = keys.min(), keys.max(), n, 0
        while low < high and at_least != n_keep:
            middle = (low + high + 1) // 2
            found, made = int((keys >= middle).sum()), made + 1
            if found >= n_keep:
                low, at_least = middle, found
            else:
                high = middle - 1
        rounds.append(made)
    return f"{number(n)} keys, read {number(2 + mean(rounds))} times"


def words(n: float) -> str:
    return f"{number(n)} words"


def products(n: float, read: float, written: float) -> str:
    return f"{number(n)} multiply-adds; {moved(read, written)}"


def moved(read: float, written: float) -> str:
    return f"{number(read)} bytes read, {number(written)} written"


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) or value >= 100 else f"{value:.1f}"
