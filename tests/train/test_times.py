"""Times of frames and samples against the stamps themselves."""

from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest

from smnm_kernels.errors import Unusable
from smnm_kernels.train.data.times import TOLERANCE, Stamps, Times

MS = Fraction(1, 1000)


def stamps_of(numbers, stamps, duration=0):
    collected = Stamps()
    for number, stamp in zip(numbers, stamps, strict=True):
        collected.add(number, SimpleNamespace(pts=stamp, duration=duration))
    return collected


@pytest.mark.parametrize("seed", range(12))
def test_frames_are_where_their_stamps_say(seed):
    rng = np.random.default_rng(seed)
    steps = [
        np.full(300, 40),
        rng.choice([16, 17, 33, 34, 50], 300),
        rng.integers(1, 400, 300),
        np.where(rng.random(300) < 0.02, 5000, 33),
    ][seed % 4]
    stamps = (rng.integers(0, 3000) + np.cumsum(steps)).tolist()
    kept = stamps_of(range(300), stamps, duration=25).of_frames(MS, 300)
    times = Times(kept, 300)
    for k, stamp in enumerate(stamps):
        assert abs(times.of(k) - stamp / 1000) <= TOLERANCE + 1e-6
    assert times.end == pytest.approx(stamps[-1] / 1000 + 0.025, abs=TOLERANCE)
    own = [times.of(k) for k in range(300)]
    assert own == sorted(own)
    for at in rng.uniform(own[0] - 1, own[-1] + 1, 200):
        assert times.at(at) == max(0, sum(t <= at + 1e-6 for t in own) - 1)
    assert all(times.at(t) == k for k, t in enumerate(own) if k == 299 or own[k + 1] > t)
    if seed % 4 == 0:
        assert len(kept["pieces"]) == 1


def test_stamps_at_29_97_hz_in_milliseconds_are_one_line():
    stamps = [round(1001 / 30 * k) for k in range(100_000)]
    kept = stamps_of(range(100_000), stamps).of_frames(MS, 100_000)
    assert len(kept["pieces"]) == 1
    assert Times(kept, 100_000).step == pytest.approx(1.001 / 30, rel=1e-6)


def test_a_pause_of_the_sound_is_no_part_of_it():
    numbers = [1024 * k for k in range(200)]
    stamps = [round(64 * k + (700 if k >= 90 else 0)) for k in range(200)]
    kept = stamps_of(numbers, stamps).of_samples(MS, 204_800, 16_000)
    assert [piece[:2] for piece in kept["pieces"]] == [[0, 0.0], [92_160, 6.46]]
    assert kept["end"] == pytest.approx(13.5)
    # Of clocks that differ by a ten-thousandth none is right: the line follows the stamps.
    slow = [round(64 * k * 1.0001) for k in range(20_000)]
    kept = stamps_of(range(0, 1024 * 20_000, 1024), slow).of_samples(MS, 20_480_000, 16_000)
    assert len(kept["pieces"]) == 1
    assert kept["end"] == pytest.approx(1280 * 1.0001, abs=TOLERANCE)


def test_stamps_in_the_order_of_decoding_are_sorted_and_others_refused():
    kept = stamps_of(range(5), [40, 160, 80, 120, 200]).of_frames(MS, 5)
    assert [Times(kept, 5).of(k) for k in range(5)] == pytest.approx([0.04, 0.08, 0.12, 0.16, 0.2])
    with pytest.raises(Unusable, match=r"time stamps that go back by 2\.950 s"):
        stamps_of(range(4), [0, 1000, 3000, 50]).of_frames(MS, 4)
    with pytest.raises(Unusable, match="has no time stamps"):
        stamps_of([0, 1], [None, None]).of_samples(MS, 2, 8000)
    # One that is missing lies between the others.
    kept = stamps_of(range(4), [0, 40, None, 120]).of_frames(MS, 4)
    assert Times(kept, 4).of(2) == pytest.approx(0.08)
