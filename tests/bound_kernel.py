"""A kernel that only searches for the threshold, for its test."""

import triton
import triton.language as tl

from smnm_kernels.triton_kernels.threshold import bound_near


@triton.jit
def search(
    keys,
    n_tokens,
    n_keep,
    guess_and_spacing,
    out,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    place = tl.arange(0, COLUMNS)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    guess, spacing = tl.load(guess_and_spacing), tl.load(guess_and_spacing + 1)
    bound, n_reaching = bound_near(tl.load(keys + place), n_tokens, n_keep, guess, spacing)
    tl.store(out, bound)
    tl.store(out + 1, n_reaching)
