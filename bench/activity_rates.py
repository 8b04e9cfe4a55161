"""How well ``activity_segments`` finds sounds in noise: hit and false-alarm rates.

    python bench/activity_rates.py

Recordings of ten seconds are made, of sounds with known beginnings and ends in white or pink noise,
and brought to log-mel as the trainer does. The signal-to-noise ratio is that of the power of a
recording's sounds while they last to that of the noise, over all frequencies.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import numpy as np
import torch

import smnm_kernels as smnm
from smnm_kernels.train.data.sound import RATE
from smnm_kernels.train.data.spectrogram import HOP, WINDOW, log_mel
from smnm_kernels.train.data.statistics import AUDIOSET_MEAN, AUDIOSET_STD

FRAMES, BANDS = 1024, 128
RATIOS = (30, 20, 10, 5)  # dB
FIRST_SEED = 1000  # the defaults were chosen on recordings of seeds below
NOISES = ("white", "pink")


class Recording(NamedTuple):
    mel: torch.Tensor  # [frames, bands]
    is_sound: np.ndarray  # bool [frames], at the middle of each


class Rates(NamedTuple):
    frames_hit: float  # of frames with sound, those that lie in a segment
    frames_false: float  # of quiet frames, those that lie in a segment
    sounds_hit: float  # of sounds, those of which a segment covers half
    segments_false: float  # of segments, those of which not even half is sound


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--recordings", type=int, default=8, help="for each line of the table")
    n = parser.parse_args().recordings
    print(
        "| sounds | noise | dB | frames hit | frames false | sounds hit | segments false |\n"
        "|---|---|---|---|---|---|---|"
    )
    seeds, same = range(FIRST_SEED, FIRST_SEED + n), []
    for kind in SOUNDS:
        for noise in NOISES:
            for ratio in RATIOS:
                made = [recording(kind, noise, ratio, seed) for seed in seeds]
                found = segments(made)
                same.append((found == segments(made, normalised=True)).mean())
                cells = " | ".join(f"{rate:.3f}" for rate in rates(made, found))
                print(f"| {kind} | {noise} | {ratio} | {cells} |", flush=True)
    for noise in NOISES:
        made = [recording("none", noise, 0, seed) for seed in range(FIRST_SEED, FIRST_SEED + 4 * n)]
        found = segments(made)
        in_vain = (found > 0).any(1).mean()
        print(f"| none | {noise} | | | {(found > 0).mean():.3f} | | in {in_vain:.3f} of them |")
    print(f"\nRaw and normalised input agree in {np.mean(same):.5f} of all frames.")


def segments(recordings: list[Recording], normalised: bool = False) -> np.ndarray:
    """int64 [n, frames]: a row of patches is one frame high here."""
    data = torch.stack([made.mel for made in recordings])[:, None, None]
    if normalised:
        data = (data - AUDIOSET_MEAN) / (2 * AUDIOSET_STD)
    return smnm.activity_segments(data, (1, 1, BANDS)).numpy()


def rates(recordings: list[Recording], found: np.ndarray) -> Rates:
    is_sound = np.stack([made.is_sound for made in recordings])
    sounds = [(found[i, a:b] > 0).mean() for i, row in enumerate(is_sound) for a, b in runs(row)]
    real = [
        is_sound[i, row == k].mean() for i, row in enumerate(found) for k in range(1, row.max() + 1)
    ]
    return Rates(
        (found > 0)[is_sound].mean(),
        (found > 0)[~is_sound].mean(),
        np.mean(np.array(sounds) >= 0.5),
        np.mean(np.array(real) < 0.5) if real else 0.0,
    )


def runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """(first, behind the last) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def recording(kind: str, noise: str, ratio: float, seed: int, frames: int = FRAMES) -> Recording:
    """Sounds of 0.25 to 1.2 s, 0.3 to 1.5 s apart; "none" has none, and "mixed" any of the others,
    each up to 12 dB below the loudest."""
    rng = np.random.default_rng([seed, sum(map(ord, kind))])
    n = WINDOW + (frames - 1) * HOP
    samples, is_sound = np.zeros(n), np.zeros(n, dtype=bool)
    begin = int(RATE * rng.uniform(0.3, 1.5))
    while kind != "none":
        length = int(RATE * rng.uniform(0.25, 1.2))
        if begin + length > n - 0.3 * RATE:
            break
        sound = rng.choice([*SOUNDS][:-1]) if kind == "mixed" else kind
        shape = SOUNDS[sound](length, rng)
        level = 10 ** (-rng.uniform(0, 12) / 20) if kind == "mixed" else 1.0
        samples[begin : begin + length] = level * shape / np.sqrt((shape**2).mean())
        is_sound[begin : begin + length] = True
        begin += length + int(RATE * rng.uniform(0.3, 1.5))
    power = np.sqrt((samples[is_sound] ** 2).mean()) if is_sound.any() else 1.0
    samples = 0.05 * (samples / power + 10 ** (-ratio / 20) * _noise(noise, n, rng))
    middles = np.arange(frames) * HOP + WINDOW // 2
    mel = log_mel(samples.astype(np.float32), BANDS)
    return Recording(torch.from_numpy(mel), is_sound[middles])


def _noise(kind: str, n: int, rng: np.random.Generator) -> np.ndarray:
    white = rng.standard_normal(n)
    if kind == "white":
        return white
    spectrum = np.fft.rfft(white)
    lowest = 50 * n / RATE  # below 50 Hz it falls no more
    shaped = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), lowest)), n)
    return shaped / shaped.std()


def _tone(n: int, rng: np.random.Generator) -> np.ndarray:
    return np.sin(2 * np.pi * rng.uniform(200, 3000) * np.arange(n) / RATE) * _edges(n, 0.01)


def _note(n: int, rng: np.random.Generator) -> np.ndarray:
    """With 15 harmonics."""
    phase = 2 * np.pi * rng.uniform(100, 400) * np.arange(n) / RATE
    return sum(np.sin(k * phase) / k for k in range(1, 16)) * _edges(n, 0.01)


def _word(n: int, rng: np.random.Generator) -> np.ndarray:
    """Noise with three formants and syllables, between which it falls to a quarter (12 dB)."""
    frequency = np.fft.rfftfreq(n, 1 / RATE)
    formants = [(300, 800, 150, 1.0), (1000, 2500, 250, 0.5), (2500, 4500, 800, 0.2)]
    gain = sum(
        strength * np.exp(-0.5 * ((frequency - rng.uniform(low, high)) / width) ** 2)
        for low, high, width, strength in formants
    )
    voice = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * gain, n)
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * rng.uniform(3, 6) * np.arange(n) / RATE)
    return voice / voice.std() * (0.25 + 0.75 * syllables) * _edges(n, 0.03)


def _burst(n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(n) * _edges(n, 0.005)


def _edges(n: int, seconds: float) -> np.ndarray:
    """1, but for a smooth rise and fall."""
    gain, length = np.ones(n), int(seconds * RATE)
    gain[:length] = 0.5 - 0.5 * np.cos(np.pi * np.arange(length) / length)
    gain[-length:] = gain[:length][::-1]
    return gain


SOUNDS = {"tones": _tone, "notes": _note, "words": _word, "bursts": _burst, "mixed": None}


if __name__ == "__main__":
    main()
