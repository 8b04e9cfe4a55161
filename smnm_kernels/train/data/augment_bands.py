"""Masked bands of spectrograms: tensor operations on the device, drawn on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .sample_randomness import BANDS, SampleRandomness


@dataclass(frozen=True)
class Bands:
    """SpecAugment without warping (Park et al. 2019), as torchaudio masks: one stretch of time and
    one of mel bands become 0, each up to so many frames or bands long. Raw 0 is also what AudioMAE
    pads with."""

    time: int
    mel: int

    def draw(self, seed: int, sample_ids: Sequence[int], frames: int, bands: int) -> Tensor:
        """int64 [B, 4]: begin and end in time, begin and end in mel bands."""
        found = []
        for index in sample_ids:
            u = SampleRandomness(seed, int(index), BANDS).uniforms(4).tolist()
            time = _stretch(u[0], u[1], self.time, frames)
            found.append([*time, *_stretch(u[2], u[3], self.mel, bands)])
        return torch.tensor(found, dtype=torch.int64).view(-1, 4)

    def values(self, x: Tensor, drawn: Tensor) -> Tensor:
        """Raw log-mel [B, 1, 1, frames, bands], `drawn` on the same device."""
        begin, end, low, high = drawn.T
        times = _between(begin, end, x.shape[3])[:, None, None, :, None]
        mels = _between(low, high, x.shape[4])[:, None, None, None, :]
        return x.masked_fill(times | mels, 0.0)


def _between(begin: Tensor, end: Tensor, size: int) -> Tensor:
    """bool [B, size]"""
    place = torch.arange(size, device=begin.device)
    return (place >= begin[:, None]) & (place < end[:, None])


def _stretch(u_length: float, u_begin: float, longest: int, size: int) -> tuple[int, int]:
    length = u_length * min(longest, size)
    begin = int(u_begin * (size - length))
    return begin, begin + int(length)
