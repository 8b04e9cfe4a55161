"""Random words from Philox4x32-10; ``reference`` defines their layout."""

from __future__ import annotations

import numpy as np


def philox(block: np.ndarray, purpose: int, sample_id: int, seed: int) -> np.ndarray:
    """uint32 [4, *block.shape]: the Philox4x32-10 output at counters (block, purpose, id)."""
    low = np.uint64(0xFFFFFFFF)
    block = np.asarray(block, dtype=np.uint64)
    c = [
        block,
        np.full_like(block, purpose),
        np.full_like(block, sample_id & 0xFFFFFFFF),
        np.full_like(block, sample_id >> 32 & 0xFFFFFFFF),
    ]
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(10):
        product0 = np.uint64(0xD2511F53) * c[0]
        product1 = np.uint64(0xCD9E8D57) * c[2]
        c = [
            (product1 >> np.uint64(32)) ^ c[1] ^ np.uint64(key0),
            product1 & low,
            (product0 >> np.uint64(32)) ^ c[3] ^ np.uint64(key1),
            product0 & low,
        ]
        key0, key1 = key0 + 0x9E3779B9 & 0xFFFFFFFF, key1 + 0xBB67AE85 & 0xFFFFFFFF
    return np.stack(c).astype(np.uint32)


def words(n: int, purpose: int, sample_id: int, seed: int, first_block: int = 0) -> np.ndarray:
    """uint32 [n]: n words in segments, from ceil(n / 4) blocks starting at ``first_block``."""
    blocks = first_block + np.arange(-(-n // 4))
    return philox(blocks, purpose, sample_id, seed).reshape(-1)[:n]
