"""The largest n_keep values of each row, in the order that torch.sort gives any floats."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testing import assert_same, devices

import smnm_kernels as smnm

pytestmark = [
    pytest.mark.usefixtures("poisoned_memory"),
    pytest.mark.parametrize("device", devices()),
]

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16]
INF, NAN = float("inf"), float("nan")
#: Includes both zeros, denormals, the largest and smallest numbers of each type, and neighbours.
SPECIAL = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1 + 2**-23, 1 + 2**-52, 2**-149, -(2**-149)]
SPECIAL += [5e-324, -5e-324, 65504.0, 3.3895313892515355e38, -3.4028234663852886e38, 1e308, -1e308]


def by_sorting(noise, n_keep):
    """bool [B, N] from a stable descending sort on the CPU."""
    flat = noise.cpu().flatten(1)
    largest = flat.sort(dim=1, descending=True, stable=True).indices[:, :n_keep]
    return torch.zeros(flat.shape, dtype=torch.bool).scatter_(1, largest, True)


def check(noise, n_keep, device):
    masks = smnm.threshold(noise.to(device), n_keep=n_keep)
    assert_same(masks.visible, by_sorting(noise, n_keep))
    assert_same(masks, smnm.reference.threshold(noise, n_keep=n_keep))
    assert_same(masks, smnm.Masks.from_visible(masks.visible, n_keep))


@given(
    rows=st.integers(1, 60).flatmap(
        lambda n: st.lists(
            st.lists(
                st.one_of(st.sampled_from(SPECIAL), st.floats(width=64), st.integers(-3, 3)),
                min_size=n,
                max_size=n,
            ),
            max_size=3,
        ).map(lambda rows: (n, rows))
    ),
    dtype=st.sampled_from(DTYPES),
    data=st.data(),
)
def test_any_values(device, rows, dtype, data):
    n_tokens, values = rows
    noise = torch.tensor(values, dtype=torch.float64).reshape(len(values), n_tokens).to(dtype)
    check(noise, data.draw(st.integers(1, n_tokens)), device)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [0.0, -0.0, 3.5, -3.5, INF, -INF, NAN])
def test_constant_rows_keep_the_first_tokens(device, dtype, value):
    for n_tokens in (1, 2, 17, 5000, 40000):
        noise = torch.full((2, n_tokens), value, dtype=dtype)
        for n_keep in {1, n_tokens // 2 or 1, n_tokens}:
            masks = smnm.threshold(noise.to(device), n_keep=n_keep)
            first = torch.arange(n_keep).expand(2, -1)
            assert_same(masks.ids_keep, first)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_rows_with_and_without_ties(device, dtype):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 9001, generator=generator, dtype=torch.float64)
    for scale in (1e-3, 1.0, 3.0, 1e3):
        values = (noise * scale).round() if scale > 1 else noise * scale
        for n_keep in (1, 5000, 9000, 9001):
            check(values.to(dtype), n_keep, device)


def test_nan_is_above_infinity_and_zeros_are_equal(device):
    noise = torch.tensor([[0.0, -0.0, NAN, INF, -NAN, -INF], [-0.0, 0.0, -INF, 0.0, -0.0, -1.0]])
    visible = smnm.threshold(noise.to(device), n_keep=3).visible
    assert visible.tolist() == [
        [False, False, True, True, True, False],
        [True, True, False, True, False, False],
    ]


def test_float64_is_not_rounded_to_float32(device):
    noise = torch.ones(1, 9, dtype=torch.float64)
    noise[0, 6] += 2**-40
    assert smnm.threshold(noise.to(device), n_keep=1).ids_keep.tolist() == [[6]]


def test_every_float16_and_bfloat16(device):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
    shuffled = bits[torch.randperm(2**16, generator=torch.Generator().manual_seed(1))]
    for dtype in (torch.float16, torch.bfloat16):
        for n_keep in (1, 100, 30000, 2**16 - 100):
            check(shuffled.view(dtype)[None], n_keep, device)


def test_every_layout_of_the_noise(device):
    generator = torch.Generator().manual_seed(2)
    noise = torch.randn(3, 2, 4, 5, generator=generator).to(device)
    expected = smnm.threshold(noise, 0.5)
    assert_same(smnm.threshold(noise.flatten(1), 0.5), expected)
    assert_same(
        smnm.threshold(noise.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0), 0.5), expected
    )
    wide = torch.full((3, 2, 4, 11), INF, device=device)
    wide[..., 1::2] = noise
    assert_same(smnm.threshold(wide[..., 1::2], 0.5), expected)
    padded = torch.full((4, 81), INF, device=device).flatten()[1 : 1 + 3 * 80].view(3, 80)
    padded[:, 3:43] = noise.flatten(1)
    assert_same(smnm.threshold(padded[:, 3:43], 0.5), expected)
    assert_same(smnm.threshold(noise.clone().requires_grad_(), 0.5), expected)
    assert_same(
        smnm.threshold(noise[:1].expand(3, -1, -1, -1), 0.5).visible,
        expected.visible[:1].expand(3, -1),
    )


def test_the_noise_is_left_as_it_was(device):
    noise = torch.randn(2, 50, generator=torch.Generator().manual_seed(3)).to(device)
    before = noise.clone()
    smnm.threshold(noise, 0.5)
    assert_same(noise, before)
