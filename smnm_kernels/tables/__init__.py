"""Filter taps, the torus, and constants: the data that the kernels of all languages share.

All of it is integers, computed once on the host in exact or correctly rounded arithmetic.
"""
