"""Masks of structures, in loops.

A structure gives every place of the grid a whole number, its *mark*. Visible are the tokens with
the largest marks; of equal marks, those with the largest random word, and of equal words the first.
So counts are exact: where a structure leaves too many patches visible, some are masked at random,
and where it leaves too few, others are added at random.

Structures that are repeated over T have marks and random words for the places of one frame. Tokens
that are not valid come after all others.

A structure draws its own random numbers, of 22 bits, with another seed than the words that tokens
are compared by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.kinds.multi_block import MultiBlockKind
from smnm_kernels.kinds.structures import (
    FramesKind,
    InverseBlockKind,
    LatticeKind,
    StructureKind,
    TimeFrequencyKind,
)
from smnm_kernels.masks import Masks
from smnm_kernels.tables.constants import (
    MAX_MARK,
    N_BANDS,
    N_BLOCKS,
    STRUCTURE_SEED,
    STRUCTURES,
    WHITE_BITS,
    Purpose,
)

from .fields import masks_from_visible
from .random_words import philox, words

#: (first row, first column, rows, columns).
Block = tuple[int, int, int, int]


def structure_masks_kernel(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    valid: Tensor | None,
    grid: Sequence[int],
    structure: str,
    parameters: Sequence[int],
    n_keep: int,
) -> Masks:
    """See ``ops.structure_masks``."""
    seed = seed if seed_tensor is None else int(seed_tensor)
    frames, height, width = grid
    mark_sample, repeated = MARKS[structure], STRUCTURES[structure]
    visible = torch.zeros(len(sample_ids), math.prod(grid), dtype=torch.bool)
    places = [
        (t, y, x)
        for t in range(1 if repeated else frames)
        for y in range(height)
        for x in range(width)
    ]
    for row, sample_id in enumerate(sample_ids.tolist()):
        draw = Draw(sample_id, seed)
        marks = mark_sample(draw, (frames, height, width), parameters, places)
        random = [
            int(word) >> 32 - WHITE_BITS for word in words(len(places), Purpose.NOISE, *draw.of)
        ]

        def order(token: int, row: int = row, marks=marks, random=random) -> tuple:  # noqa: ANN001
            if valid is not None and not valid[row, token]:
                return (1, token)
            frame, place = divmod(token, len(places))
            return (0, -marks[place], -random[place], place, frame)

        visible[row, sorted(range(math.prod(grid)), key=order)[:n_keep]] = True
    masks = masks_from_visible(visible, n_keep)
    return Masks(*(part.to(sample_ids.device) for part in masks))


def structure_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    kind: StructureKind,
    valid: Tensor | None = None,
) -> Masks:
    """The masks of one kind, tokens in row-major order. The numbers that follow from the kind's
    settings are computed here anew."""
    return structure_masks_kernel(
        *(sample_ids, seed_tensor, seed, valid, kind.grid, kind.name),
        *(structure_parameters(kind), kind.n_keep),
    )


def multi_block_targets(
    sample_ids: Tensor, seed_tensor: Tensor | None, seed: int, kind: MultiBlockKind
) -> Tensor:
    """int64 [B, n_blocks, n_target], ascending, tokens in row-major order: the targets of each
    block are those of its places with the largest random words, in every frame."""
    seed = seed if seed_tensor is None else int(seed_tensor)
    frames, height, width = kind.grid
    targets = torch.empty(len(sample_ids), kind.n_blocks, kind.n_target, dtype=torch.int64)
    for row, sample_id in enumerate(sample_ids.tolist()):
        drawn = words(height * width, Purpose.NOISE, sample_id, seed)
        random = [int(word) >> 32 - WHITE_BITS for word in drawn]
        size = height, width, kind.n_blocks, kind.area, kind.aspect
        for i, block in enumerate(target_blocks(Draw(sample_id, seed), *size)):
            places = [p for p in range(height * width) if inside(block, *divmod(p, width))]
            by_priority = sorted((-random[place], place) for place in places)
            chosen = [place for _, place in by_priority[: kind.area[0]]]
            tokens = [t * height * width + p for t in range(frames) for p in sorted(chosen)]
            targets[row, i] = torch.tensor(tokens)
    return targets.to(sample_ids.device)


def structure_parameters(kind: StructureKind) -> tuple[int, ...]:
    """The op's ``parameters``, in exact fractions."""
    frames, height, width = kind.grid
    in_frame = kind.n_keep // frames
    share = Fraction(kind.n_keep, math.prod(kind.grid))
    if isinstance(kind, LatticeKind):
        period = math.floor(math.sqrt(height * width // in_frame))
        return min(period, height), min(period, width)
    if isinstance(kind, InverseBlockKind):
        # data2vec 2.0 makes blocks for 0.07 more than shall be visible, to allow for overlaps.
        wanted = Fraction(in_frame) + Fraction(7, 100) * height * width
        n_centres = max(1, math.floor(wanted / kind.block_size**2))
        return min(kind.block_size, 2 * max(height, width)), n_centres
    if isinstance(kind, TimeFrequencyKind):
        # The same share of rows and of columns: of each the fewest that have room for all n_keep.
        rows = next(n for n in range(height + 1) if Fraction(n, height) ** 2 >= share)
        columns = next(n for n in range(width + 1) if Fraction(n, width) ** 2 >= share)
        return rows, columns
    if isinstance(kind, FramesKind):
        lines = frames if frames > 1 else height
        return (math.floor(share * lines),)
    return kind.parameters


class Draw:
    """The random numbers that the structure of one sample is made from, each in [0, 2**22)."""

    def __init__(self, sample_id: int, seed: int) -> None:
        self.of = sample_id, seed

    def numbers(self, n: int) -> list[int]:
        """n of them, in segments."""
        sample_id, seed = self.of
        drawn = words(n, Purpose.NOISE, sample_id, seed ^ STRUCTURE_SEED)
        return [int(word) >> 32 - WHITE_BITS for word in drawn]

    def fours(self, n: int) -> Iterator[list[int]]:
        """n times the four of one block of Philox."""
        sample_id, seed = self.of
        for block in range(n):
            four = philox(np.array(block), Purpose.NOISE, sample_id, seed ^ STRUCTURE_SEED)
            yield [int(word) >> 32 - WHITE_BITS for word in four]


def uniform(number: int, n: int) -> int:
    """In [0, n)."""
    return number * n >> WHITE_BITS


Place = tuple[int, int, int]
Marks = Callable[[Draw, Sequence[int], Sequence[int], list[Place]], list[int]]


def lattice(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """1 on every period-th row and column, at a random offset."""
    period_y, period_x = parameters
    number_y, number_x = draw.numbers(2)
    first_y, first_x = uniform(number_y, period_y), uniform(number_x, period_x)
    return [
        int((y - first_y) % period_y == 0 and (x - first_x) % period_x == 0) for _, y, x in places
    ]


def inside(block: Block, y: int, x: int) -> bool:
    top, left, rows, columns = block
    return top <= y < top + rows and left <= x < left + columns


def first_block(blocks: list[Block], y: int, x: int) -> int:
    """The number of the first block that covers a place; how many there are if none does."""
    return next((i for i, block in enumerate(blocks) if inside(block, y, x)), len(blocks))


def block(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """How many blocks are drawn before the first that covers a place. Sides are a quarter to a half
    of the grid's."""
    blocks = []
    for number_h, number_y, number_w, number_x in draw.fours(N_BLOCKS):
        rows, top = _part(number_h, number_y, grid[1])
        columns, left = _part(number_w, number_x, grid[2])
        blocks.append((top, left, rows, columns))
    return [first_block(blocks, y, x) for _, y, x in places]


def _part(number_length: int, number_start: int, side: int) -> tuple[int, int]:
    """(length, start) of a quarter to a half of a side."""
    least, most = math.ceil(side / 4), math.ceil(side / 2)
    length = least + uniform(number_length, most - least + 1)
    return length, uniform(number_start, side - length + 1)


def inverse_block(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """1 in squares round random centres. What reaches over an edge is left out."""
    block_size, n_centres = parameters
    _, height, width = grid
    marked = set()
    for number in draw.numbers(n_centres):
        y, x = divmod(uniform(number, height * width), width)
        for dy in range(block_size):
            for dx in range(block_size):
                marked.add((y + dy - block_size // 2, x + dx - block_size // 2))
    return [int((y, x) in marked) for _, y, x in places]


def largest_first(numbers: list[int]) -> list[int]:
    """The rank of each number, 0 for the largest; of equal ones, the first has the lower rank."""
    order = sorted(range(len(numbers)), key=lambda i: (-numbers[i], i))
    return [order.index(i) for i in range(len(numbers))]


def time_frequency(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """1 where neither the row nor the column is masked."""
    n_rows, n_columns = parameters
    numbers = draw.numbers(grid[1] + grid[2])
    row_rank, column_rank = largest_first(numbers[: grid[1]]), largest_first(numbers[grid[1] :])
    return [int(row_rank[y] < n_rows and column_rank[x] < n_columns) for _, y, x in places]


def bands(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """How many bands are drawn before the first that covers a place. Bands of time and of frequency
    take turns: of time_bands + freq_bands of them, time_bands are of time, evenly among the
    others, and the first if there are any."""
    time_bands, freq_bands, time_width, freq_width = parameters
    _, height, width = grid
    drawn: list[Block] = []
    for i, (number_width, number_start, _, _) in enumerate(draw.fours(N_BANDS)):
        is_time = i * time_bands % (time_bands + freq_bands) < time_bands
        side, most = (height, time_width) if is_time else (width, freq_width)
        length = 1 + uniform(number_width, most)
        start = uniform(number_start, side - length + 1)
        drawn.append((start, 0, length, width) if is_time else (0, start, height, length))
    return [first_block(drawn, y, x) for _, y, x in places]


def frames(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """Frames become visible one after the other, the first ``n_whole`` of them alike. For T = 1 the
    rows are the frames."""
    (n_whole,) = parameters
    rank = largest_first(draw.numbers(grid[0] if grid[0] > 1 else grid[1]))
    marks = [max(0, MAX_MARK - max(0, r + 1 - n_whole)) for r in rank]
    return [marks[t if grid[0] > 1 else y] for t, y, _ in places]


def between(number: int, least: int, most: int) -> int:
    """In [least, most]."""
    return least + uniform(number, most - least + 1)


def block_of_area(area: int, aspect: int, height: int, width: int) -> tuple[int, int]:
    """(rows, columns) of at least ``area`` patches, as close as can be to ``aspect`` thousandths of
    rows for a column."""
    # sqrt(area * aspect / 1000), rounded half up.
    rows = (math.isqrt(4 * area * aspect // 1000) + 1) // 2
    rows = min(max(rows, 1), height)
    columns = math.ceil(Fraction(area, rows))
    if columns > width:
        rows, columns = math.ceil(Fraction(area, width)), width
    return rows, columns


def target_blocks(
    draw: Draw, height: int, width: int, n_blocks: int, areas: Sequence[int], aspects: Sequence[int]
) -> list[Block]:
    """Blocks of one size, which the sample draws, at places of their own."""
    size, _, *places = draw.fours(2 + n_blocks)
    rows, columns = block_of_area(
        between(size[0], *areas), between(size[1], *aspects), height, width
    )
    return [
        (
            uniform(number_y, height - rows + 1),
            uniform(number_x, width - columns + 1),
            rows,
            columns,
        )
        for number_y, number_x, _, _ in places
    ]


def multi_block(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """How many targets are drawn before the first that covers a place, and one more where none does
    and the place is in the context block."""
    n_blocks, area, most_area, aspect, most_aspect, context, most_context = parameters
    _, height, width = grid
    targets = target_blocks(draw, height, width, n_blocks, (area, most_area), (aspect, most_aspect))
    _, numbers = draw.fours(2)
    rows, columns = block_of_area(between(numbers[0], context, most_context), 1000, height, width)
    top = uniform(numbers[1], height - rows + 1)
    left = uniform(numbers[2], width - columns + 1)
    marks = [first_block(targets, y, x) for _, y, x in places]
    return [
        mark + int(mark == n_blocks and inside((top, left, rows, columns), y, x))
        for mark, (_, y, x) in zip(marks, places, strict=True)
    ]


def target_block(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """1 in one of the targets of "multi_block"."""
    number, area, most_area, aspect, most_aspect = parameters
    _, height, width = grid
    areas, aspects = (area, most_area), (aspect, most_aspect)
    target = target_blocks(draw, height, width, number + 1, areas, aspects)[number]
    return [int(inside(target, y, x)) for _, y, x in places]


def running_cell(
    draw: Draw, grid: Sequence[int], parameters: Sequence[int], places: list[Place]
) -> list[int]:
    """The four places of each 2x2 cell take turns, frame by frame."""
    (number,) = draw.numbers(1)
    first = uniform(number, 4)
    return [(first + t + 2 * (y % 2) + x % 2) % 4 for t, y, x in places]


#: For each structure, the function that marks places.
MARKS: dict[str, Marks] = {
    "grid": lattice,
    "block": block,
    "inverse_block": inverse_block,
    "time_frequency": time_frequency,
    "bands": bands,
    "frames": frames,
    "multi_block": multi_block,
    "target_block": target_block,
    "running_cell": running_cell,
}
