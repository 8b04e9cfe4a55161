"""Philox4x32-10 in plain Python integers, from the paper (Salmon et al., 2011), and the layout of
its words that the package documents."""


def philox_4x32(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        high0, low0 = divmod(0xD2511F53 * c[0], 2**32)
        high1, low1 = divmod(0xCD9E8D57 * c[2], 2**32)
        c = [high1 ^ c[1] ^ k[0], low1, high0 ^ c[3] ^ k[1], low0]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def block_words(block: int, stream: int, sample_id: int, seed: int) -> list[int]:
    """key = seed, counter = (block, stream, sample id), each 64-bit number low word first."""
    high_id, low_id = divmod(sample_id % 2**64, 2**32)
    high_seed, low_seed = divmod(seed % 2**64, 2**32)
    return philox_4x32((block, stream, low_id, high_id), (low_seed, high_seed))


def words(n: int, stream: int, sample_id: int, seed: int, first_block: int = 0) -> list[int]:
    """Word j of block b is element j*q + b of a list from q blocks."""
    q = -(-n // 4)
    blocks = [block_words(first_block + b, stream, sample_id, seed) for b in range(q)]
    return [block[j] for j in range(4) for block in blocks][:n]
