"""R-BN's Algorithm 1 from its description alone: plain Python, nothing kept up to date.

At every position each candidate mask counts its visible patches again, from scratch, so that
nothing here can share a mistake with code that keeps running scores.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction

LINES = ((0, 1), (1, 0), (1, 1), (1, -1))  # horizontal, vertical, main diagonal, second diagonal


def score(
    visible: set[int],
    position: int,
    height: int,
    width: int,
    windows: Sequence[int],
    weights: Sequence[Fraction],
) -> Fraction:
    y, x = divmod(position, width)
    total = Fraction(0)
    for window in windows:
        for (dy, dx), weight in zip(LINES, weights, strict=True):
            for step in range(-(window // 2), window // 2 + 1):
                row, column = y + step * dy, x + step * dx
                inside = 0 <= row < height and 0 <= column < width
                if step != 0 and inside and row * width + column in visible:
                    total += weight
    return total


def as_written(weights: Sequence[float]) -> list[Fraction]:
    """0.1 is one tenth, not the double nearest to it."""
    return [Fraction(str(weight)) for weight in weights]


def algorithm_1(
    order: Sequence[int],
    n_candidates: int,
    n_keep: int,
    height: int,
    width: int,
    windows: Sequence[int] = (3, 5),
    weights: Sequence[float] = (0.4, 0.4, 0.1, 0.1),
    choose: Callable[[int, list[int]], int] = lambda step, tied: tied[0],
) -> list[set[int]]:
    """`choose(step, tied)` picks from the tied masks; step counts visits over all sweeps."""
    exact = as_written(weights)
    masks: list[set[int]] = [set() for _ in range(n_candidates)]
    step = 0
    while any(len(mask) < n_keep for mask in masks):
        for position in order:
            scores = {
                k: score(mask, position, height, width, windows, exact)
                for k, mask in enumerate(masks)
                if len(mask) < n_keep and position not in mask
            }
            if scores:
                lowest = min(scores.values())
                tied = [k for k in sorted(scores) if scores[k] == lowest]
                masks[choose(step, tied)].add(position)
            step += 1
    return masks


def mean_score(visible: set[int], height: int, width: int) -> float:
    """What a mask's own visible patches score with the default windows and weights."""
    weights = as_written((0.4, 0.4, 0.1, 0.1))
    scores = [score(visible, p, height, width, (3, 5), weights) for p in visible]
    return float(sum(scores) / len(scores))
