"""A masked autoencoder for video tubes and spectrogram patches, in plain PyTorch.

One body for both: a sample is [C, T, H, W], cut into patches of (pt, ph, pw). VideoMAE is
[3, 16, 224, 224] in tubes of 2 x 16 x 16; AudioMAE is [1, 1, 1024, 128] (time along H, mel bands
along W) in patches of 1 x 16 x 16. Tokens are in row-major grid order throughout. As in VideoMAE
there is no class token, positions are fixed sines and cosines, and the target is each patch
normalised by its own mean and standard deviation, channel by channel.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from smnm_kernels import Masks

    from .models.settings import ModelSettings


def sincos_positions(grid: tuple[int, int, int], dim: int) -> Tensor:
    """Fixed position codes, float32 [N, dim]; axes longer than 1 share the frequencies out."""
    axes = [a for a in range(3) if grid[a] > 1] or [2]
    if dim % 2 or dim // 2 < len(axes):
        raise ValueError(
            f"dim must be even and at least {2 * len(axes)} for grid {grid}, got {dim}"
        )
    codes = []
    positions = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in grid))
    for i, axis in enumerate(axes):
        pairs = dim // 2 // len(axes) + (i < dim // 2 % len(axes))
        frequency = 10000.0 ** (-torch.arange(pairs, dtype=torch.float64) / pairs)
        angle = positions[:, axis, None] * frequency
        codes += [angle.sin(), angle.cos()]
    return torch.cat(codes, dim=1).float()


def gather_tokens(x: Tensor, ids: Tensor) -> Tensor:
    """Tokens x [B, N, D] at ids [B, n] -> [B, n, D]; the index is expanded, never copied."""
    return x.gather(1, ids.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


class Block(nn.Module):
    """Pre-norm transformer block on [B, n, dim]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"heads must divide dim {dim}, got {heads}")
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        b, n, d = x.shape
        qkv = self.qkv(self.norm1(x)).view(b, n, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(attended.transpose(1, 2).reshape(b, n, d))
        return x + self.fc2(F.gelu(self.fc1(self.norm2(x))))


def _through(blocks: nn.ModuleList, tokens: Tensor, again: bool) -> Tensor:
    for block in blocks:
        tokens = checkpoint(block, tokens, use_reentrant=False) if again else block(tokens)
    return tokens


class Encoder(nn.Module):
    """ViT over the visible patches only: what a run exports.

    forward(x [B, C, T, H, W], ids_keep [B, n] int64 or None for all) -> [B, n, dim].
    """

    def __init__(
        self,
        input_size: tuple[int, int, int, int],
        patch: tuple[int, int, int],
        dim: int,
        depth: int,
        heads: int,
    ) -> None:
        super().__init__()
        channels, *lengths = input_size
        for axis, length, p in zip("THW", lengths, patch, strict=True):
            if length % p or length < p:
                raise ValueError(
                    f"input length {length} along {axis} is not a multiple of patch {p}"
                )
        self.input_size, self.patch = tuple(input_size), tuple(patch)
        self.dim, self.depth, self.heads = dim, depth, heads
        self.checkpoint_activations = False
        self.grid = tuple(length // p for length, p in zip(lengths, patch, strict=True))
        self.patch_values = channels * math.prod(patch)
        self.patch_embed = nn.Linear(self.patch_values, dim)
        self.register_buffer("pos_embed", sincos_positions(self.grid, dim))
        self.blocks = nn.ModuleList(Block(dim, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.apply(_init_weights)

    def patchify(self, x: Tensor) -> Tensor:
        """[B, C, T, H, W] -> [B, N, pt*ph*pw*C]; within a patch the channel runs fastest."""
        if x.ndim != 5 or tuple(x.shape[1:]) != self.input_size:
            raise ValueError(
                f"input must be [B, C, T, H, W] with C, T, H, W = {self.input_size}, "
                f"got {tuple(x.shape)}"
            )
        b, c = x.shape[:2]
        (t, h, w), (pt, ph, pw) = self.grid, self.patch
        x = x.view(b, c, t, pt, h, ph, w, pw).permute(0, 2, 4, 6, 3, 5, 7, 1)
        return x.reshape(b, t * h * w, self.patch_values)

    def unpatchify(self, patches: Tensor) -> Tensor:
        """Inverse of patchify: [B, N, pt*ph*pw*C] -> [B, C, T, H, W]."""
        n = math.prod(self.grid)
        if patches.ndim != 3 or tuple(patches.shape[1:]) != (n, self.patch_values):
            raise ValueError(
                f"patches must be [B, {n}, {self.patch_values}], got {tuple(patches.shape)}"
            )
        b, c = patches.shape[0], self.input_size[0]
        (t, h, w), (pt, ph, pw) = self.grid, self.patch
        x = patches.view(b, t, h, w, pt, ph, pw, c).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(b, *self.input_size)

    def forward(self, x: Tensor, ids_keep: Tensor | None = None) -> Tensor:
        patches = self.patchify(x)
        positions = self.pos_embed.expand(x.shape[0], -1, -1)
        if ids_keep is not None:
            # Gather before embedding: a masked patch never enters any computation.
            patches = gather_tokens(patches, ids_keep)
            positions = gather_tokens(positions, ids_keep)
        tokens = self.patch_embed(patches) + positions
        tokens = _through(self.blocks, tokens, self.checkpoint_activations)
        return self.norm(tokens)


class MaskedAutoencoder(nn.Module):
    """Encoder on visible tokens, light decoder on all, MSE on masked patches.

    forward(x [B, C, T, H, W] float, masks) -> loss, a float32 scalar.
    """

    def __init__(
        self,
        encoder: Encoder,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder_embed = nn.Linear(encoder.dim, decoder_dim)
        self.mask_token = nn.Parameter(torch.zeros(decoder_dim))
        self.register_buffer("decoder_pos_embed", sincos_positions(encoder.grid, decoder_dim))
        self.decoder_blocks = nn.ModuleList(
            Block(decoder_dim, decoder_heads) for _ in range(decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder_dim, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder_dim, encoder.patch_values)
        for part in (self.decoder_embed, self.decoder_blocks, self.decoder_norm, self.decoder_pred):
            part.apply(_init_weights)
        nn.init.normal_(self.mask_token, std=0.02)

    @property
    def checkpoint_activations(self) -> bool:
        """Whether activations are computed again for the backward pass instead of kept."""
        return self.encoder.checkpoint_activations

    @checkpoint_activations.setter
    def checkpoint_activations(self, again: bool) -> None:
        self.encoder.checkpoint_activations = again

    def forward_encoder(self, x: Tensor, masks: Masks) -> Tensor:
        """[B, C, T, H, W] -> [B, n_keep, dim]."""
        return self.encoder(x, masks.ids_keep)

    def forward_decoder(self, latent: Tensor, masks: Masks) -> Tensor:
        """[B, n_keep, dim] -> predictions for the masked tokens, normalised, [B, N - n_keep, P]."""
        visible = self.decoder_embed(latent)
        b, n_keep, d = visible.shape
        n = masks.ids_restore.shape[1]
        fill = self.mask_token.to(visible.dtype).expand(b, n - n_keep, d)
        tokens = gather_tokens(torch.cat([visible, fill], dim=1), masks.ids_restore)
        tokens = tokens + self.decoder_pos_embed
        tokens = _through(self.decoder_blocks, tokens, self.encoder.checkpoint_activations)
        return self.decoder_pred(self.decoder_norm(gather_tokens(tokens, masks.ids_masked)))

    def patch_moments(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each patch and channel: [B, n, P] -> two [B, n, P].

        The 1e-6 keeps flat patches finite, as in MAE: their target is then zero.
        """
        per_channel = patches.unflatten(-1, (-1, self.encoder.input_size[0]))
        mean = per_channel.mean(dim=-2, keepdim=True)
        std = (per_channel.var(dim=-2, keepdim=True) + 1e-6).sqrt()
        return mean.expand_as(per_channel).flatten(-2), std.expand_as(per_channel).flatten(-2)

    def forward_loss(self, x: Tensor, pred: Tensor, masks: Masks) -> Tensor:
        """Mean squared error against the normalised masked patches, always in float32."""
        target = gather_tokens(self.encoder.patchify(x), masks.ids_masked).float()
        mean, std = self.patch_moments(target)
        return F.mse_loss(pred.float(), (target - mean) / std)

    def forward(self, x: Tensor, masks: Masks) -> Tensor:
        n = math.prod(self.encoder.grid)
        if masks.ids_restore.shape != (x.shape[0], n):
            raise ValueError(
                f"masks must be for {x.shape[0]} samples of {n} tokens (grid {self.encoder.grid}), "
                f"got ids_restore {tuple(masks.ids_restore.shape)}"
            )
        return self.forward_loss(
            x, self.forward_decoder(self.forward_encoder(x, masks), masks), masks
        )

    def restore(self, x: Tensor, pred: Tensor, masks: Masks) -> Tensor:
        """x with its masked patches replaced by the predictions [B, N - n_keep, P].

        The normalisation is undone with each patch's own mean and standard deviation, which the
        model does not predict: they come from x. -> [B, C, T, H, W].
        """
        patches = self.encoder.patchify(x).float()
        mean, std = self.patch_moments(gather_tokens(patches, masks.ids_masked))
        restored = patches.scatter(
            1, masks.ids_masked.unsqueeze(-1).expand_as(mean), pred.float() * std + mean
        )
        return self.encoder.unpatchify(restored)


def _init_weights(module: nn.Module) -> None:
    """MAE's: Xavier uniform for linear layers, zero biases; LayerNorm keeps its ones and zeros."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)


def build_model(
    settings: ModelSettings, input_size: tuple[int, int, int, int], seed: int
) -> MaskedAutoencoder:
    """The model with the seed's weights: the same on every device."""
    encoder, decoder = settings.encoder, settings.decoder
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedAutoencoder(
            Encoder(input_size, encoder.patch, encoder.dim, encoder.depth, encoder.heads),
            decoder.dim,
            decoder.depth,
            decoder.heads,
        )


ENCODER_FORMAT = "smnm-encoder-1"


def encoder_metadata(encoder: Encoder, **more: str) -> dict[str, str]:
    """What `load_encoder` needs to build the module again, as safetensors metadata (strings)."""
    shape = dict(
        input_size=encoder.input_size,
        patch=encoder.patch,
        dim=encoder.dim,
        depth=encoder.depth,
        heads=encoder.heads,
    )
    return {"format": ENCODER_FORMAT, "encoder": json.dumps(shape), **more}


def load_encoder(path: str | Path) -> Encoder:
    """The Encoder that a run exported as RUN/encoder.safetensors, in eval mode on the CPU.

    It takes float32 [B, C, T, H, W], normalised as the file's metadata says (`mean`, `scale`: the
    input is (raw - mean) / scale, video raw being RGB in [0, 1]), and gives [B, N, dim].
    """
    from safetensors import safe_open

    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != ENCODER_FORMAT:
            raise ValueError(
                f"path must be an encoder exported by smnm ({ENCODER_FORMAT}), "
                f"got {path} of format {metadata.get('format')!r}"
            )
        shape = json.loads(metadata["encoder"])
        encoder = Encoder(
            tuple(shape["input_size"]), tuple(shape["patch"]),
            shape["dim"], shape["depth"], shape["heads"],
        )  # fmt: skip
        names = list(file.keys())
        encoder.load_state_dict({name: file.get_tensor(name) for name in names})
    return encoder.eval()
