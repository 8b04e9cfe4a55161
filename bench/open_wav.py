"""What it costs to open a WAV file and read it, with FFmpeg's search for DTS among the samples and
without it, as files are read that the scan found to be plain.

    python bench/open_wav.py
"""

from __future__ import annotations

import tempfile
import time
import wave
from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np

from smnm_kernels.train.data import sound
from smnm_kernels.train.data.source import Source

SECONDS = (0.4, 1.3, 10.0, 60.0)
RATE = 16_000
_ROUNDS = 21


def main() -> None:
    print(f"PyAV {av.__version__}; CPU ms, medians of {_ROUNDS}, the two by turns; 16 kHz, mono\n")
    print("| seconds | search, then read all | read all | ratio |")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in SECONDS:
            path = Path(folder, f"{seconds}.wav")
            _write(path, seconds)
            source = Source(path)
            record = sound.probe(source, 0.1)
            assert record["direct"]
            ways = (record | {"direct": False}, record)
            searched, direct = _times(
                *(partial(sound.read, source, way, 0, way["samples"]) for way in ways)
            )
            print(f"| {seconds:g} | {searched:.2f} | {direct:.2f} | {direct / searched:.2f} |")


def _write(path: Path, seconds: float) -> None:
    samples = np.random.default_rng(0).standard_normal(int(RATE * seconds)) * 3000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def _times(*calls: Callable[[], object]) -> list[float]:
    """Median CPU milliseconds of each."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(_ROUNDS):
        for call, of in zip(calls, taken, strict=True):
            began = time.process_time()
            call()
            of.append(1000 * (time.process_time() - began))
    return [float(np.median(of)) for of in taken]


if __name__ == "__main__":
    main()
