"""Matrices in the registers of a warp: loads and stores of 8 by 8 tiles, tensor core products.

What a register of a lane holds follows the figures of the PTX manual. Products are computed in
float64, and a finding says where hardware could round: its partial sums are exact in any order
only as long as they are integers below 2**24.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from .block import Block
from .instructions import MASKS, Execute, Instruction, Read, instruction
from .program import Statement
from .report import Kind
from .threads import WARP, Threads
from .types import F32, PRED, U32, U64

for name in ("ldmatrix", "stmatrix", "mma", "wgmma"):
    # Every lane of the warp takes them at once.
    MASKS[name] = lambda this: None

EXACT_SUMS = 2**24

_LANE = np.arange(WARP)


class Fragment(NamedTuple):
    """Where in a matrix each element lies that a lane holds: int [32, elements]."""

    row: np.ndarray
    column: np.ndarray

    def gather(self, elements: np.ndarray, rows: int, columns: int) -> np.ndarray:
        """float64 [warps, rows, columns] from what the lanes hold, [warps, 32, elements]."""
        matrix = np.zeros((len(elements), rows, columns))
        matrix[:, self.row, self.column] = elements
        return matrix

    def scatter(self, matrix: np.ndarray) -> np.ndarray:
        """What the lanes hold, [warps, 32, elements]."""
        return matrix[:, self.row, self.column]


def fragment_a(n_registers: int) -> Fragment:
    """Left operand, float16, two to a register: 16 rows and 4 columns for every register."""
    register, half = np.divmod(np.arange(2 * n_registers), 2)
    row = _LANE[:, None] // 4 + 8 * (register % 2)
    return Fragment(row, 2 * (_LANE[:, None] % 4) + half + 8 * (register // 2))


def fragment_b(n_registers: int) -> Fragment:
    """Right operand of ``mma``, float16, two to a register: 8 columns, 8 rows for a register."""
    register, half = np.divmod(np.arange(2 * n_registers), 2)
    row = 2 * (_LANE[:, None] % 4) + half + 8 * register
    return Fragment(row, np.broadcast_to(_LANE[:, None] // 4, row.shape))


def fragment_c(n_registers: int) -> Fragment:
    """Accumulators, float32: 16 rows and 2 columns for every register."""
    register = np.arange(n_registers)
    row = _LANE[:, None] // 4 + 8 * (register % 4 // 2)
    return Fragment(row, 2 * (_LANE[:, None] % 4) + register % 2 + 8 * (register // 4))


def _of_warps(this: Instruction, threads: Threads, values: np.ndarray) -> np.ndarray:
    """[threads] to [warps, 32]."""
    if not threads.whole_warps:
        raise this.unknown("for a part of a warp")
    return np.broadcast_to(values, (threads.count,)).reshape(-1, WARP)


def _halves(this: Instruction, block: Block, threads: Threads, reads: list[Read]) -> np.ndarray:
    """float16 [warps, 32, 2 * registers]."""
    words = np.stack([_of_warps(this, threads, read(block, threads)) for read in reads], axis=2)
    return np.ascontiguousarray(words).view(np.float16)


def _floats(this: Instruction, block: Block, threads: Threads, reads: list[Read]) -> np.ndarray:
    """float32 [warps, 32, registers]."""
    return np.stack([_of_warps(this, threads, read(block, threads)) for read in reads], axis=2)


def product(block: Block, a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """float32 a @ b + c of float64 [..., m, k], [..., k, n], [..., m, n]."""
    total = a @ b + c
    bound = float((np.abs(a) @ np.abs(b) + np.abs(c)).max())
    block.report.largest_sum = max(block.report.largest_sum, bound)
    if not (bound < EXACT_SUMS and (total == np.rint(total)).all()):
        block.found(Kind.INEXACT_SUM, detail=f"of magnitude up to {bound:g}")
    return total.astype(np.float32)


# Tiles of 8 by 8


def _tiles(this: Instruction, operand: int) -> tuple[bool, list[str]]:
    """Whether they are transposed, and their registers."""
    for modifier in ("sync", "aligned", "m8n8"):
        this.needs(modifier)
    n = int(this.needs("x1", "x2", "x4")[1])
    transposed = this.takes("trans") is not None
    this.needs("shared", "shared::cta")
    this.type("b16")
    this.done(2)
    registers = this.vector(operand)
    if len(registers) != n:
        raise this.unknown(f"{n} registers were expected")
    return transposed, registers


#: Of a tile: the two columns of a row that a lane's register holds.
_TILE_ROW, _TILE_COLUMNS = _LANE[:, None] // 4, 2 * (_LANE[:, None] % 4) + np.arange(2)


def _row_providers(threads: Threads, tile: int) -> np.ndarray:
    """Positions among ``threads`` of the lanes that give a tile's row addresses: [warps, 8]."""
    warps = np.arange(len(threads.warps))[:, None]
    return warps * WARP + 8 * tile + np.arange(8)


@instruction("ldmatrix")
def _ldmatrix(this: Instruction) -> Execute:
    transposed, registers = _tiles(this, 0)
    writes = [this.write(text, U32) for text in registers]
    address = this.address(1, 32)

    def execute(block: Block, threads: Threads) -> None:
        places = _of_warps(this, threads, address(block, threads)).reshape(-1)
        for tile, write in enumerate(writes):
            givers = _row_providers(threads, tile).reshape(-1)
            part = Threads(threads.index[givers], block.n_threads)
            rows = block.shared.load(block, part, places[givers], 2, 8).reshape(-1, 8, 8)
            if transposed:
                rows = rows.transpose(0, 2, 1)
            pairs = np.ascontiguousarray(rows[:, _TILE_ROW, _TILE_COLUMNS])
            write(block, threads, pairs.view(np.uint32).reshape(-1))

    return execute


@instruction("stmatrix")
def _stmatrix(this: Instruction) -> Execute:
    transposed, registers = _tiles(this, 1)
    reads = [this.read(text, U32) for text in registers]
    address = this.address(0, 32)

    def execute(block: Block, threads: Threads) -> None:
        places = _of_warps(this, threads, address(block, threads)).reshape(-1)
        for tile, read in enumerate(reads):
            pairs = np.ascontiguousarray(_of_warps(this, threads, read(block, threads)))
            rows = np.empty((len(pairs), 8, 8), np.uint16)
            rows[:, _TILE_ROW, _TILE_COLUMNS] = pairs.view(np.uint16).reshape(-1, WARP, 2)
            if transposed:
                rows = rows.transpose(0, 2, 1)
            givers = _row_providers(threads, tile).reshape(-1)
            part = Threads(threads.index[givers], block.n_threads)
            block.shared.store(block, part, places[givers], rows.reshape(-1, 8))

    return execute


# Products of one warp


@instruction("mma")
def _mma(this: Instruction) -> Execute:
    this.needs("sync")
    this.needs("aligned")
    k = int(this.needs("m16n8k8", "m16n8k16")[6:])
    for modifier in ("row", "col", "f32", "f16", "f16", "f32"):
        this.needs(modifier)
    this.done(4)
    d, a, b, c = (this.vector(i) for i in range(4))
    if (len(d), len(a), len(b), len(c)) != (4, k // 4, k // 8, 4):
        raise this.unknown("registers")
    writes = [this.write(text, F32) for text in d]
    reads_a, reads_b = [this.read(t, U32) for t in a], [this.read(t, U32) for t in b]
    reads_c = [this.read(t, F32) for t in c]
    part_a, part_b, part_c = fragment_a(len(a)), fragment_b(len(b)), fragment_c(4)

    def execute(block: Block, threads: Threads) -> None:
        left = part_a.gather(_halves(this, block, threads, reads_a), 16, k)
        right = part_b.gather(_halves(this, block, threads, reads_b), k, 8)
        start = part_c.gather(_floats(this, block, threads, reads_c), 16, 8)
        result = part_c.scatter(product(block, left, right, start))
        for i, write in enumerate(writes):
            write(block, threads, np.ascontiguousarray(result[:, :, i]).reshape(-1))

    return execute


# Products of a warpgroup (four warps), whose results are there once they were waited for


class Descriptor(NamedTuple):
    """A matrix in shared memory, as the tensor cores of sm_90 find it; strides in bytes."""

    start: int
    leading: int
    stride: int
    #: 0 none, 1 of 128 bytes, 2 of 64, 3 of 32.
    swizzle: int

    @classmethod
    def unpacked(cls, bits: int) -> Descriptor:
        return cls(
            (bits & 0x3FFF) << 4,
            (bits >> 16 & 0x3FFF) << 4,
            (bits >> 32 & 0x3FFF) << 4,
            bits >> 62,
        )

    def packed(self) -> int:
        return (
            self.start >> 4 | self.leading >> 4 << 16 | self.stride >> 4 << 32 | self.swizzle << 62
        )

    def addresses(self, n: int, *, n_is_contiguous: bool) -> np.ndarray:
        """int64 [16, n]: of each element of a matrix of 16 by n float16 (n: rows of the left
        operand, or columns of the right one)."""
        k, n = np.meshgrid(np.arange(16), np.arange(n), indexing="ij")
        width = {0: 16, 1: 128, 2: 64, 3: 32}[self.swizzle]
        if n_is_contiguous:
            per_row = width // 2
            places = n // per_row * self.leading + k // 8 * self.stride
            places += k % 8 * width + n % per_row * 2
        elif self.swizzle == 0:
            places = n // 8 * self.stride + n % 8 * 16 + k // 8 * self.leading + k % 8 * 2
        else:
            places = n // 8 * self.stride + n % 8 * width + k * 2
        places += self.start
        bits = {0: 0, 1: 7, 2: 3, 3: 1}[self.swizzle]
        return places ^ (places >> 7 & bits) << 4


class _Product(NamedTuple):
    """One instruction of one warp, until it was waited for."""

    registers: tuple[str, ...]
    inputs: tuple[str, ...]
    #: Of shared memory, that it may still read.
    cells: np.ndarray


class _Products:
    """Those of a block that were issued and not waited for, by warp; and which registers were
    touched since the last wgmma.fence."""

    def __init__(self, block: Block) -> None:
        self.open: list[list[_Product]] = [[] for _ in range(block.n_warps)]
        self.committed: list[list[list[_Product]]] = [[] for _ in range(block.n_warps)]
        #: What accumulators will hold, float32 of all threads, and by warp whose result it is.
        self.results: dict[str, np.ndarray] = {}
        self.last: list[dict[str, _Product]] = [{} for _ in range(block.n_warps)]
        self.touched = [set(block.kernel.program.registers) for _ in range(block.n_warps)]
        block.watchers.append(self.watch)

    def watch(self, block: Block, statement: Statement, threads: Threads) -> None:
        if statement.opcode.startswith("wgmma"):
            return
        written, read = set(statement.destinations), set(statement.sources)
        for warp in threads.warps:
            self.touched[warp] |= written | read
            if not self.last[warp]:
                continue
            early = (written | read) & self.last[warp].keys()
            if early:
                block.found(Kind.IN_FLIGHT, detail=f"accumulator {min(early)}")
            issued = [p for group in (*self.committed[warp], self.open[warp]) for p in group]
            changed = {r for p in issued for r in p.inputs} & written
            if changed:
                block.found(Kind.IN_FLIGHT, detail=f"operand {min(changed)} of a product changed")

    def accumulators(self, block: Block, threads: Threads, reads: dict[str, Read]) -> list:
        """float32 [warps, 32] of each register: what it holds once all that was issued is done."""
        held = []
        for text, read in reads.items():
            value = np.broadcast_to(read(block, threads), (threads.count,)).reshape(-1, WARP)
            on_its_way = np.array([text in self.last[warp] for warp in threads.warps])
            if on_its_way.any():
                coming = self.results[text].reshape(-1, WARP)[threads.warps]
                value = np.where(on_its_way[:, None], coming, value)
            held.append(value)
        return held

    def issue(self, block: Block, threads: Threads, made: _Product, results: np.ndarray) -> None:
        """``results`` float32 [warps, 32, registers]."""
        for i, text in enumerate(made.registers):
            if text not in self.results:
                self.results[text] = np.zeros(block.n_threads, np.float32)
            self.results[text].reshape(-1, WARP)[threads.warps] = results[:, :, i]
        for warp in threads.warps:
            own = _Product(*made)  # each warp's product ends on its own
            self.open[warp].append(own)
            self.last[warp].update(dict.fromkeys(made.registers, own))
            block.shared.start_reading(made.cells)

    def commit(self, warp: int) -> None:
        self.committed[warp].append(self.open[warp])
        self.open[warp] = []

    def finish(self, block: Block, warp: int, left: int) -> None:
        """All but the last ``left`` groups of products end: their accumulators are there."""
        lanes = slice(warp * WARP, warp * WARP + WARP)
        while len(self.committed[warp]) > left:
            for done in self.committed[warp].pop(0):
                block.shared.stop_reading(done.cells)
                for text in done.registers:
                    if self.last[warp].get(text) is done:
                        del self.last[warp][text]
                        slot = block.kernel.program.registers[text].slot
                        new = block.registers[slot].copy()
                        new[lanes] = self.results[text][lanes].view(np.uint32)
                        block.registers[slot] = new


def _products(block: Block) -> _Products:
    if "products" not in block.pending:
        block.pending["products"] = _Products(block)
    return block.pending["products"]


@instruction("wgmma")
def _wgmma(this: Instruction) -> Execute:
    kind = this.needs("fence", "commit_group", "wait_group", "mma_async")
    this.needs("sync")
    this.needs("aligned")
    if kind == "mma_async":
        return _mma_async(this)
    this.done(1 if kind == "wait_group" else 0)
    left = this.integer(0) if kind == "wait_group" else 0

    def execute(block: Block, threads: Threads) -> None:
        products = _products(block)
        for warp in threads.warps:
            if kind == "fence":
                products.touched[warp].clear()
            elif kind == "commit_group":
                products.commit(warp)
            else:
                products.finish(block, warp, left)

    return execute


def _mma_async(this: Instruction) -> Execute:
    shape = this.left.pop(0) if this.left else ""
    match = re.fullmatch(r"m64n(\d+)k16", shape)
    if match is None:
        raise this.unknown(f"shape .{shape}")
    n = int(match[1])
    for modifier in ("f32", "f16", "f16"):
        this.needs(modifier)
    this.done()
    from_registers = this.operands[1].startswith("{")
    if len(this.operands) != (7 if from_registers else 8):
        raise this.unknown("operands")
    signs = this.integer(4) * this.integer(5)
    transposed_a = 0 if from_registers else this.integer(6)
    transposed_b = this.integer(len(this.operands) - 1)
    accumulators = tuple(this.vector(0))
    inputs = tuple(this.vector(1)) if from_registers else ()
    if len(accumulators) != n // 2 or (from_registers and len(inputs) != 4):
        raise this.unknown("registers")
    for text in accumulators:
        this.write(text, F32)
    reads_c = {text: this.read(text, F32) for text in accumulators}
    reads_a = [this.read(text, U32) for text in inputs]
    left_descriptor = None if from_registers else this.read(1, U64)
    right_descriptor = this.read(2, U64)
    accumulate = this.read(3, PRED)
    part_a, part_c = fragment_a(4), fragment_c(len(accumulators))

    def in_shared(
        block: Block, threads: Threads, bits: np.ndarray, n: int, contiguous: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Matrix float64 [16, n], and the cells of shared memory that it lies in."""
        if (bits != bits[0]).any():
            raise this.unknown("descriptors that differ within a warpgroup")
        if int(bits[0]) >> 49 & 7:
            raise this.unknown("descriptors with a base offset")
        descriptor = Descriptor.unpacked(int(bits[0]))
        if contiguous and descriptor.swizzle == 0:
            raise this.unknown("a transposed matrix without swizzling")
        places = descriptor.addresses(n, n_is_contiguous=contiguous).reshape(1, -1)
        leaders = threads.where(threads.lane == 0)
        of_each_warp = np.repeat(places, leaders.count, axis=0)
        raw = block.shared.read_by_tensor_cores(block, leaders, of_each_warp, 2)
        matrix = raw[0].view(np.float16).astype(np.float64).reshape(16, n)
        cells = np.unique(block.shared.cells(places[0], 2))
        return matrix, cells[cells < len(block.shared.being_read)]

    def execute(block: Block, threads: Threads) -> None:
        if not threads.whole_warps:
            raise this.unknown("for a part of a warp")
        products = _products(block)
        for number in np.unique(threads.warps // 4):
            # The other warps of the warpgroup take their rows when they come here.
            part = threads.where(threads.warp // 4 == number)
            _check_registers(block, products, part, accumulators, inputs)
            bits = _all(right_descriptor, block, part)
            right, cells = in_shared(block, part, bits, n, transposed_b == 1)
            if from_registers:
                left = part_a.gather(_halves(this, block, part, reads_a), 16, 16)
            else:
                bits = _all(left_descriptor, block, part)
                rows, more = in_shared(block, part, bits, 64, transposed_a == 1)
                left = rows.T.reshape(4, 16, 16)[part.warps % 4]
                cells = np.union1d(cells, more)
            start = np.zeros((len(part.warps), 16, n))
            if _same(this, accumulate(block, part)):
                held = products.accumulators(block, part, reads_c)
                start = part_c.gather(np.stack(held, axis=2), 16, n)
            result = part_c.scatter(product(block, left * signs, right, start))
            products.issue(block, part, _Product(accumulators, inputs, cells), result)

    return execute


def _all(read: Read, block: Block, threads: Threads) -> np.ndarray:
    return np.broadcast_to(read(block, threads), (threads.count,))


def _same(this: Instruction, predicate: np.ndarray) -> bool:
    if (predicate != predicate[0]).any():
        raise this.unknown("a scale that differs within a warpgroup")
    return bool(predicate[0])


def _check_registers(
    block: Block,
    products: _Products,
    threads: Threads,
    accumulators: tuple[str, ...],
    inputs: tuple[str, ...],
) -> None:
    """Registers that threads touched need a fence before a product takes them."""
    for warp in threads.warps:
        unfenced = products.touched[warp].intersection(accumulators + inputs)
        if unfenced:
            block.found(Kind.MISSING_FENCE, detail=f"wgmma.fence after {min(unfenced)} was touched")
        early = products.last[warp].keys() & set(inputs)
        if early:
            block.found(Kind.IN_FLIGHT, detail=f"accumulator {min(early)} as an operand")
