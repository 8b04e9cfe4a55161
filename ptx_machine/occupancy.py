"""How many blocks a multiprocessor holds, and how long a launch takes by the cost model."""

from __future__ import annotations

from typing import NamedTuple

from .cost import Timing
from .threads import WARP

N_MULTIPROCESSORS = 132
#: From the host's launch to the first instruction and from the last one to the end, in
#: microseconds: what an empty kernel takes on GPUs of this size, as published, not measured here.
LAUNCH_MICROSECONDS = 2.5


class Multiprocessor(NamedTuple):
    registers: int
    threads: int
    blocks: int
    shared_bytes: int


#: By compute capability times ten.
MULTIPROCESSORS = {
    80: Multiprocessor(65536, 2048, 32, 164 << 10),
    90: Multiprocessor(65536, 2048, 32, 228 << 10),
}
#: Of shared memory, for every block.
RESERVED_BYTES = 1024


def resident_blocks(target: int, threads: int, registers: int, shared_bytes: int) -> int:
    """Blocks that a multiprocessor holds at once; ``registers`` of one thread."""
    limits = MULTIPROCESSORS[target]
    # Warps are given registers by 256.
    of_warp = -(-registers * WARP // 256) * 256
    return min(
        limits.registers // (of_warp * -(-threads // WARP)),
        limits.threads // threads,
        limits.shared_bytes // (shared_bytes + RESERVED_BYTES),
        limits.blocks,
    )


def launch_microseconds(timing: Timing, n_blocks: int, resident: int) -> float:
    """A launch of ``n_blocks`` blocks alike: full waves, what is left, and the launch itself."""
    waves, left = divmod(n_blocks, N_MULTIPROCESSORS * resident)
    time = waves * timing.microseconds(resident)
    if left:
        time += timing.microseconds(-(-left // N_MULTIPROCESSORS))
    return time + LAUNCH_MICROSECONDS
