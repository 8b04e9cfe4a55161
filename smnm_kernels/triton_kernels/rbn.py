"""R-BN without the CUDA library: Algorithm 1, one position after the other.

A program runs the bank of one sample, and its lanes are the candidates. Samples of one bank run it
each for itself, because the host would have to wait to find out which samples share one.

As on the CPU, scores are kept up to date: when a patch becomes visible, the scores on its four
lines rise. The next position must see them, so a barrier ends each of the N steps.
"""

import triton
import triton.language as tl

from ..tables.constants import MAX_SCORE, Purpose
from .words import philox_words, scalar_seed

ORDER = tl.constexpr(int(Purpose.ORDER))
TIE = tl.constexpr(int(Purpose.TIE))
#: More than any score. The score of a mask that is full or already shows the position.
TAKEN = tl.constexpr(2 * MAX_SCORE)


@triton.jit(do_not_specialize=["banks", "seed_pointer", "seed"])
def order_words(banks, seed_pointer, seed: "i64", words, N: tl.constexpr, BLOCKS: tl.constexpr):
    """Fills ``words`` int64 [B, N], whose stable sort gives the order of each bank's positions."""
    n_blocks: tl.constexpr = (N + 3) // 4
    bank = tl.load(banks + tl.program_id(0))
    seed = scalar_seed(seed_pointer, seed)
    block = tl.program_id(1) * BLOCKS + tl.arange(0, BLOCKS)
    word0, word1, word2, word3 = philox_words(seed, bank, block, ORDER)
    row = words + tl.program_id(0).to(tl.int64) * N
    valid = block < n_blocks
    tl.store(row + block, word0.to(tl.int64), mask=valid)
    tl.store(row + n_blocks + block, word1.to(tl.int64), mask=valid & (n_blocks + block < N))
    tl.store(
        row + 2 * n_blocks + block, word2.to(tl.int64), mask=valid & (2 * n_blocks + block < N)
    )
    tl.store(
        row + 3 * n_blocks + block, word3.to(tl.int64), mask=valid & (3 * n_blocks + block < N)
    )


@triton.jit(do_not_specialize=["banks", "seed_pointer", "seed", "orders", "valid", "n_keep"])
def rbn_in_order(
    banks,
    seed_pointer,
    seed: "i64",
    orders,
    valid,
    neighbours,
    n_keep: "i32",
    scores,
    visible,
    H: tl.constexpr,
    W: tl.constexpr,
    K: tl.constexpr,
    PAD_K: tl.constexpr,
    PAD_NEIGHBOURS: tl.constexpr,
    RANDOM_TIES: tl.constexpr,
):
    """Fills ``visible`` [B, K, N]. The caller sets it and ``scores`` [B, N, PAD_K] to zero.

    ``valid`` bool [B, N] or None: positions that are not valid are stepped over.

    ``neighbours`` int32 [3, PAD_NEIGHBOURS]: steps along H, steps along W, and by how much the
    score rises there.
    """
    n_tokens: tl.constexpr = H * W
    n_blocks: tl.constexpr = (n_tokens + 3) // 4
    row = tl.program_id(0).to(tl.int64)
    bank, seed = tl.load(banks + row), scalar_seed(seed_pointer, seed)
    orders += row * n_tokens
    scores += row * (n_tokens * PAD_K)
    visible += row * (K * n_tokens)
    mask = tl.arange(0, PAD_K)
    neighbour = tl.arange(0, PAD_NEIGHBOURS)
    step_y = tl.load(neighbours + neighbour)
    step_x = tl.load(neighbours + PAD_NEIGHBOURS + neighbour)
    rise = tl.load(neighbours + 2 * PAD_NEIGHBOURS + neighbour)
    room = tl.where(mask < K, n_keep, 0)
    sweep = 0
    # K sweeps of a permutation fill every mask (``rbn_rounds.h`` says why). The bound keeps an
    # order that is no permutation from hanging the GPU.
    while (tl.max(room, 0) > 0) & (sweep < K):
        for step in range(n_tokens):
            position = tl.load(orders + step).to(tl.int32)
            here = tl.load(scores + position * PAD_K + mask)
            here = tl.where(room > 0, here, TAKEN)
            if valid is not None:
                may_show = tl.load(valid + row * n_tokens + position)
                here = tl.where(may_show, here, TAKEN)
            # If every mask is full or shows the position already, none wins it.
            tied = ((here == tl.min(here, 0)) & (here < TAKEN)).to(tl.int32)
            pick = 0
            if RANDOM_TIES:
                block = sweep * n_blocks + position % n_blocks + tl.zeros([1], tl.int32)
                word0, word1, word2, word3 = philox_words(seed, bank, block, TIE)
                segment = position // n_blocks
                word = tl.where(segment == 0, word0, tl.where(segment == 1, word1, word2))
                word = tl.max(tl.where(segment == 3, word3, word), 0)
                pick = (word.to(tl.uint64) * tl.sum(tied, 0) >> 32).to(tl.int32)
            won = (tied == 1) & (tl.cumsum(tied, 0) == pick + 1)
            winner = tl.sum(tl.where(won, mask, 0), 0)
            tl.store(visible + mask * n_tokens + position, won, mask=won)
            tl.store(scores + position * PAD_K + mask, TAKEN, mask=won)
            y, x = position // W + step_y, position % W + step_x
            inside = (y >= 0) & (y < H) & (x >= 0) & (x < W)
            there = scores + (y * W + x) * PAD_K + winner
            raise_by = tl.where(tl.sum(won.to(tl.int32), 0) == 1, rise, 0)
            raised = tl.load(there, mask=inside, other=0) + raise_by
            # With fewer than 32 neighbours, several lanes hold the same one, and one of them
            # stores. All must load before that.
            tl.debug_barrier()
            tl.store(there, raised, mask=inside)
            room -= won.to(tl.int32)
            tl.debug_barrier()
        sweep += 1
