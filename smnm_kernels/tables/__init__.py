"""What the kernels of all languages read: filter taps, the torus, the constants that two share.

Everything here is integers, worked out once on the host in exact or correctly rounded arithmetic.
"""
