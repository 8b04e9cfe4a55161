"""An encoder with a head: what fine-tuning trains, and its file classifier.safetensors.

As VideoMAE, MAE and AudioMAE fine-tune: the encoder's final norm is put away, the mean of the
patches' tokens goes through a new norm and one linear layer.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smnm_kernels.train.data.labels import LabelKind
from smnm_kernels.train.data.padding import is_real

from .encoder_file import empty_encoder, encoder_metadata, read, save_tensors
from .vit import Encoder, select_tokens

FORMAT = "smnm-classifier-1"
NORM_EPS = 1e-6  # of fc_norm: the three methods' code
HEAD = "smnm_kernels.head"  # key in the metadata

#: "mean" of the patches' tokens, then a new norm; "class": the class token behind the encoder's own
#: final norm (MAE's code without --global_pool).
Pool = Literal["mean", "class"]


@dataclass(frozen=True)
class HeadSettings:
    """What the outputs mean."""

    kind: LabelKind
    names: tuple[str, ...] = ()  # of the classes; none of numbers
    pool: Pool = "mean"
    #: A number is offset + scale * output: mean and standard deviation of those of the training.
    offset: float = 0.0
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.pool not in get_args(Pool):
            raise ValueError(f"pool must be one of {', '.join(get_args(Pool))}, got {self.pool!r}")

    @property
    def outputs(self) -> int:
        return 1 if self.kind == "number" else len(self.names)

    def predictions(self, outputs: Tensor) -> Tensor:
        """float32 [B, outputs]: probabilities of the classes (softmax, or sigmoids where a file may
        have several), or the number."""
        if self.kind == "class":
            return outputs.float().softmax(1)
        if self.kind == "classes":
            return outputs.float().sigmoid()
        return self.offset + self.scale * outputs.float()


def drop_path_rates(depth: int, last: float) -> list[float]:
    """Of each block: from 0 at the first to `last` at the last, in equal steps (Huang et al.
    2016)."""
    return [last * i / (depth - 1) if depth > 1 else last for i in range(depth)]


def is_head(name: str) -> bool:
    """Whether a parameter is of a classifier's head or the norm before it, also where the
    classifier is the part of a model that is called "classifier"."""
    return name.removeprefix("classifier.").startswith(("fc_norm.", "head."))


def real_patches(real: Tensor, encoder: Encoder) -> Tensor:
    """int64 [B, 3], so many values along (T, H, W) are no padding -> bool [B, N], the patches that
    hold any of them."""
    patch = encoder.settings.patch
    patches = torch.stack([-(-real[:, a] // patch[a]) for a in range(3)], dim=1)
    return is_real(patches, encoder.grid).flatten(1)


class Classifier(nn.Module):
    """forward(x [B, C, T, H, W], ids_keep int64 [B, n] or None for all, real) -> [B, outputs].

    ids_keep: the patches that are looked at.
    real: int64 [B, 3], how many values along (T, H, W) are no padding; patches of padding alone are
        neither attended to nor in the mean. Where none of a sample's patches is real, all count.
    """

    def __init__(
        self,
        encoder: Encoder,
        head: HeadSettings,
        *,
        drop_path: float = 0.0,
        head_std: float = 0.02,
        seed: int = 0,
    ) -> None:
        """`encoder` becomes a part of it; its final norm, where it has one, is put away.

        Raises ValueError where it has no class token to pool.
        """
        super().__init__()
        if head.pool == "class" and not encoder.settings.class_token:
            raise ValueError("pool 'class' needs an encoder with a class token")
        if head.pool == "class" and not encoder.settings.final_norm:
            raise ValueError("pool 'class' needs an encoder with a final norm")
        self.head_settings = head
        if head.pool == "mean":
            encoder.norm = nn.Identity()
            encoder.settings = replace(encoder.settings, final_norm=False)
        dim = encoder.settings.dim
        self.encoder = encoder
        self.fc_norm = nn.LayerNorm(dim, eps=NORM_EPS) if head.pool == "mean" else nn.Identity()
        self.head = nn.Linear(dim, head.outputs)
        generator = torch.Generator().manual_seed(seed)
        nn.init.normal_(self.head.weight, std=head_std, generator=generator)
        nn.init.zeros_(self.head.bias)
        rates = drop_path_rates(len(encoder.blocks), drop_path)
        for block, rate in zip(encoder.blocks, rates, strict=True):
            block.drop_path = rate  # type: ignore[assignment]

    @property
    def depth(self) -> int:
        return len(self.encoder.blocks)

    def layer_of(self, name: str) -> int:
        """Of a parameter, for layer-wise rates: 0 before the blocks, b + 1 in block b, depth + 1
        behind them."""
        if name.startswith("encoder.blocks."):
            return int(name.split(".")[2]) + 1
        before = ("encoder.patch_embed.", "encoder.cls_token", "encoder.pos_embed")
        return 0 if name.startswith(before) else self.depth + 1

    def forward(
        self, x: Tensor, ids_keep: Tensor | None = None, real: Tensor | None = None
    ) -> Tensor:
        encoder, first = self.encoder, self.encoder.class_tokens
        patches = encoder.patchify(x)
        if ids_keep is not None:
            patches = select_tokens(patches, ids_keep)
        seen = None if real is None else self._seen(real, ids_keep)
        attended = None if seen is None else F.pad(seen, (first, 0), value=True)
        tokens = encoder.encode(patches, ids_keep, attended)
        if self.head_settings.pool == "class":
            return self.head(tokens[:, 0])
        tokens = tokens[:, first:]
        if seen is None:
            mean = tokens.mean(1)
        else:
            weights = seen.to(tokens.dtype)
            weights = weights / weights.sum(1, keepdim=True)
            mean = (tokens * weights.unsqueeze(-1)).sum(1)
        return self.head(self.fc_norm(mean))

    def _seen(self, real: Tensor, ids_keep: Tensor | None) -> Tensor:
        """bool [B, n], of the patches that are looked at those that hold anything real."""
        seen = real_patches(real, self.encoder)
        if ids_keep is not None:
            seen = seen.gather(1, ids_keep)
        return seen | ~seen.any(1, keepdim=True)

    def predict(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Normalised inputs [B, C, T, H, W] -> what `HeadSettings.predictions` makes of them.

        real: int64 [B, 3], how many values along (T, H, W) are no padding; None where all count.
        """
        return self.head_settings.predictions(self(x, None, real))


def save_classifier(model: Classifier, path: Path, metadata: dict[str, str]) -> None:
    """Write it with the metadata, whole or not at all."""
    head = json.dumps(asdict(model.head_settings))
    held = encoder_metadata(model.encoder, **metadata) | {"format": FORMAT, HEAD: head}
    save_tensors(model, path, held)


def load_classifier(path: str | Path) -> Classifier:
    """The model of RUN/classifier.safetensors, in eval mode on the CPU.

    Of files, `predictions` (in train.model) gives what the run's evaluation would. `predict` takes
    float32 [B, C, T, H, W], normalised as the file's metadata say (`mean`, `scale`: the input is
    (raw - mean) / scale), and `real` where recordings end before the window does and the run hid
    padding. `head_settings` has the kind of labels and the classes' names.

    Raises:
        ValueError: where the file is no classifier of this package; it names the file.
    """
    held, state = read(path)
    if held.get("format") != FORMAT:
        raise ValueError(
            f"path must be a classifier exported by smnm finetune ({FORMAT}), got {path} of format "
            f"{held.get('format')!r}"
        )
    try:
        shape, head = json.loads(held["encoder"]), json.loads(held[HEAD])
        model = Classifier(
            empty_encoder(shape), HeadSettings(**head | {"names": tuple(head["names"])})
        )
        model.load_state_dict(state)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"{path}: its tensors do not fit its metadata: {error}") from error
    return model.eval()


def loss_of(kind: LabelKind, outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean over a batch, float32.

    "class": cross entropy with soft targets [B, classes]. "classes": binary cross entropy, the mean
    over the classes. "number": Huber's, quadratic up to one standard deviation of the training's
    numbers, targets [B, 1] in these units.
    """
    outputs = outputs.float()
    if kind == "class":
        return -(targets * outputs.log_softmax(1)).sum(1).mean()
    if kind == "classes":
        return F.binary_cross_entropy_with_logits(outputs, targets)
    return F.huber_loss(outputs, targets)
