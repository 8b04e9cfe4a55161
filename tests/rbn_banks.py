"""What tests of R-BN share: weights, the drawn order and ties from the words alone, and sets."""

from philox_4x32 import words

import smnm_kernels as smnm

WEIGHTS = [
    (0.4, 0.4, 0.1, 0.1),
    (0.1, 0.2, 0.3, 0.3),  # 0.1 + 0.2 ties with 0.3, but not in binary
    (0.7, 0.1, 0.8, 0.2),
    (1.1, 2.2, 3.3, 4.4),
    (1.001, 1, 1, 1),  # 1000 * 1.001 is 1000.9999999999999 in binary
    (0.001, 0.002, 0.003, 0.005),
    (0, 0, 0, 0),
    (1, 0, 0, 0),
    (0, 1, 0, 0),
    (0, 0, 1, 0),
    (0, 0, 0, 1),
    (12.345, 0.999, 100, 7.5),
]


def as_sets(bank):
    """[G][K] sets of visible positions."""
    return [[set(mask.nonzero().flatten().tolist()) for mask in masks] for masks in bank.cpu()]


def tie_breaker(order, seed, bank):
    """The documented choice: of the tied masks in order, the one at word * n_tied >> 32, where the
    words of a sweep belong to positions and each sweep has blocks of its own."""
    n_tokens = len(order)
    sweeps: dict[int, list[int]] = {}

    def choose(step, tied):
        sweep = step // n_tokens
        if sweep not in sweeps:
            first = sweep * -(-n_tokens // 4)
            sweeps[sweep] = words(n_tokens, smnm.reference.Purpose.TIE, bank, seed, first)
        return tied[sweeps[sweep][order[step % n_tokens]] * len(tied) >> 32]

    return choose


def bank_order(bank, n_tokens, seed):
    """Positions by their random word, ties (never seen) to the lower position."""
    keys = words(n_tokens, smnm.reference.Purpose.ORDER, bank, seed)
    return sorted(range(n_tokens), key=lambda position: (keys[position], position))
