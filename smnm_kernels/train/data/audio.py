"""Audio files: what can be sampled from one, and the log-mel spectrogram of one excerpt.

soundfile reads, FFmpeg's resampler (through PyAV) brings other rates to 16 kHz, kaldi-native-fbank
computes what AudioMAE takes from torchaudio's kaldi.fbank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import kaldi_native_fbank as knf
import numpy as np
import soundfile
import torch
from torch import Tensor

from smnm_kernels.errors import Unusable

from .modality import InputFormat, Record
from .picture_rows import spectrograms
from .sample_randomness import SampleRandomness
from .source import Source
from .statistics import AUDIOSET_MEAN, AUDIOSET_STD

SUFFIXES = frozenset(
    (".aif", ".aifc", ".aiff", ".au", ".flac", ".mp3", ".oga", ".ogg", ".opus", ".w64", ".wav")
)

RATE = 16_000  # Hz
WINDOW = RATE * 25 // 1000  # 25 ms
HOP = RATE * 10 // 1000  # 10 ms
# One patch of 16 frames must be real sound; the rest may be padding.
MIN_SECONDS = (WINDOW + 15 * HOP) / RATE
# A recording that moves by less than this (full scale 1, about -80 dB) counts as silent.
SILENCE = 2e-4


def probe(path: Path) -> dict[str, int]:
    """Length and rate of a recording long and loud enough to learn from; raises Unusable otherwise.

    Reads the whole file, because silence, damage and the true length of an mp3 show no other way.
    """
    low, high, count = np.inf, -np.inf, 0
    try:
        with soundfile.SoundFile(path) as file:
            rate, declared = file.samplerate, file.frames
            for block in file.blocks(blocksize=1 << 18, dtype="float32"):
                if not np.isfinite(block).all():
                    raise Unusable("holds values that are not finite numbers")
                low, high = min(low, block.min()), max(high, block.max())
                count += len(block)
    except (soundfile.SoundFileError, OSError) as error:
        raise Unusable(f"does not decode ({_reason(error)})") from error
    # The length of an mp3 is an estimate until it is read, hence the tenth.
    if count < 0.9 * declared:
        raise Unusable(f"is truncated: {count} of {declared} samples are there")
    if count < MIN_SECONDS * rate:
        raise Unusable(f"is too short: {count / rate:.3f} s, {MIN_SECONDS:.3f} s are needed")
    if high - low < SILENCE:
        raise Unusable("is silent")
    return {"samples": count, "rate": rate}


def _reason(error: Exception) -> str:
    return getattr(error, "error_string", None) or str(error) or type(error).__name__


def read_samples(path: Path, start: int, count: int) -> tuple[np.ndarray, int]:
    """`count` samples from `start` on (fewer at the file's end), mono float32, and their rate."""
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(start)
            samples = file.read(count, dtype="float32", always_2d=True)
            if not len(samples):
                raise Unusable(f"has no samples at {start}")
            return samples.mean(axis=1), file.samplerate
    except (soundfile.SoundFileError, OSError) as error:
        raise Unusable(f"does not decode ({_reason(error)})") from error


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Mono float32 at `rate` Hz -> mono float32 at 16 kHz."""
    if rate == RATE:
        return samples
    resampler = av.AudioResampler(format="flt", layout="mono", rate=RATE)
    frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
    frame.sample_rate = rate
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([part.to_ndarray()[0] for part in parts])


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


# The middle one of 19 uniform numbers is distributed as Beta(10, 10).
_GAIN_UNIFORMS = 19


@dataclass(frozen=True)
class Audio:
    """Log-mel spectrograms of excerpts at a random time offset.

    Time-major: H = time, W = mel band. A recording shorter than the window is padded at
    its end with zeros, as AudioMAE pads.
    """

    frames: int  # of 25 ms, every 10 ms
    bands: int
    gain: bool = False  # multiply each excerpt by 0.5 + Beta(10, 10): AudioMAE's pretraining

    name = "audio"
    suffixes = SUFFIXES

    @property
    def inputs(self) -> dict[str, InputFormat]:
        mean, scale = (AUDIOSET_MEAN,), (2 * AUDIOSET_STD,)
        size = (1, 1, self.frames, self.bands)
        return {"audio": InputFormat(size, mean, scale, spectrograms)}

    def probe(self, source: Source) -> dict[str, int]:
        return probe(source.path)

    def read(
        self, source: Source, record: Record, randomness: SampleRandomness
    ) -> dict[str, Tensor]:
        rate = record["rate"]
        wanted = WINDOW + (self.frames - 1) * HOP  # samples at 16 kHz
        count = -(-wanted * rate // RATE)
        spare = max(0, record["samples"] - count)
        u = randomness.uniforms(1 + _GAIN_UNIFORMS)
        samples, rate = read_samples(source.path, int(u[0] * (spare + 1)), count)
        if self.gain:
            samples = samples * np.float32(0.5 + np.sort(u[1:])[_GAIN_UNIFORMS // 2])
        mel = log_mel(resample(samples, rate), self.bands)[: self.frames]
        excerpt = torch.zeros(1, 1, self.frames, self.bands)
        excerpt[0, 0, : len(mel)] = torch.from_numpy(mel)
        return {"audio": excerpt}

    def remarks(self, records: Sequence[Record]) -> list[str]:
        return []
