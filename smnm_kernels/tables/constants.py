"""Constants that more than one kernel or language needs.

``csrc/common/constants.h`` repeats some of them for C++, and a test compares the two.
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
    DRAW = 5
    REVEAL = 6
    MASK_AGAIN = 7


#: Units of the integer noise per standard deviation.
NOISE_UNIT = 256
#: Length of the table of quantiles of N(0, 1), the values of white noise that is filtered.
N_QUANTILES = 4096
#: L2 norm of the taps of a pass, and the shift that undoes it.
TAP_UNIT = 2048
TAP_SHIFT = 11
#: Between passes the signal is clamped to this, nearly six standard deviations. With the L1 norm of
#: the widest taps it keeps every sum below 2**24, where float32 is exact, and it fits float16.
MAX_SIGNAL = 1500
#: The field is clamped to 22 bits and a sign, eight standard deviations at the least.
MAX_FIELD = 2**22 - 1
#: Values of white noise that is not filtered are odd integers of this many bits and a sign.
WHITE_BITS = 22
#: These integers have standard deviation 2**22 / sqrt(3); times this, they have unit variance.
EXACT_WHITE_SCALE = 3**0.5 / 2**WHITE_BITS
WHITE_SCALE = np.float32(EXACT_WHITE_SCALE)

#: Scores of R-BN are sums of thousandths in int32. Larger values mark masks that are full.
MAX_SCORE = 2**28
MAX_CANDIDATES = 1024

#: What the values are that tokens are drawn by: weights, to which probabilities are in proportion;
#: their logarithms to base 2; or scores, of which the largest are drawn, without chance.
DRAW_RULES = ("weights", "log2_weights", "scores")
#: Logarithms of weights are clamped to this.
MAX_LOG2 = 127
#: Logarithms of weighted draws are integers: log2 times 2**LOG_BITS.
LOG_BITS = 23
#: Entries of the tables that they are interpolated from, without the last: for an interval of the
#: mantissa, and for the smaller half of the unit interval.
N_MANTISSAS, N_SHARES = 1024, 512

#: Values whose dispersion is measured are clamped to 2**MAX_VALUE_BITS and become multiples of
#: 2**-DEVIATION_UNIT_BITS, or of 2**-VARIANCE_UNIT_BITS. Then a patch of MAX_PATCH values keeps 64
#: bits.
MAX_VALUE_BITS, DEVIATION_UNIT_BITS, VARIANCE_UNIT_BITS = 10, 16, 12
MAX_PATCH = 2**17
METRICS = ("mad", "variance")
#: Frames are compared in units of 2**-MOTION_BITS, values clamped to +-MOTION_LIMIT.
MOTION_BITS, MOTION_LIMIT = 12, 1024

#: Detection of sounds adds up at most MAX_SMOOTHING frames of MAX_FRAME values each, and multiplies
#: such sums by thousandths up to 1000, or medians of one frame by up to NOISE_FACTOR times the root
#: of MAX_SMOOTHING in thousandths: within 62 bits.
MAX_FRAME, MAX_SMOOTHING = 2**13, 2**8
#: What the sums before and after an onset must differ by at least, in medians of the change from
#: frame to frame, times the root of how many frames are summed. Of recordings of ten seconds of
#: noise alone, one in ten has such a place.
NOISE_FACTOR = 7

#: The seed XOR this draws the structure of a mask: its random words must differ from those that
#: tokens of equal marks are compared by.
STRUCTURE_SEED = 0x2545F4914F6CDD1D
#: The structures of ``ops.structure_masks``, and whether one mask is repeated over T.
STRUCTURES = {
    "grid": True,
    "block": True,
    "inverse_block": True,
    "time_frequency": True,
    "bands": True,
    "multi_block": True,
    "target_block": True,
    "frames": False,
    "running_cell": False,
}
#: Blocks of a "block" mask. This many leave only a few patches uncovered, whatever is drawn.
N_BLOCKS = 32
#: Bands of a "bands" mask, those of time and of frequency together.
N_BANDS = 64
#: Marks of places are in [0, MAX_MARK]: with 22 random bits, they fill an int32.
MAX_MARK = 2**9 - 1
#: Blocks of a "multi_block" mask.
MAX_TARGET_BLOCKS = 64
