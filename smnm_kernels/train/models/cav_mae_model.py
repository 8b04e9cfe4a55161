"""CAV-MAE's model: reconstruct the masked patches of a clip and of its sound from what is visible
of both, and say how each modality looks by itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .audio_video_encoder import MODALITIES, AudioVideoEncoder, AudioVideoSettings
from .positions import position_codes
from .settings import MAE, DecoderSettings, Target
from .targets import PatchTargets
from .vit import Block, InputSize, init_xavier, run_block, select_tokens

if TYPE_CHECKING:
    from smnm_kernels import Masks


@dataclass(frozen=True)
class CavMaeSettings:
    """Encoder, decoder, and what is predicted: `target` as in `ModelSettings`, of both inputs."""

    encoder: AudioVideoSettings
    #: Shared by both modalities. Its `positions` are not asked: each modality has its branch's.
    decoder: DecoderSettings
    target: Target = "patch"  # CAV-MAE

    def __post_init__(self) -> None:
        if self.decoder.window is not None:
            raise ValueError(
                f"window must be None: tokens of two grids have no windows, "
                f"got {self.decoder.window}"
            )

    def resized(
        self,
        *,
        dim: int,
        depth: int,
        heads: int,
        decoder_dim: int,
        decoder_depth: int,
        decoder_heads: int,
    ) -> CavMaeSettings:
        """The same kind of model in another size; `depth` counts the joint blocks, too."""
        return replace(
            self,
            encoder=self.encoder.resized(dim=dim, depth=depth, heads=heads),
            decoder=replace(
                self.decoder, dim=decoder_dim, depth=decoder_depth, heads=decoder_heads
            ),
        )

    def with_clips(self) -> CavMaeSettings:
        """The same for whole clips: tubelets of two frames and positions over time, as VideoMAE has
        them (our choice; CAV-MAE takes one frame)."""
        video = replace(self.encoder.video, patch=(2, 16, 16), positions="flat")
        return replace(self, encoder=replace(self.encoder, video=video))


_BRANCH = replace(MAE.encoder, depth=11, class_token=False, final_norm=False, norm_eps=1e-5)

#: CAV-MAE's model for one frame of 224 x 224 and 1024 frames of 128 mel bands.
CAV_MAE = CavMaeSettings(
    AudioVideoSettings(video=_BRANCH, audio=replace(_BRANCH, positions="columns_rows")),
    replace(MAE.decoder, norm_eps=1e-5, final_norm_eps=1e-5),
)


class JointDecoder(nn.Module):
    """From the joint tokens of both modalities to the values of every masked token of each.

    forward(latent [B, sum of n_keep, dim], masks) -> of each modality [B, N - n_keep, P].
    """

    def __init__(self, settings: DecoderSettings, encoder: AudioVideoEncoder) -> None:
        super().__init__()
        s = settings
        #: True: activations are computed again for the backward pass instead of kept.
        self.checkpoint_activations = False
        self.embed = nn.Linear(encoder.settings.dim, s.dim, bias=s.embed_bias)
        self.mask_token = nn.Parameter(torch.empty(s.dim))
        self.modality = nn.ParameterDict({name: torch.empty(s.dim) for name in MODALITIES})
        for name in MODALITIES:
            branch = encoder.branch(name)
            codes = position_codes(branch.settings.positions, branch.grid, s.dim, False)
            self.register_buffer(f"pos_embed_{name}", codes)
        self.blocks = nn.ModuleList(
            Block(s.dim, s.heads, s.mlp_ratio, s.key_bias, s.norm_eps) for _ in range(s.depth)
        )
        self.norm = nn.LayerNorm(s.dim, eps=s.final_norm_eps)
        self.pred = nn.ModuleDict(
            {name: nn.Linear(s.dim, _values_of_a_patch(encoder, name)) for name in MODALITIES}
        )
        init_xavier([self.embed, self.blocks, self.pred])
        for token in (self.mask_token, *self.modality.values()):
            nn.init.normal_(token, std=0.02)

    def forward(self, latent: Tensor, masks: Mapping[str, Masks]) -> dict[str, Tensor]:
        """Attention is global, so the order of tokens changes nothing but rounding: the visible
        ones of both, then the masked ones of both, which alone come out of the last block."""
        n_visible, n_masked = (
            [ids.shape[1] for ids in of_all]
            for of_all in (
                [masks[name].ids_keep for name in MODALITIES],
                [masks[name].ids_masked for name in MODALITIES],
            )
        )
        visible = self.embed(latent).split(n_visible, dim=1)
        parts = [
            tokens + self._place(name, masks[name].ids_keep)
            for name, tokens in zip(MODALITIES, visible, strict=True)
        ]
        for name in MODALITIES:
            hidden = self.mask_token + self._place(name, masks[name].ids_masked)
            parts.append(hidden.to(parts[0].dtype))
        tokens, again = torch.cat(parts, dim=1), self.checkpoint_activations
        first = sum(n_visible)
        for block in self.blocks[:-1]:
            tokens = run_block(block, tokens, again)
        tokens = run_block(self.blocks[-1], tokens, again, first)
        hidden_of = self.norm(tokens).split(n_masked, dim=1)
        return {name: self.pred[name](x) for name, x in zip(MODALITIES, hidden_of, strict=True)}

    def _place(self, name: str, ids: Tensor) -> Tensor:
        codes = self.get_buffer(f"pos_embed_{name}")
        return F.embedding(ids, codes) + self.modality[name]


class CavMaeOutput(NamedTuple):
    """Of one pass. By "video" and "audio"."""

    losses: dict[str, Tensor]  # of reconstruction, float32 scalars
    means: dict[str, Tensor]  # of each modality's own pass over its visible tokens, [B, dim]


class CavMaeModel(nn.Module):
    """forward(inputs, masks, valid) -> CavMaeOutput.

    All three are dicts by "video" and "audio": inputs float [B, C, T, H, W], `valid` bool [B, N] of
    those that may be padded. Tokens that are not valid are visible in no mask, so they are in no
    mean, and no loss counts them (`PatchTargets.loss`).
    """

    def __init__(self, settings: CavMaeSettings, input_sizes: Mapping[str, InputSize]) -> None:
        super().__init__()
        self.settings = settings
        self.encoder = AudioVideoEncoder(settings.encoder, input_sizes)
        self.decoder = JointDecoder(settings.decoder, self.encoder)
        self.targets = nn.ModuleDict(
            {name: PatchTargets(settings.target, input_sizes[name][0]) for name in MODALITIES}
        )

    @property
    def checkpoint_activations(self) -> bool:
        """Whether activations are computed again for the backward pass instead of kept."""
        return self.encoder.checkpoint_activations

    @checkpoint_activations.setter
    def checkpoint_activations(self, again: bool) -> None:
        self.encoder.checkpoint_activations = again
        self.decoder.checkpoint_activations = again
        for name in MODALITIES:
            self.encoder.branch(name).checkpoint_activations = again

    def forward(
        self,
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor] | None = None,
    ) -> CavMaeOutput:
        patches = self._patches(inputs, masks)
        own = self._own_tokens(patches, masks)
        pred = self._predictions(own, masks)
        losses = {
            name: self.target_of(name).loss(
                patches[name], pred[name], masks[name], (valid or {}).get(name)
            )
            for name in MODALITIES
        }
        means = {name: self.encoder.alone(name, own[name]).mean(1) for name in MODALITIES}
        return CavMaeOutput(losses, means)

    @torch.no_grad()
    def restore(self, inputs: dict[str, Tensor], masks: dict[str, Masks]) -> dict[str, Tensor]:
        """Inputs whose masked patches are replaced by the predictions, as `PatchTargets.restored`
        says: [B, C, T, H, W] of each."""
        patches = self._patches(inputs, masks)
        pred = self._predictions(self._own_tokens(patches, masks), masks)
        return {
            name: self.encoder.branch(name).unpatchify(
                self.target_of(name).restored(patches[name], pred[name], masks[name])
            )
            for name in MODALITIES
        }

    def target_of(self, name: str) -> PatchTargets:
        targets = self.targets[name]
        assert isinstance(targets, PatchTargets)
        return targets

    def _patches(
        self, inputs: Mapping[str, Tensor], masks: Mapping[str, Masks]
    ) -> dict[str, Tensor]:
        found = {}
        for name in MODALITIES:
            branch, x = self.encoder.branch(name), inputs[name]
            n = math.prod(branch.grid)
            if masks[name].ids_restore.shape != (len(x), n):
                raise ValueError(
                    f"{name} masks must be for {len(x)} samples of {n} tokens (grid "
                    f"{branch.grid}), got ids_restore {tuple(masks[name].ids_restore.shape)}"
                )
            found[name] = branch.patchify(x)
        return found

    def _own_tokens(
        self, patches: Mapping[str, Tensor], masks: Mapping[str, Masks]
    ) -> dict[str, Tensor]:
        """Of each branch. Selected before embedding: a masked patch enters no computation."""
        found = {}
        for name in MODALITIES:
            ids = masks[name].ids_keep
            found[name] = self.encoder.branch(name).encode(select_tokens(patches[name], ids), ids)
        return found

    def _predictions(
        self, own: Mapping[str, Tensor], masks: Mapping[str, Masks]
    ) -> dict[str, Tensor]:
        latent = self.encoder.together(torch.cat([own[name] for name in MODALITIES], dim=1))
        return self.decoder(latent, masks)


def build_cav_mae(
    settings: CavMaeSettings, input_sizes: Mapping[str, InputSize], seed: int
) -> CavMaeModel:
    """The model for inputs (C, T, H, W) with the seed's weights: on every device the same. torch's
    own random stream stays where it is."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CavMaeModel(settings, input_sizes)


def _values_of_a_patch(encoder: AudioVideoEncoder, name: str) -> int:
    branch = encoder.branch(name)
    return branch.settings.patch_values(branch.input_size[0])
