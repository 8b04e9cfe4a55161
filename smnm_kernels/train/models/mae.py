"""The masked autoencoder: reconstruct the masked patches from the visible ones.

VideoMAE, MAE and AudioMAE in one: `ModelSettings` says in what they differ.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .positions import Grid, position_codes
from .settings import DecoderSettings, ModelSettings
from .targets import PatchTargets
from .vit import Block, Encoder, InputSize, init_xavier, run_block, select_tokens
from .window_attention import WindowBlock

if TYPE_CHECKING:
    from smnm_kernels import Masks


class Decoder(nn.Module):
    """From the encoder's tokens to `outputs` values for every masked token.

    forward(latent [B, class tokens + n_keep, encoder_dim], masks) -> [B, N - n_keep, outputs].
    """

    pos_embed: Tensor

    def __init__(
        self,
        settings: DecoderSettings,
        grid: Grid,
        encoder_dim: int,
        class_token: bool,
        outputs: int,
    ) -> None:
        super().__init__()
        s = settings
        self.settings, self.class_tokens = s, int(class_token)
        #: True: activations are computed again for the backward pass instead of kept.
        self.checkpoint_activations = False

        self.embed = nn.Linear(encoder_dim, s.dim, bias=s.embed_bias)
        self.mask_token = nn.Parameter(torch.zeros(s.dim))
        self.register_buffer("pos_embed", position_codes(s.positions, grid, s.dim, class_token))
        if s.window is None:
            self.blocks = nn.ModuleList(
                Block(s.dim, s.heads, s.mlp_ratio, s.key_bias, s.norm_eps) for _ in range(s.depth)
            )
        else:
            if grid[0] != 1:
                raise ValueError(f"window needs a grid of (1, H, W), got {grid}")
            self.blocks = nn.ModuleList(
                WindowBlock(
                    s.dim, s.heads, s.mlp_ratio, s.norm_eps, grid[1:], s.window, shifted=i % 2 == 1
                )
                for i in range(s.depth)
            )
        self.norm = nn.LayerNorm(s.dim, eps=s.final_norm_eps)
        self.pred = nn.Linear(s.dim, outputs)

        init_xavier([self.blocks, self.pred])
        if s.xavier_embed:
            init_xavier([self.embed])
        if s.truncated_mask_token:
            nn.init.trunc_normal_(self.mask_token, std=0.02, a=-0.02, b=0.02)
        else:
            nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, latent: Tensor, masks: Masks) -> Tensor:
        attend = self._attend_globally if self.settings.window is None else self._attend_in_windows
        return self.pred(self.norm(attend(self.embed(latent), masks)))

    def _attend_globally(self, tokens: Tensor, masks: Masks) -> Tensor:
        """Class token, visible and masked tokens, each with its own position, in this order.

        The order in which attention gets its tokens changes nothing but rounding. With the masked
        ones at the end, nothing is sorted, and the last block's other tokens can be left out.
        """
        positions = self.pos_embed[self.class_tokens :]
        ids_masked = masks.ids_masked
        visible = tokens[:, self.class_tokens :] + F.embedding(masks.ids_keep, positions)
        hidden = self.mask_token + F.embedding(ids_masked, positions)
        parts = [visible, hidden.to(visible.dtype)]
        if self.class_tokens:
            parts.insert(0, tokens[:, :1] + self.pos_embed[0])
        tokens = torch.cat(parts, dim=1)
        first = tokens.shape[1] - ids_masked.shape[1]
        if not len(self.blocks):
            return tokens[:, first:]
        for block in self.blocks[:-1]:
            tokens = run_block(block, tokens, self.checkpoint_activations)
        return run_block(self.blocks[-1], tokens, self.checkpoint_activations, first)

    def _attend_in_windows(self, tokens: Tensor, masks: Masks) -> Tensor:
        """All tokens in the grid's order, without the class token."""
        positions = self.pos_embed[self.class_tokens :]
        visible = tokens[:, self.class_tokens :] + F.embedding(masks.ids_keep, positions)
        hidden = (self.mask_token + positions).to(visible.dtype).expand(len(visible), -1, -1)
        tokens = hidden.scatter(1, masks.ids_keep.unsqueeze(-1).expand_as(visible), visible)
        for block in self.blocks:
            tokens = run_block(block, tokens, self.checkpoint_activations)
        return select_tokens(tokens, masks.ids_masked)


def check_masks(masks: Masks, x: Tensor, grid: Grid) -> None:
    """ValueError where they are not for as many samples and tokens as an input x [B, ...] has."""
    n = math.prod(grid)
    if masks.ids_restore.shape != (x.shape[0], n):
        raise ValueError(
            f"masks must be for {x.shape[0]} samples of {n} tokens (grid {grid}), "
            f"got ids_restore {tuple(masks.ids_restore.shape)}"
        )


class MaskedAutoencoder(nn.Module):
    """Encoder on visible tokens, light decoder on all, squared error on masked patches.

    forward(x [B, C, T, H, W] float, masks, valid) -> loss, a float32 scalar.

    `valid`, bool [B, N] or None where all are, as in `PatchTargets.loss`.
    """

    def __init__(self, settings: ModelSettings, input_size: InputSize) -> None:
        super().__init__()
        channels = input_size[0]
        self.settings = settings
        self.encoder = Encoder(settings.encoder, input_size)
        self.decoder = Decoder(
            settings.decoder,
            self.encoder.grid,
            settings.encoder.dim,
            settings.encoder.class_token,
            settings.encoder.patch_values(channels),
        )
        self.targets = PatchTargets(
            settings.target, channels, settings.pixel_mean, settings.pixel_std
        )

    @property
    def checkpoint_activations(self) -> bool:
        """Whether activations are computed again for the backward pass instead of kept."""
        return self.encoder.checkpoint_activations

    @checkpoint_activations.setter
    def checkpoint_activations(self, again: bool) -> None:
        self.encoder.checkpoint_activations = again
        self.decoder.checkpoint_activations = again

    def forward_encoder(self, x: Tensor, masks: Masks) -> Tensor:
        """[B, C, T, H, W] -> [B, class tokens + n_keep, dim]."""
        return self._encode(self.encoder.patchify(x), masks)

    def forward_decoder(self, latent: Tensor, masks: Masks) -> Tensor:
        """-> predictions for the masked tokens, as the target is, [B, N - n_keep, P]."""
        return self.decoder(latent, masks)

    def forward_loss(
        self, x: Tensor, pred: Tensor, masks: Masks, valid: Tensor | None = None
    ) -> Tensor:
        """Mean squared error of the masked patches' predictions, always in float32."""
        return self.targets.loss(self.encoder.patchify(x), pred, masks, valid)

    def forward(self, x: Tensor, masks: Masks, valid: Tensor | None = None) -> Tensor:
        check_masks(masks, x, self.encoder.grid)
        patches = self.encoder.patchify(x)
        pred = self.decoder(self._encode(patches, masks), masks)
        return self.targets.loss(patches, pred, masks, valid)

    def _encode(self, patches: Tensor, masks: Masks) -> Tensor:
        # Selected before embedding: a masked patch never enters any computation.
        return self.encoder.encode(select_tokens(patches, masks.ids_keep), masks.ids_keep)

    @torch.no_grad()
    def target(self, patches: Tensor) -> Tensor:
        """What patches [B, n, P] are predicted as, by the settings' `target`: float32 [B, n, P]."""
        return self.targets.target(patches)

    @torch.no_grad()
    def restore(self, x: Tensor, pred: Tensor, masks: Masks) -> Tensor:
        """x with its masked patches replaced by the predictions [B, N - n_keep, P], their
        normalisation undone as `PatchTargets.restored` says. -> [B, C, T, H, W]."""
        patches = self.targets.restored(self.encoder.patchify(x), pred, masks)
        return self.encoder.unpatchify(patches)


def build_model(settings: ModelSettings, input_size: InputSize, seed: int) -> MaskedAutoencoder:
    """A masked autoencoder for inputs (C, T, H, W) with the seed's weights: on every device the
    same. torch's own random stream stays where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MaskedAutoencoder(settings, input_size)
