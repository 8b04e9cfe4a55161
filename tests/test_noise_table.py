"""The integers that colored noise is made with."""

import decimal

import torch

import smnm_kernels as smnm
from smnm_kernels.tables.noise import _gaussian, noise_table


def test_tables_do_not_depend_on_the_decimal_context():
    with decimal.localcontext(decimal.Context(prec=3)):
        rough = noise_table((2, 5, 6), "green", (0.7123, 0.7123, 2.2345, 2.2345))
    noise_table.cache_clear()
    _gaussian.cache_clear()
    table = noise_table((2, 5, 6), "green", (0.7123, 0.7123, 2.2345, 2.2345))
    assert torch.equal(rough.taps, table.taps)
    assert torch.equal(rough.scale, table.scale)


def test_the_bound_of_close_sigmas_is_allowed():
    assert smnm.noise(torch.arange(1), (1, 3, 3), "green", sigma=(1.425, 1.5)).shape == (1, 1, 3, 3)
