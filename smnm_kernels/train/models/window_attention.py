"""Blocks that attend within windows of a spectrogram's grid: AudioMAE's local decoder.

Post-norm blocks with cosine attention and a continuous position bias, as in Swin Transformer V2
(Liu et al. 2022), shifted along the grid's first axis only.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .vit import Mlp

_BIAS_HIDDEN = 384  # width of the network that gives the position bias
_BIAS_DROPOUT = 0.1
_MIN_TEMPERATURE = 0.01
_ACROSS = -100.0  # logit between tokens that only the cyclic shift brought into one window


class PositionBias(nn.Module):
    """A bias for each head and pair of places in a window, by a small network of their distance.

    forward() -> [heads, h * w, h * w].
    """

    def __init__(self, window: tuple[int, int], heads: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(2, _BIAS_HIDDEN)
        self.fc2 = nn.Linear(_BIAS_HIDDEN, heads)
        places = torch.cartesian_prod(*(torch.arange(n) for n in window)).float()
        distance = places[:, None] - places[None, :]
        self.register_buffer("distance", distance.sign() * distance.abs().log1p(), persistent=False)

    def forward(self) -> Tensor:
        hidden = F.dropout(F.relu(self.fc1(self.distance)), _BIAS_DROPOUT, self.training)
        return F.dropout(self.fc2(hidden), _BIAS_DROPOUT, self.training).permute(2, 0, 1)


class WindowAttention(nn.Module):
    """Cosine attention among the tokens of each window, with a learned temperature a head."""

    def __init__(self, dim: int, heads: int, window: tuple[int, int]) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.tau = nn.Parameter(torch.ones(heads))
        self.meta_mlp = PositionBias(window, heads)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B, windows, n, dim], mask [windows, 1, n, n] added to the logits or None."""
        b, windows, n, d = x.shape
        qkv = self.qkv(x).view(b, windows, n, 3, self.heads, d // self.heads)
        q, k, v = (part.transpose(2, 3) for part in qkv.unbind(3))  # [B, windows, heads, n, -]
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        temperature = self.tau.clamp(min=_MIN_TEMPERATURE).view(-1, 1, 1)
        logits = q @ k.transpose(-2, -1) / temperature + self.meta_mlp()
        if mask is not None:
            logits = logits + mask
        attended = logits.softmax(-1).to(v.dtype) @ v
        return self.proj(attended.transpose(2, 3).reshape(b, windows, n, d))


class WindowBlock(nn.Module):
    """Post-norm block on [B, H * W, dim]; `shift`: its windows begin that far down the H axis."""

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float,
        norm_eps: float,
        grid: tuple[int, int],
        window: tuple[int, int],
        shifted: bool,
    ) -> None:
        super().__init__()
        # A window that reaches over a whole axis is cut to it, and nothing is shifted along it.
        h, w = (min(pair) for pair in zip(grid, window, strict=True))
        for axis, length, size in zip("HW", grid, (h, w), strict=True):
            if length % size:
                raise ValueError(
                    f"window must divide the grid's {axis} of {length} patches, got {size}"
                )
        self.grid, self.window = grid, (h, w)
        self.shift = h // 2 if shifted and h < grid[0] else 0
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = WindowAttention(dim, heads, (h, w))
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))
        self.register_buffer("mask", self._mask() if self.shift else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        shifted = x.view(b, *self.grid, d)
        if self.shift:
            shifted = shifted.roll(-self.shift, dims=1)
        attended = self._from_windows(self.attn(self._to_windows(shifted), self.mask))
        if self.shift:
            attended = attended.roll(self.shift, dims=1)
        x = x + self.norm1(attended.reshape(b, n, d))
        return x + self.norm2(self.mlp(x))

    def _to_windows(self, x: Tensor) -> Tensor:
        """[B, H, W, d] -> [B, windows, h * w, d]"""
        b, height, width, d = x.shape
        h, w = self.window
        x = x.reshape(b, height // h, h, width // w, w, d).transpose(2, 3)
        return x.reshape(b, -1, h * w, d)

    def _from_windows(self, x: Tensor) -> Tensor:
        """Inverse of _to_windows."""
        (height, width), (h, w), d = self.grid, self.window, x.shape[-1]
        x = x.view(-1, height // h, width // w, h, w, d).transpose(2, 3)
        return x.reshape(-1, height, width, d)

    def _mask(self) -> Tensor:
        """[windows, 1, h * w, h * w]; differs from 0 in the last windows along H alone."""
        wrapped = torch.arange(self.grid[0]) >= self.grid[0] - self.shift
        wrapped = wrapped.view(1, -1, 1, 1).expand(1, *self.grid, 1)
        part = self._to_windows(wrapped)[0]  # [windows, h * w, 1]
        return (part != part.transpose(1, 2)).float().mul(_ACROSS).unsqueeze(1)
