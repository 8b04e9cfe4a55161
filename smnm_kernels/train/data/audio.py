"""Audio files: which are looked at, and the log-mel spectrogram of one excerpt.

FFmpeg (PyAV) decodes and brings other rates to that of the front end (spectrogram.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from . import sound
from .modality import FixedView, InputFormat, Record, evenly
from .picture_rows import spectrograms
from .sample_randomness import EDGES, SampleRandomness
from .sound import RATE
from .source import Source
from .spectrogram import AUDIOMAE, HOP, WINDOW, FrontEnd, Spectrogram
from .statistics import AUDIOSET_MEAN, AUDIOSET_STD
from .suffixes import AUDIO as SUFFIXES

# One patch of 16 frames must be real sound; the rest may be padding. The same with any front end,
# so that they share what is found of files.
MIN_SECONDS = (WINDOW + 15 * HOP) / RATE


Treatment = Literal["hide", "see"]

# The middle one of 19 uniform numbers is distributed as Beta(10, 10).
_GAIN_UNIFORMS = 19


@dataclass(frozen=True)
class Audio:
    """Log-mel spectrograms of excerpts at a random time offset.

    Time-major: H = time, W = mel band. A recording shorter than the window is padded at
    its end, as AudioMAE pads: with frames of zeros, or with samples of zeros where the front end
    says so. `padding` says what a model makes of these: "hide", they are never visible and the loss
    leaves them out; "see", as AudioMAE, they are like sound.
    """

    frames: int  # every 10 ms
    bands: int
    gain: bool = False  # multiply each excerpt by 0.5 + Beta(10, 10): AudioMAE's, on AudioSet
    padding: Treatment = "hide"
    #: None: AudioMAE's, 25 ms windows of 16 kHz.
    front: Spectrogram | None = None
    #: What the input is normalised by, of each band or one of all. None: AudioSet's with AudioMAE's
    #: front end; with others still to be measured.
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.front, Mapping):  # from JSON
            object.__setattr__(self, "front", Spectrogram(**self.front))
        for name in ("mean", "std"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else tuple(value))
        if (self.mean is None) != (self.std is None):
            raise ValueError(f"mean and std must be given together, got {self.mean} and {self.std}")

    name = "audio"
    suffixes = SUFFIXES

    @property
    def front_end(self) -> FrontEnd:
        return self.front or AUDIOMAE

    @property
    def measures(self) -> bool:
        """Whether mean and deviation are still to be measured; until then `inputs` are raw."""
        return self.front is not None and self.mean is None

    @property
    def inputs(self) -> dict[str, InputFormat]:
        mean, scale = self.mean or (0.0,), self.std or (1.0,)
        if self.front is None:  # AudioMAE divides by two deviations
            mean = self.mean or (AUDIOSET_MEAN,)
            scale = tuple(2 * std for std in self.std or (AUDIOSET_STD,))
        size = (1, 1, self.frames, self.bands)
        return {"audio": InputFormat(size, mean, scale, spectrograms)}

    def sized(self, size: tuple[int, int, int, int]) -> Audio:
        return replace(self, frames=size[2], bands=size[3])

    @property
    def probed(self) -> dict[str, Any]:
        return {}

    def probe(self, source: Source) -> dict[str, Any]:
        return sound.probe(source, MIN_SECONDS)

    def read(
        self, source: Source, record: Record, randomness: SampleRandomness
    ) -> dict[str, Tensor]:
        start = int(randomness.uniforms(1)[0] * (self._spare(record) + 1))
        samples = sound.read(source, record, start, self.count(record["rate"]))
        return {"audio": self.spectrogram(samples, record["rate"], randomness)}

    def read_fixed(self, source: Source, record: Record, view: FixedView) -> dict[str, Tensor]:
        start = evenly(view.clip, view.clips, self._spare(record))
        samples = sound.read(source, record, start, self.count(record["rate"]))
        return {"audio": self.spectrogram(samples, record["rate"])}

    def count(self, rate: int) -> int:
        """Samples of an excerpt, at a file's own rate."""
        wanted = self.front_end.samples(self.frames)  # at its own rate
        return -(-wanted * rate // self.front_end.rate)

    def _spare(self, record: Record) -> int:
        """By how many samples a recording is longer than an excerpt."""
        return max(0, record["samples"] - self.count(record["rate"]))

    def spectrogram(
        self, samples: np.ndarray, rate: int, randomness: SampleRandomness | None = None
    ) -> Tensor:
        """An excerpt's mono samples, float32 at `rate` Hz -> float32 [1, 1, frames, bands], padded
        at its end; with randomness, changed as in training. (Its first number is not used: `read`
        takes that for the place.)"""
        front, edges = self.front_end, None
        if randomness is not None:
            edges = front.edges(randomness.apart(EDGES).uniforms(2))
            if self.gain:
                u = randomness.uniforms(1 + _GAIN_UNIFORMS)[1:]
                samples = samples * np.float32(0.5 + np.sort(u)[_GAIN_UNIFORMS // 2])
        samples = sound.resample(samples, rate, front.rate)
        if front.pads_samples:
            samples = np.pad(samples, (0, max(0, front.samples(self.frames) - len(samples))))
        mel = front.log_mel(samples, self.bands, edges)[: self.frames]
        excerpt = torch.zeros(1, 1, self.frames, self.bands)
        excerpt[0, 0, : len(mel)] = torch.from_numpy(mel)
        return excerpt

    def padded(self, record: Record) -> dict[str, tuple[int, int, int]]:
        # What resampling makes of a number of samples is that share of it, or one more.
        real = self.front_end.frames(record["samples"] * self.front_end.rate // record["rate"])
        if self.padding == "see" or real >= self.frames:
            return {}
        return {"audio": (1, real, self.bands)}

    def remarks(self, records: Sequence[Record]) -> list[str]:
        hiding = replace(self, padding="hide")
        n = sum(bool(hiding.padded(record)) for record in records)
        if not n:
            return []
        seconds = self.front_end.samples(self.frames) / self.front_end.rate
        how = "hidden from the model" if self.padding == "hide" else "seen as if it were sound"
        return [f"{n} recordings are shorter than {seconds:.2f} s; their padding is {how}"]
