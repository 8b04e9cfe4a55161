"""The random words are Philox4x32-10, laid out as the reference documents."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from philox_4x32 import block_words, philox_4x32, words
from strategies import IDS, SEEDS

import smnm_kernels as smnm

#: Known answers of Random123 (kat_vectors): counter, key, output.
KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_known_answers(counter, key, output):
    assert philox_4x32(counter, key) == output
    block, stream, id_low, id_high = counter
    sample_id, seed = id_low | id_high << 32, key[0] | key[1] << 32
    drawn = smnm.reference.philox(np.array([block]), stream, sample_id, seed)
    assert drawn.dtype == np.uint32
    assert drawn[:, 0].tolist() == output


@given(
    blocks=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=5),
    stream=st.integers(0, 4),
    sample_id=IDS,
    seed=SEEDS,
)
def test_signed_ids_and_seeds_enter_as_their_64_bits(blocks, stream, sample_id, seed):
    drawn = smnm.reference.philox(np.array(blocks), stream, sample_id, seed)
    assert drawn.T.tolist() == [block_words(b, stream, sample_id, seed) for b in blocks]


@given(
    n=st.integers(1, 40),
    stream=st.integers(0, 4),
    sample_id=IDS,
    seed=SEEDS,
    first=st.integers(0, 99),
)
def test_words_come_in_segments(n, stream, sample_id, seed, first):
    drawn = smnm.reference.words(n, stream, sample_id, seed, first_block=first)
    assert drawn.tolist() == words(n, stream, sample_id, seed, first_block=first)


def test_each_use_has_its_own_stream():
    streams = [stream.value for stream in smnm.reference.Stream]
    assert sorted(streams) == list(range(len(streams)))
    assert {s.name for s in smnm.reference.Stream} >= {"NOISE", "SIGMA", "ORDER", "TIE"}
    drawn = {tuple(smnm.reference.words(8, s, 3, 4).tolist()) for s in streams}
    assert len(drawn) == len(streams)


def test_words_differ_in_every_coordinate():
    drawn = [
        tuple(smnm.reference.philox(np.array([block]), stream, sample_id, seed)[:, 0].tolist())
        for block in (0, 1)
        for stream in (0, 1)
        for sample_id in (0, 1, 2**32)
        for seed in (0, 1, 2**32)
    ]
    assert len(set(drawn)) == len(drawn)
