"""The vision transformer: patches, pre-norm blocks, and the encoder that a run exports.

One body for pictures, spectrograms and clips. A sample is [C, T, H, W], cut into patches of
(pt, ph, pw); tokens are in row-major grid order throughout. Parameters are named as in MAE and
VideoMAE. Where the two differ, `EncoderSettings` says which one a model follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .positions import position_codes
from .settings import EncoderSettings

InputSize = tuple[int, int, int, int]


def select_tokens(x: Tensor, ids: Tensor) -> Tensor:
    """Tokens x [B, N, D] at ids [B, n] -> [B, n, D]."""
    # Whole rows are copied: `gather` reads an index for each value, and is many times slower.
    b, n, d = x.shape
    rows = ids + n * torch.arange(b, device=ids.device).unsqueeze(1)
    return x.reshape(b * n, d).index_select(0, rows.flatten()).view(b, -1, d)


def patches_of(x: Tensor, patch: tuple[int, int, int]) -> Tensor:
    """[B, C, T, H, W] -> [B, N, C * pt * ph * pw], the channel running slowest; patches of
    (pt, ph, pw) fill the input."""
    b, c = x.shape[:2]
    pt, ph, pw = patch
    t, h, w = (length // p for length, p in zip(x.shape[2:], patch, strict=True))
    x = x.reshape(b, c, t, pt, h, ph, w, pw).permute(0, 2, 4, 6, 1, 3, 5, 7)
    return x.reshape(b, t * h * w, c * pt * ph * pw)


def joined_seen(
    tokens: Mapping[str, Tensor], seen: Mapping[str, Tensor], names: Iterable[str] | None = None
) -> Tensor | None:
    """bool [B, n], which are seen of the tokens [B, n, ...] of several streams, one stream behind
    the other in the order of `names`; None where all are. Streams without a `seen`, bool [B, n],
    are seen whole. names: by default those of `tokens`."""
    names = list(tokens if names is None else names)
    if not any(name in seen for name in names):
        return None
    parts = [
        seen[name] if name in seen else tokens[name].new_ones(tokens[name].shape[:2]).bool()
        for name in names
    ]
    return torch.cat(parts, dim=1)


class Attention(nn.Module):
    """Multi-head self-attention. Without a key bias, queries and values have theirs apart."""

    def __init__(self, dim: int, heads: int, key_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=key_bias)
        if not key_bias:
            self.q_bias = nn.Parameter(torch.zeros(dim))
            self.v_bias = nn.Parameter(torch.zeros(dim))
        self.proj = nn.Linear(dim, dim)

    def bias(self) -> Tensor:
        """Of queries, keys and values: [3 * dim]."""
        if self.qkv.bias is not None:
            return self.qkv.bias
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def forward(self, x: Tensor, first: int = 0, seen: Tensor | None = None) -> Tensor:
        """[B, n, dim] -> [B, n - first, dim]: of the tokens from `first` on, attending to all.

        seen: bool [B, n], the tokens that are attended to; at least one in each row.
        """
        b, n, d = x.shape
        bias, shape = self.bias(), (b, -1, self.heads, d // self.heads)
        if first == 0:
            q, k, v = F.linear(x, self.qkv.weight, bias).view(b, n, 3, *shape[2:]).unbind(2)
        else:
            q = F.linear(x[:, first:], self.qkv.weight[:d], bias[:d]).view(shape)
            k, v = F.linear(x, self.qkv.weight[d:], bias[d:]).view(b, n, 2, *shape[2:]).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in (q, k, v))
        mask = None if seen is None else seen[:, None, None]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)
        return self.proj(attended.reshape(b, n - first, d))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


def drop_path(branch: Tensor, share: float) -> Tensor:
    """[B, ...] with a share of the samples set to zero at random, the others scaled up, so that
    the mean stays: stochastic depth (Huang et al. 2016), sample by sample as in timm."""
    kept = torch.rand(len(branch), device=branch.device) >= share
    factor = kept.to(branch.dtype) / (1 - share)
    return branch * factor.view(-1, *[1] * (branch.ndim - 1))


class Block(nn.Module):
    """Pre-norm transformer block on [B, n, dim]."""

    #: Share of the samples that each of the two branches leaves out in training.
    drop_path = 0.0

    def __init__(
        self, dim: int, heads: int, mlp_ratio: float, key_bias: bool, norm_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads, key_bias)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, round(dim * mlp_ratio))

    def forward(self, x: Tensor, first: int = 0, seen: Tensor | None = None) -> Tensor:
        """-> [B, n - first, dim]: those before `first` are attended to and then left out; `seen`
        as in Attention."""
        x = x[:, first:] + self._dropped(self.attn(self.norm1(x), first, seen))
        return x + self._dropped(self.mlp(self.norm2(x)))

    def _dropped(self, branch: Tensor) -> Tensor:
        return drop_path(branch, self.drop_path) if self.training and self.drop_path else branch


def run_block(block: Callable[..., Tensor], x: Tensor, again: bool, *arguments: Any) -> Tensor:
    """block(x, *arguments); `again`: its activations are computed again in the backward pass."""
    if again and torch.is_grad_enabled():
        return checkpoint(block, x, *arguments, use_reentrant=False)
    return block(x, *arguments)


def init_xavier(modules: Iterable[nn.Module]) -> None:
    """MAE's and VideoMAE's starting values: Xavier-uniform matrices, biases of zero."""
    for module in modules:
        for part in module.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)


class Encoder(nn.Module):
    """ViT over the visible patches only: what a run exports.

    forward(x [B, C, T, H, W], ids_keep int64 [B, n] or None for all) -> [B, n, dim] of the patches.
    """

    pos_embed: Tensor

    def __init__(self, settings: EncoderSettings, input_size: InputSize) -> None:
        super().__init__()
        s = settings
        self.settings, self.input_size = s, input_size
        self.grid = s.grid(input_size)
        #: True: activations are computed again for the backward pass instead of kept.
        self.checkpoint_activations = False

        self.patch_embed = nn.Linear(s.patch_values(input_size[0]), s.dim)
        self.cls_token = nn.Parameter(torch.zeros(s.dim)) if s.class_token else None
        self.register_buffer(
            "pos_embed", position_codes(s.positions, self.grid, s.dim, s.class_token)
        )
        self.blocks = nn.ModuleList(
            Block(s.dim, s.heads, s.mlp_ratio, s.key_bias, s.norm_eps) for _ in range(s.depth)
        )
        self.norm = nn.LayerNorm(s.dim, eps=s.norm_eps) if s.final_norm else nn.Identity()

        init_xavier(self.blocks)
        if s.xavier_embed:
            nn.init.xavier_uniform_(self.patch_embed.weight)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=0.02)

    @property
    def class_tokens(self) -> int:
        """Tokens before the patches: 1 or 0."""
        return int(self.settings.class_token)

    def patchify(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, N, C * pt * ph * pw], the channel running slowest."""
        if x.ndim != 5 or tuple(x.shape[1:]) != self.input_size:
            raise ValueError(
                f"input must be [B, C, T, H, W] with C, T, H, W = {self.input_size}, "
                f"got {tuple(x.shape)}"
            )
        return patches_of(x, self.settings.patch)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Inverse of patchify: [B, N, C * pt * ph * pw] -> [B, C, T, H, W]."""
        c, n = self.input_size[0], math.prod(self.grid)
        if patches.ndim != 3 or tuple(patches.shape[1:]) != (n, self.settings.patch_values(c)):
            raise ValueError(
                f"patches must be [B, {n}, {self.settings.patch_values(c)}], "
                f"got {tuple(patches.shape)}"
            )
        (t, h, w), (pt, ph, pw) = self.grid, self.settings.patch
        x = patches.view(-1, t, h, w, c, pt, ph, pw).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return x.reshape(-1, *self.input_size)

    def embed(self, patches: Tensor, ids: Tensor | None) -> Tensor:
        """Patches [B, n, P] of the tokens ids [B, n] (None: all) -> the first block's input.

        [B, n, dim], or [B, 1 + n, dim] with the class token in front.
        """
        positions = self.pos_embed[self.class_tokens :]
        if ids is not None:
            positions = F.embedding(ids, positions)
        tokens = self.patch_embed(patches) + positions
        if self.cls_token is None:
            return tokens
        first = (self.cls_token + self.pos_embed[0]).expand(len(tokens), 1, -1)
        return torch.cat([first.to(tokens.dtype), tokens], dim=1)

    def encode(self, patches: Tensor, ids: Tensor | None, seen: Tensor | None = None) -> Tensor:
        """As `embed`, through all blocks and the final norm; the class token stays in front.

        seen: bool, as many as the tokens of `embed`: those that are attended to. Default: all.
        """
        tokens = self.embed(patches, ids)
        for block in self.blocks:
            tokens = run_block(block, tokens, self.checkpoint_activations, 0, seen)
        return self.norm(tokens)

    def forward(self, x: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        patches = self.patchify(x)
        if ids_keep is not None:
            # Selected before embedding: a masked patch never enters any computation.
            patches = select_tokens(patches, ids_keep)
        return self.encode(patches, ids_keep)[:, self.class_tokens :]
