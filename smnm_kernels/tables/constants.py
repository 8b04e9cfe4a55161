"""The constants that more than one kernel or language needs.

The C++ kernels repeat some of them, and a test compares the two.
"""

from __future__ import annotations

import enum

import numpy as np


class Purpose(enum.IntEnum):
    """What random words are for: the second word of Philox's counter."""

    NOISE = 0
    SIGMA = 1
    ORDER = 2
    TIE = 3
    CROP = 4


#: Units of the integer noise per standard deviation; quantiles of N(0, 1) in a table this long.
NOISE_UNIT = 256
N_QUANTILES = 4096
#: L2 norm of the taps of a pass, and the shift that undoes it.
TAP_UNIT = 2048
TAP_SHIFT = 11
#: Between passes the signal is clamped to this, nearly six standard deviations. With the L1 norm of
#: the widest taps it keeps every sum below 2**24, where float32 is exact, and it fits float16.
MAX_SIGNAL = 1500
#: The field is clamped to 22 bits and a sign, eight standard deviations at the least.
MAX_FIELD = 2**22 - 1
#: White noise has the odd integers of this many bits and a sign for its values.
WHITE_BITS = 22
#: From those integers to unit variance: their standard deviation is 2**22 / sqrt(3).
WHITE_SCALE = np.float32(3**0.5 / 2**WHITE_BITS)

#: Scores of R-BN are sums of thousandths in int32, with headroom for a "full" marker.
MAX_SCORE = 2**28
MAX_CANDIDATES = 1024

#: The seed XOR this draws the structure of grid, block, inverse block and time-frequency masks, so
#: that its words are not those of the white noise that is added.
STRUCTURE_SEED = 0x2545F4914F6CDD1D
#: As many blocks cover a frame but for a few patches, whatever is drawn.
N_BLOCKS = 32
