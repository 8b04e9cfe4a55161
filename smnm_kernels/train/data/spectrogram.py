"""Front ends: from the samples of a sound to its log-mel spectrogram, float32 [frames, bands].

AudioMAE's is Kaldi's filter bank, which kaldi-native-fbank computes. Those of MaskSpec and MSM-MAE
come from an ordinary short-time Fourier transform, and differ in the settings of `Spectrogram`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import kaldi_native_fbank as knf
import numpy as np

from .sound import RATE

WINDOW = RATE * 25 // 1000  # 25 ms
HOP = RATE * 10 // 1000  # 10 ms

#: "kaldi": triangles over 1127 ln(1 + f / 700), each of height 1. "slaney": over a scale that is
#: linear below 1 kHz and logarithmic above, each of area 1 (Slaney's Auditory Toolbox, 1998).
Mel = Literal["kaldi", "slaney"]


def log_mel(samples: np.ndarray, bands: int) -> np.ndarray:
    """Mono float32 at 16 kHz -> log-mel, float32 [frames, bands]: 25 ms windows every 10 ms, as
    AudioMAE takes them from torchaudio's kaldi.fbank."""
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


class FilterBank:
    """AudioMAE's front end: `log_mel`, whose windows lie within the sound."""

    rate, hop = RATE, HOP
    #: A recording that is too short is padded with frames of zeros, not with silence.
    pads_samples = False

    def samples(self, frames: int) -> int:
        """How many samples so many frames are made of."""
        return WINDOW + (frames - 1) * HOP

    def frames(self, samples: int) -> int:
        """How many frames are made of so many samples; below 1 where there are none."""
        return 1 + (samples - WINDOW) // HOP

    def edges(self, u: np.ndarray) -> None:
        """There is no jitter."""

    def log_mel(
        self, samples: np.ndarray, bands: int, edges: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Mono float32 at `rate` -> float32 [frames, bands]."""
        return log_mel(samples, bands)


@dataclass(frozen=True)
class Spectrogram:
    """A front end: ln(offset + mel bands of the power spectrum).

    Frame i is about sample i * hop of the sound, which is mirrored beyond its ends. An excerpt
    counts as a sound of its own there (our choice; MSM-MAE cuts spectrograms of whole files, where
    the first two frames of an excerpt see what came before).
    """

    rate: int  # Hz
    fft: int  # samples
    window: int  # samples, in the middle of the transform's: Hann
    hop: int  # samples
    low: float  # Hz, the lower edge of the lowest band
    high: float  # Hz, the upper edge of the highest one
    mel: Mel
    offset: float
    periodic: bool = True  # the window: over `window` samples, not over one less
    preemphasis: float = 0.0  # x[n + 1] - preemphasis * x[n] takes the place of x[n]
    #: In training `low` rises by 0, 1, ... Hz, fewer than the first number, and `high` by as many
    #: from minus half of the second number to plus half of it (MaskSpec).
    jitter: tuple[int, int] = (1, 1)
    pads_samples: bool = False  # as in `FilterBank`
    by_band: bool = False  # normalised by mean and deviation of each band, not of all values

    def __post_init__(self) -> None:
        object.__setattr__(self, "jitter", tuple(self.jitter))  # JSON has lists
        if self.mel not in get_args(Mel):
            raise ValueError(f"mel must be one of {', '.join(get_args(Mel))}, got {self.mel!r}")
        if self.fft % 2:
            raise ValueError(f"fft must be even, got {self.fft}")
        if not 0 < self.window <= self.fft:
            raise ValueError(f"window must be in [1, fft {self.fft}], got {self.window}")
        if not (0 <= self.low < self.high <= self.rate / 2):
            raise ValueError(
                f"low and high must be in [0, {self.rate / 2:g}] Hz and rise, "
                f"got {self.low} and {self.high}"
            )

    def samples(self, frames: int) -> int:
        """How many samples so many frames look at: all of the last one's window, too. (One more, so
        that a single frame's can be mirrored.)"""
        return (frames - 1) * self.hop + self.fft // 2 + 1 + bool(self.preemphasis)

    def frames(self, samples: int) -> int:
        """How many frames are made of so many samples: their middles lie within these or right
        behind them. 0 where these are too few to be mirrored."""
        samples -= bool(self.preemphasis)
        return 0 if samples <= self.fft // 2 else 1 + samples // self.hop

    def edges(self, u: np.ndarray) -> tuple[float, float]:
        """(low, high) in Hz by two numbers in [0, 1)."""
        rise, spread = self.jitter
        return self.low + int(u[0] * rise), self.high + spread // 2 - int(u[1] * spread)

    def log_mel(
        self, samples: np.ndarray, bands: int, edges: tuple[float, float] | None = None
    ) -> np.ndarray:
        """Mono float32 at `rate` -> float32 [frames(len(samples)), bands].

        edges: in place of `low` and `high`.
        """
        from scipy.fft import rfft

        if self.frames(len(samples)) < 1:
            return np.zeros((0, bands), dtype=np.float32)
        if self.preemphasis:
            samples = samples[1:] - np.float32(self.preemphasis) * samples[:-1]
        half = self.fft // 2
        mirrored = np.pad(samples, half, mode="reflect")
        parts = np.lib.stride_tricks.sliding_window_view(mirrored, self.fft)[:: self.hop]
        spectrum = rfft(parts * self._window(), axis=1)
        power = (spectrum.real**2 + spectrum.imag**2).T
        low, high = edges or (self.low, self.high)
        # A sparse product adds in one order; a dense one's depends on the number of threads.
        mel = _triangles(self.mel, self.rate, self.fft, bands, low, high) @ power
        return np.log(mel + np.float32(self.offset)).T

    def _window(self) -> np.ndarray:
        """float32 [fft]"""
        n = self.window if self.periodic else self.window - 1
        hann = 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(self.window) / n)
        left = (self.fft - self.window) // 2
        return np.pad(hann, (left, self.fft - self.window - left)).astype(np.float32)


FrontEnd = FilterBank | Spectrogram

AUDIOMAE = FilterBank()


@lru_cache(maxsize=16)  # few more without jitter
def _triangles(mel: Mel, rate: int, fft: int, bands: int, low: float, high: float) -> Any:
    """The bands' weights of each frequency, a sparse float32 matrix [bands, 1 + fft // 2]."""
    from scipy.sparse import csr_array

    # (Kaldi leaves the last one out, which no triangle reaches.)
    hertz = np.arange(1 + fft // 2) * rate / fft
    if mel == "kaldi":
        edges = np.linspace(_kaldi(low), _kaldi(high), bands + 2)
        places = _kaldi(hertz)
    else:
        edges = _slaney_hertz(np.linspace(_slaney(low), _slaney(high), bands + 2))
        places = hertz
    widths = np.diff(edges)
    rise = (places - edges[:-2, None]) / widths[:-1, None]
    fall = (edges[2:, None] - places) / widths[1:, None]
    weights = np.maximum(0, np.minimum(rise, fall))
    if mel == "slaney":
        weights *= 2 / (edges[2:] - edges[:-2])[:, None]
    return csr_array(weights.astype(np.float32))


def _kaldi(hertz: Any) -> Any:
    return 1127 * np.log1p(np.asarray(hertz, dtype=np.float64) / 700)


# Slaney's scale: 3 / 200 a Hz up to 1 kHz, then 27 for each factor of 6.4.
_BEND = 1000.0
_PER_LOG = 27 / math.log(6.4)


def _slaney(hertz: float) -> float:
    if hertz < _BEND:
        return 3 * hertz / 200
    return 3 * _BEND / 200 + _PER_LOG * math.log(hertz / _BEND)


def _slaney_hertz(mel: np.ndarray) -> np.ndarray:
    bend = 3 * _BEND / 200
    above = _BEND * np.exp((np.maximum(mel, bend) - bend) / _PER_LOG)
    return np.where(mel < bend, mel * 200 / 3, above)
