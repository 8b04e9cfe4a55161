"""What a model is: sizes, and every choice in which VideoMAE, MAE and AudioMAE differ.

Sources. VideoMAE: Tong et al. 2022 and MCG-NJU/VideoMAE. MAE: He et al. 2022 and
facebookresearch/mae. AudioMAE: Huang et al. 2022 and facebookresearch/AudioMAE. `transformers` has
classes for the first two; they agree with the originals but for the eps of the norms. MaskSpec:
Chong et al. 2022 and WangHelin1997/MaskSpec. MSM-MAE: Niizumi et al. 2022 and nttcslab/msm-mae,
trained anew in nttcslab/m2d.

The input's size is no setting: a model is built from its settings and (C, T, H, W), so that one
setting serves clips of any length and size.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from smnm_kernels.train.data.statistics import IMAGENET_MEAN, IMAGENET_STD

from .positions import Grid, Positions

Target = Literal["pixels", "patch", "channel"]


@dataclass(frozen=True)
class EncoderSettings:
    """A pre-norm ViT over the visible patches."""

    patch: tuple[int, int, int]  # of (T, H, W) input values
    dim: int
    depth: int
    heads: int
    positions: Positions
    class_token: bool  # a learned token before the patches
    # Queries and values always have a bias. One of the keys changes nothing: it adds the same to
    # all of a query's logits.
    key_bias: bool
    final_norm: bool = True  # a norm after the last block
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    # Starting values of the patch embedding's matrix. True: Xavier-uniform like all other
    # matrices (MAE); False: as torch starts a linear layer (VideoMAE).
    xavier_embed: bool = True

    def __post_init__(self) -> None:
        _check_one_of("positions", self.positions, Positions)
        _check_heads(self.dim, self.heads)

    def grid(self, input_size: tuple[int, int, int, int]) -> Grid:
        """Patches (T, H, W) of an input (C, T, H, W); ValueError where they do not fill it."""
        for axis, length, p in zip("THW", input_size[1:], self.patch, strict=True):
            if length % p or length < p:
                raise ValueError(
                    f"input length {length} along {axis} is not a multiple of patch {p}"
                )
        t, h, w = (length // p for length, p in zip(input_size[1:], self.patch, strict=True))
        return t, h, w

    def patch_values(self, channels: int) -> int:
        """Values of one patch, all channels."""
        return channels * math.prod(self.patch)

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> EncoderSettings:
        """Back from JSON, where tuples are lists."""
        return cls(**_with_tuples(values))


@dataclass(frozen=True)
class DecoderSettings:
    """A light ViT that gets the encoder's tokens and a mask token for every masked patch.

    In which order it gets them is no setting: global attention gives the same in any, and windows
    need the grid's.
    """

    dim: int
    depth: int
    heads: int
    positions: Positions
    key_bias: bool  # as in EncoderSettings
    embed_bias: bool  # of the linear layer from the encoder's width to this one
    # None: global attention in pre-norm blocks, over the class token too where there is one.
    # (h, w): cosine attention within windows of h x w tokens, shifted by h // 2 along H in every
    # other block, in post-norm blocks and without the class token (AudioMAE's local decoder).
    window: tuple[int, int] | None = None
    mlp_ratio: float = 4.0
    norm_eps: float = 1e-6
    final_norm_eps: float = 1e-6  # of the norm before the prediction
    xavier_embed: bool = True  # as in EncoderSettings
    # The mask token starts as N(0, 0.02). True: cut at one standard deviation (VideoMAE).
    truncated_mask_token: bool = False

    def __post_init__(self) -> None:
        _check_one_of("positions", self.positions, Positions)
        _check_heads(self.dim, self.heads)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DecoderSettings:
        """Back from JSON, where tuples are lists."""
        return cls(**_with_tuples(values))


@dataclass(frozen=True)
class ModelSettings:
    """A masked autoencoder: encoder, decoder, and what is predicted."""

    encoder: EncoderSettings
    decoder: DecoderSettings
    # The loss is the mean squared error on the masked patches' pixels as they are ("pixels"), or
    # normalised by mean and standard deviation of each patch: over all its values ("patch", MAE),
    # or channel by channel ("channel", VideoMAE).
    target: Target
    # Of each channel: input = (pixels - pixel_mean) / pixel_std. "pixels" undoes it; "channel" adds
    # its eps to the standard deviation of the pixels, not of the input. Empty: the input counts as
    # pixels.
    pixel_mean: tuple[float, ...] = ()
    pixel_std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        _check_one_of("target", self.target, Target)
        if len(self.pixel_mean) != len(self.pixel_std):
            raise ValueError(
                "pixel_mean and pixel_std must each have one value a channel, "
                f"got {self.pixel_mean} and {self.pixel_std}"
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
    ) -> ModelSettings:
        """The same kind of model in another size."""
        return replace(
            self,
            encoder=replace(self.encoder, dim=dim, depth=depth, heads=heads),
            decoder=replace(
                self.decoder, dim=decoder_dim, depth=decoder_depth, heads=decoder_heads
            ),
        )

    def tiny(self) -> ModelSettings:
        """The same kind of model in a size that two CPU cores train in minutes."""
        return self.resized(
            dim=192, depth=4, heads=3, decoder_dim=128, decoder_depth=2, decoder_heads=4
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelSettings:
        """Back from JSON, where tuples are lists."""
        rest = {k: v for k, v in values.items() if k not in ("encoder", "decoder")}
        return cls(
            encoder=EncoderSettings.from_dict(values["encoder"]),
            decoder=DecoderSettings.from_dict(values["decoder"]),
            **_with_tuples(rest),
        )


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def _check_one_of(name: str, value: str, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{name} must be one of {', '.join(get_args(allowed))}, got {value!r}")


def _check_heads(dim: int, heads: int) -> None:
    if dim % heads:
        raise ValueError(f"heads must divide dim {dim}, got {heads}")


#: VideoMAE's ViT-B for clips of 16 frames of 224 x 224.
VIDEOMAE = ModelSettings(
    EncoderSettings(
        patch=(2, 16, 16),
        dim=768,
        depth=12,
        heads=12,
        positions="flat",
        class_token=False,
        key_bias=False,
        xavier_embed=False,
    ),
    DecoderSettings(
        dim=384,
        depth=4,
        heads=6,
        positions="flat",
        key_bias=False,
        embed_bias=False,
        xavier_embed=False,
        truncated_mask_token=True,
    ),
    target="channel",
    pixel_mean=IMAGENET_MEAN,
    pixel_std=IMAGENET_STD,
)

#: ViT-S, with the decoder that VideoMAE's code has for it.
VIDEOMAE_SMALL = VIDEOMAE.resized(
    dim=384, depth=12, heads=6, decoder_dim=192, decoder_depth=4, decoder_heads=3
)

#: MAE's ViT-B for pictures of 224 x 224.
MAE = ModelSettings(
    EncoderSettings(
        patch=(1, 16, 16),
        dim=768,
        depth=12,
        heads=12,
        positions="rows_columns",
        class_token=True,
        key_bias=True,
    ),
    DecoderSettings(
        dim=512,
        depth=8,
        heads=16,
        positions="rows_columns",
        key_bias=True,
        embed_bias=True,
    ),
    target="patch",
)

#: AudioMAE's ViT-B for 1024 frames of 128 mel bands, with the local decoder that its scripts take.
#: (The global one, another option of its code, is MAE's.)
AUDIOMAE = ModelSettings(
    replace(MAE.encoder, positions="rows_columns_transposed"),
    DecoderSettings(
        dim=512,
        depth=16,
        heads=16,
        positions="rows_columns_transposed",
        key_bias=True,
        embed_bias=True,
        window=(4, 4),
    ),
    target="patch",
)

# The next three lie with time to the right and bands up, and number their tokens down the bands;
# ours lie with time down. Attention takes tokens as a set: with positions that give each place the
# code it has there, the model is the same. Their weights would need the two sides of each patch
# exchanged, in the embedding's kernel and in the prediction's rows, and positions and tokens in our
# order; this package reads none of their checkpoints.

#: MaskSpec's ViT-B for 992 frames of 128 mel bands.
MASKSPEC = replace(
    MAE,
    encoder=replace(MAE.encoder, positions="columns_rows"),
    decoder=replace(MAE.decoder, positions="columns_rows"),
)

#: MSM-MAE's ViT-B for 208 frames of 80 mel bands, as it was published first.
MSM_MAE = ModelSettings(
    replace(MAE.encoder, positions="columns_rows", key_bias=False),
    DecoderSettings(
        dim=384, depth=4, heads=6, positions="flat_columns", key_bias=False, embed_bias=True
    ),
    target="pixels",
)

#: The same for 608 frames, as M2D's authors trained it anew.
MSM_MAE_M2D = replace(
    MASKSPEC, decoder=replace(MASKSPEC.decoder, dim=384, depth=4, heads=6), target="patch"
)
