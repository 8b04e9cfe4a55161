"""Noise and shifts in time of spectrograms: tensor operations on the device, drawn on the host."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .sample_randomness import JITTER, SampleRandomness


@dataclass(frozen=True)
class Jitter:
    """What CAV-MAE's code does to normalised spectrograms (Gong et al. 2023; noise = 0.1): uniform
    noise from 0 up to an amount of each sample's own, which is drawn between 0 and `noise`, then a
    roll along time by any number of frames.

    Where padding is hidden, what is real is rolled within itself (our choice).
    """

    noise: float

    def draw(
        self, seed: int, sample_ids: Sequence[int], frames: int, bands: int
    ) -> tuple[Tensor, Tensor]:
        """float32 noise [B, 1, 1, frames, bands], and by which share of the time each sample is
        rolled, float32 [B] in [0, 1)."""
        n = frames * bands
        noise, shares = np.empty((len(sample_ids), n), np.float32), []
        for row, index in enumerate(sample_ids):
            randomness = SampleRandomness(seed, int(index), JITTER)
            amount, share = randomness.uniforms(2)
            shares.append(share)
            # 16 bits of each number are enough for noise.
            words = randomness.words(2 + -(-n // 4))[2:].astype("<u8").view("<u2")[:n]
            noise[row] = words * np.float32(amount * self.noise / 2**16)
        shape = (len(shares), 1, 1, frames, bands)
        # Rounded to float32, a share could be 1.
        rolled = np.minimum(np.array(shares, np.float32), np.float32(1 - 2**-24))
        return torch.from_numpy(noise).view(shape), torch.from_numpy(rolled)

    def values(self, x: Tensor, noise: Tensor, share: Tensor, real: Tensor | None = None) -> Tensor:
        """Normalised [B, 1, 1, frames, bands], what was drawn on the same device.

        real: int64 [B, 3], how many values along (T, H, W) are no padding; None: all are.
        """
        frames = x.shape[3]
        count = share.new_full((len(x),), frames) if real is None else real[:, 1]
        count = count.long()[:, None]
        place = torch.arange(frames, device=x.device)
        come_from = (place - (share[:, None] * count).long()) % count
        come_from = torch.where(place < count, come_from, place)
        return (x + noise).gather(3, come_from[:, None, None, :, None].expand_as(x))
