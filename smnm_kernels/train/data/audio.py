"""Audio files: which are looked at, and the log-mel spectrogram of one excerpt.

FFmpeg (PyAV) decodes and brings other rates to 16 kHz, kaldi-native-fbank computes what AudioMAE
takes from torchaudio's kaldi.fbank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import kaldi_native_fbank as knf
import numpy as np
import torch
from torch import Tensor

from . import sound
from .modality import FixedView, InputFormat, Record, evenly
from .picture_rows import spectrograms
from .sample_randomness import SampleRandomness
from .sound import RATE
from .source import Source
from .statistics import AUDIOSET_MEAN, AUDIOSET_STD
from .suffixes import AUDIO as SUFFIXES

WINDOW = RATE * 25 // 1000  # 25 ms
HOP = RATE * 10 // 1000  # 10 ms
# One patch of 16 frames must be real sound; the rest may be padding.
MIN_SECONDS = (WINDOW + 15 * HOP) / RATE


def log_mel(samples: np.ndarray, bands: int) -> np.ndarray:
    """Mono float32 at 16 kHz -> log-mel, float32 [frames, bands]: 25 ms windows every 10 ms."""
    options = knf.FbankOptions()
    options.frame_opts.samp_freq = RATE
    options.frame_opts.frame_length_ms = 1000 * WINDOW / RATE
    options.frame_opts.frame_shift_ms = 1000 * HOP / RATE
    options.frame_opts.window_type = "hanning"
    options.frame_opts.dither = 0.0  # a sample is a pure function of the file and the seed
    options.mel_opts.num_bins = bands
    options.use_energy = False
    bank = knf.OnlineFbank(options)
    bank.accept_waveform(RATE, (samples - samples.mean()).tolist())
    bank.input_finished()
    if bank.num_frames_ready == 0:
        return np.zeros((0, bands), dtype=np.float32)
    return np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])


Treatment = Literal["hide", "see"]

# The middle one of 19 uniform numbers is distributed as Beta(10, 10).
_GAIN_UNIFORMS = 19


@dataclass(frozen=True)
class Audio:
    """Log-mel spectrograms of excerpts at a random time offset.

    Time-major: H = time, W = mel band. A recording shorter than the window is padded at
    its end with zeros, as AudioMAE pads. `padding` says what a model makes of these: "hide", they
    are never visible and the loss leaves them out; "see", as AudioMAE, they are like sound.
    """

    frames: int  # of 25 ms, every 10 ms
    bands: int
    gain: bool = False  # multiply each excerpt by 0.5 + Beta(10, 10): AudioMAE's, on AudioSet
    padding: Treatment = "hide"

    name = "audio"
    suffixes = SUFFIXES

    @property
    def inputs(self) -> dict[str, InputFormat]:
        mean, scale = (AUDIOSET_MEAN,), (2 * AUDIOSET_STD,)
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
        wanted = WINDOW + (self.frames - 1) * HOP  # at 16 kHz
        return -(-wanted * rate // RATE)

    def _spare(self, record: Record) -> int:
        """By how many samples a recording is longer than an excerpt."""
        return max(0, record["samples"] - self.count(record["rate"]))

    def spectrogram(
        self, samples: np.ndarray, rate: int, randomness: SampleRandomness | None = None
    ) -> Tensor:
        """An excerpt's mono samples, float32 at `rate` Hz -> float32 [1, 1, frames, bands], padded
        at its end; with randomness, changed as in training. (Its first number is not used: `read`
        takes that for the place.)"""
        if randomness is not None and self.gain:
            u = randomness.uniforms(1 + _GAIN_UNIFORMS)[1:]
            samples = samples * np.float32(0.5 + np.sort(u)[_GAIN_UNIFORMS // 2])
        mel = log_mel(sound.resample(samples, rate), self.bands)[: self.frames]
        excerpt = torch.zeros(1, 1, self.frames, self.bands)
        excerpt[0, 0, : len(mel)] = torch.from_numpy(mel)
        return excerpt

    def padded(self, record: Record) -> dict[str, tuple[int, int, int]]:
        # What resampling makes of a number of samples is that share of it, or one more.
        samples = record["samples"] * RATE // record["rate"]
        real = 1 + (samples - WINDOW) // HOP
        if self.padding == "see" or real >= self.frames:
            return {}
        return {"audio": (1, real, self.bands)}

    def remarks(self, records: Sequence[Record]) -> list[str]:
        hiding = replace(self, padding="hide")
        n = sum(bool(hiding.padded(record)) for record in records)
        if not n:
            return []
        seconds = (WINDOW + (self.frames - 1) * HOP) / RATE
        how = "hidden from the model" if self.padding == "hide" else "seen as if it were sound"
        return [f"{n} recordings are shorter than {seconds:.2f} s; their padding is {how}"]
