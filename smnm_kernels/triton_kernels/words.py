"""Random words and the noise made from them; ``smnm_kernels.reference`` defines their layout."""

import triton
import triton.language as tl

from ..tables.constants import Purpose

NOISE = tl.constexpr(int(Purpose.NOISE))
SIGMA = tl.constexpr(int(Purpose.SIGMA))


@triton.jit
def philox_words(seed, sample_id, block, purpose):
    """The four uint32 words of each block (Philox4x32-10, counter (block, purpose, id))."""
    c0 = block.to(tl.uint32)
    c1 = tl.full([], purpose, tl.uint32)
    sample_id, seed = sample_id.to(tl.uint64), seed.to(tl.uint64)
    c2, c3 = sample_id.to(tl.uint32), (sample_id >> 32).to(tl.uint32)
    key0, key1 = seed.to(tl.uint32), (seed >> 32).to(tl.uint32)
    for _ in tl.static_range(10):
        # One 64-bit product is cheaper than two products that give its halves.
        product0 = c0.to(tl.uint64) * 0xD2511F53
        product1 = c2.to(tl.uint64) * 0xCD9E8D57
        c0 = (product1 >> 32).to(tl.uint32) ^ c1 ^ key0
        c2 = (product0 >> 32).to(tl.uint32) ^ c3 ^ key1
        c1 = product1.to(tl.uint32)
        c3 = product0.to(tl.uint32)
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    return c0, c1, c2, c3


@triton.jit
def noise_values(seed, sample_id, block, table):
    """float16 [*block.shape, 8]: the quantiles that the eight half words of each block pick."""
    return look_up(noise_picks(seed, sample_id, block), table)


@triton.jit
def noise_picks(seed, sample_id, block):
    """uint32 [*block.shape, 8]: which quantiles the eight half words of each block pick.

    The last axis is the segment: low half of word 0, high half of word 0, low half of word 1, ...
    """
    word0, word1, word2, word3 = philox_words(seed, sample_id, block, NOISE)
    # join makes a new last axis: (word // 2), then (word % 2), then (half).
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3))
    picks = tl.join((words & 0xFFFF) >> 4, words >> 20)
    return tl.reshape(picks, block.shape + [8])


@triton.jit
def look_up(picks, table):
    """float16: the quantiles at these indices."""
    # A gather from registers goes through shared memory, which serves 32 scattered reads at a time
    # far faster than the cache.
    values = tl.gather(table, tl.reshape(picks, [picks.numel]).to(tl.int32), 0)
    return tl.reshape(values, picks.shape)


@triton.jit
def sigma_pair(seed, sample_id, pairs, n_pairs):
    """(index, level of chain 1, level of chain 2, gain of chain 2) of the sample's sigmas."""
    word, _, _, _ = philox_words(seed, sample_id, tl.zeros([1], tl.uint32), SIGMA)
    pair = (tl.max(word, 0).to(tl.uint64) * n_pairs >> 32).to(tl.int32)
    row = pairs + 3 * pair
    # int32, because products with the length of a row of taps overflow the table's int16.
    level1, level2 = tl.load(row).to(tl.int32), tl.load(row + 1).to(tl.int32)
    return pair, level1, level2, tl.load(row + 2).to(tl.int32)


@triton.jit
def scalar_seed(seed_pointer, seed):
    """The seed: read through the pointer if there is one, so that a CUDA graph replays with the
    seed that the tensor holds then."""
    if seed_pointer is not None:
        seed = tl.load(seed_pointer)
    return seed


@triton.jit
def white_keys(seed, sample_id, block):
    """int32 [4, *block.shape]: the field of white noise, in segments of one word per block."""
    word0, word1, word2, word3 = philox_words(seed, sample_id, block, NOISE)
    words = tl.join(tl.join(word0, word2), tl.join(word1, word3)) >> 10
    values = tl.trans(tl.reshape(words, block.shape + [4])).to(tl.int32)
    return 2 * values + 1 - (1 << 22)
