"""The encoder of clips with sound, after CAV-MAE: a branch for each modality, then joint blocks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .contrast import normalised
from .encoder_file import loaded
from .settings import EncoderSettings
from .vit import Block, Encoder, InputSize, init_xavier, joined_seen, run_block

MODALITIES = ("video", "audio")
FORMAT = "smnm-audio-video-encoder-1"


@dataclass(frozen=True)
class AudioVideoSettings:
    """Two branches, each over the tokens of one modality, and the joint blocks behind them.

    Of the branches, `depth` counts the blocks before the joint ones. Width and heads are the same
    in both; they have no class token and no norm of their own behind the last block.
    """

    video: EncoderSettings
    audio: EncoderSettings
    joint_depth: int = 1  # CAV-MAE's

    def __post_init__(self) -> None:
        for name in ("dim", "heads", "mlp_ratio", "key_bias", "norm_eps"):
            of_video, of_audio = getattr(self.video, name), getattr(self.audio, name)
            if of_video != of_audio:
                raise ValueError(
                    f"{name} must be the same in both branches, got {of_video} for video and "
                    f"{of_audio} for audio"
                )
        if self.video.class_token or self.audio.class_token:
            raise ValueError("class_token must be False in both branches")
        if self.video.final_norm or self.audio.final_norm:
            raise ValueError("final_norm must be False in both branches: joint blocks follow")
        if self.joint_depth < 1:
            raise ValueError(f"joint_depth must be at least 1, got {self.joint_depth}")

    @property
    def dim(self) -> int:
        return self.video.dim

    def of(self, name: str) -> EncoderSettings:
        """The branch of "video" or "audio"."""
        return {"video": self.video, "audio": self.audio}[name]

    def resized(self, *, dim: int, depth: int, heads: int) -> AudioVideoSettings:
        """The same in another size; `depth` counts the joint blocks, too."""
        video, audio = (
            replace(branch, dim=dim, depth=depth - self.joint_depth, heads=heads)
            for branch in (self.video, self.audio)
        )
        return replace(self, video=video, audio=audio)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> AudioVideoSettings:
        """Back from JSON, where tuples are lists."""
        branches = {name: EncoderSettings.from_dict(values[name]) for name in MODALITIES}
        return cls(**branches, joint_depth=values["joint_depth"])


class Branch(Encoder):
    """An Encoder that adds a learned code of its modality to each token."""

    def __init__(self, settings: EncoderSettings, input_size: InputSize) -> None:
        super().__init__(settings, input_size)
        self.modality = nn.Parameter(torch.empty(settings.dim))
        nn.init.normal_(self.modality, std=0.02)

    def embed(self, patches: Tensor, ids: Tensor | None) -> Tensor:
        return super().embed(patches, ids) + self.modality


class JointBlock(Block):
    """A block with one attention and MLP, and norms for both modalities together and for each."""

    def __init__(self, settings: EncoderSettings) -> None:
        s = settings
        super().__init__(s.dim, s.heads, s.mlp_ratio, s.key_bias, s.norm_eps)
        self.norms = nn.ModuleDict({name: _BlockNorms(s) for name in MODALITIES})

    def of_one(self, x: Tensor, name: str, seen: Tensor | None = None) -> Tensor:
        """[B, n, dim] -> the same shape, with the norms of this modality. `seen` as in `Block`."""
        norms = self.norms[name]
        assert isinstance(norms, _BlockNorms)
        x = x + self._dropped(self.attn(norms.norm1(x), 0, seen))
        return x + self._dropped(self.mlp(norms.norm2(x)))


class _BlockNorms(nn.Module):
    def __init__(self, settings: EncoderSettings) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)
        self.norm2 = nn.LayerNorm(settings.dim, eps=settings.norm_eps)


class AudioVideoEncoder(nn.Module):
    """CAV-MAE's encoder (Gong et al. 2023) over visible tokens: what an audio-video run exports.

    `inputs` and whatever belongs to them are dicts by "video" and "audio": float32 [B, C, T, H, W]
    of clips and [B, 1, 1, frames, bands] of spectrograms, normalised as the file's metadata say.
    One of the two is enough.

    The joint blocks have three ways through them. Tokens of both modalities together take the plain
    norms; those of one alone take that modality's own. So one set of weights serves both, sound
    alone and pictures alone.
    """

    def __init__(self, settings: AudioVideoSettings, input_sizes: Mapping[str, InputSize]) -> None:
        super().__init__()
        self.settings = settings
        #: True: activations of the joint blocks are computed again for the backward pass.
        self.checkpoint_activations = False
        self.branches = nn.ModuleDict(
            {name: Branch(settings.of(name), input_sizes[name]) for name in MODALITIES}
        )
        self.joint = nn.ModuleList(JointBlock(settings.video) for _ in range(settings.joint_depth))
        eps = settings.video.norm_eps
        self.norm = nn.LayerNorm(settings.dim, eps=eps)
        self.norms = nn.ModuleDict(
            {name: nn.LayerNorm(settings.dim, eps=eps) for name in MODALITIES}
        )
        init_xavier(self.joint)

    @property
    def input_sizes(self) -> dict[str, InputSize]:
        """(C, T, H, W) of each modality."""
        return {name: self.branch(name).input_size for name in MODALITIES}

    def branch(self, name: str) -> Branch:
        branch = self.branches[name]
        assert isinstance(branch, Branch)
        return branch

    def alone(self, name: str, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """A branch's tokens [B, n, dim] through the joint blocks with that modality's norms.

        seen: bool [B, n], the tokens that are attended to. Default: all.
        """
        for block in self.joint:
            assert isinstance(block, JointBlock)
            tokens = run_block(block.of_one, tokens, self.checkpoint_activations, name, seen)
        return self.norms[name](tokens)

    def together(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """The tokens of both branches [B, n, dim], one after the other, through the joint blocks
        with the plain norms."""
        for block in self.joint:
            tokens = run_block(block, tokens, self.checkpoint_activations, 0, seen)
        return self.norm(tokens)

    def tokens(
        self, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Features of all patches of each input that is given, [B, N, dim]: with both, those of the
        joint pass; with one, of that modality's own.

        valid: bool [B, N] of inputs with padding: tokens that are not valid are attended to by
            none. Their own features mean nothing.
        """
        own, seen = each_alone(self.own, inputs, valid)
        if len(own) == 1:
            return {name: self.alone(name, x, seen.get(name)) for name, x in own.items()}
        both = self.together(torch.cat(list(own.values()), dim=1), joined_seen(own, seen))
        sizes = [x.shape[1] for x in own.values()]
        return dict(zip(own, both.split(sizes, dim=1), strict=True))

    def embed(
        self, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """What is compared between modalities: [B, dim] of length 1 of each input that is given,
        the mean of its own pass over all (valid) tokens."""
        own, seen = each_alone(self.own, inputs, valid)
        return {
            name: normalised(mean_of(self.alone(name, x, seen.get(name)), seen.get(name)))
            for name, x in own.items()
        }

    def forward(
        self, inputs: Mapping[str, Tensor], valid: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        return self.tokens(inputs, valid)

    def own(self, name: str, x: Tensor, seen: Tensor | None = None) -> Tensor:
        """One input's tokens before the joint blocks, [B, N, dim].

        seen: bool [B, N], those that are attended to.
        """
        branch = self.branch(name)
        return branch.encode(branch.patchify(x), None, seen)


def each_alone(
    own: Callable[[str, Tensor, Tensor | None], Tensor],
    inputs: Mapping[str, Tensor],
    valid: Mapping[str, Tensor] | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """({name: its own tokens, which `own` makes of an input and of what is seen of it}, {name: what
    is seen} of inputs with padding), the video first.

    Raises ValueError where there is no input, or another one.
    """
    if not inputs or not inputs.keys() <= set(MODALITIES):
        raise ValueError(f"inputs must have video, audio or both, got {sorted(inputs)}")
    names = [name for name in MODALITIES if name in inputs]
    seen = {name: valid[name] for name in names if name in valid} if valid else {}
    return {name: own(name, inputs[name], seen.get(name)) for name in names}, seen


def mean_of(tokens: Tensor, valid: Tensor | None = None) -> Tensor:
    """[B, n, D] -> [B, D]: the mean over the tokens, or over those that are valid (bool [B, n])."""
    if valid is None:
        return tokens.mean(1)
    share = valid.to(tokens.dtype) / valid.sum(1, keepdim=True).clamp(min=1)
    return (tokens * share.unsqueeze(-1)).sum(1)


def audio_video_metadata(encoder: AudioVideoEncoder, **more: str) -> dict[str, str]:
    """What `load_audio_video_encoder` needs to build the module again."""
    shape = {"input_sizes": encoder.input_sizes, "settings": asdict(encoder.settings)}
    return {"format": FORMAT, "encoder": json.dumps(shape), **more}


def load_audio_video_encoder(path: str | Path) -> AudioVideoEncoder:
    """The AudioVideoEncoder that an audio-video run exported as RUN/encoder.safetensors, in eval
    mode on the CPU. The file's metadata `mean` and `scale` hold the normalisation of each input.

    Raises:
        ValueError: where the file is none; it names the file.
    """
    return loaded(path, FORMAT, "smnm pretrain audio-video", empty_audio_video_encoder)


def empty_audio_video_encoder(shape: Mapping[str, Any]) -> AudioVideoEncoder:
    """What the metadata describe under "encoder", with weights that wait for a file's."""
    settings = AudioVideoSettings.from_dict(shape["settings"])
    sizes = {name: _size(size) for name, size in shape["input_sizes"].items()}
    with torch.random.fork_rng(devices=[]):
        return AudioVideoEncoder(settings, sizes)


def _size(values: list[int]) -> InputSize:
    c, t, h, w = values
    return c, t, h, w
