"""Fusion of the token streams of several inputs, block by block.

Every stream has blocks of its own, with weights that are never shared; forms of fusion differ in
what these blocks attend to, and in nothing else. Of streams with M and N tokens a block's attention
compares as many pairs of tokens as stands behind each:

    bottleneck   its own tokens and L more, which pass on what the streams tell each
                 other (MBT, Nagrani et al. 2021, section 3.3)      (M + L)^2 + (N + L)^2
    concat       the tokens of all streams (MBT's cross-attention with
                 weights of each modality)                          (M + N)^2
    late         its own tokens: streams never meet                 M^2 + N^2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .settings import EncoderSettings
from .vit import Block, init_xavier, joined_seen, run_block

FusionKind = Literal["bottleneck", "concat", "late"]


@dataclass(frozen=True)
class FusionSettings:
    """AVT's defaults: L = 4 bottleneck tokens, K = 4 blocks."""

    kind: FusionKind = "bottleneck"
    tokens: int = 4  # of the bottleneck
    blocks: int = 4

    def __post_init__(self) -> None:
        if self.kind not in get_args(FusionKind):
            raise ValueError(
                f"kind must be one of {', '.join(get_args(FusionKind))}, got {self.kind!r}"
            )
        for name in ("tokens", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Fusion(nn.Module):
    """forward(tokens {name: [B, n, dim]}, seen {name: bool [B, n]}) -> tokens of the same shapes.

    tokens: of any of the streams that it was built for; one alone goes through its blocks alone.
    seen: of those streams of which not all tokens are attended to, the ones that are; at least one
        in each row.

    Bottleneck tokens F start as N(0, 0.02). A block of each stream gets [its tokens; F], from the
    same F, and the next F is the mean of what all of them make of it; that of the last block is not
    used (MBT's code).
    """

    def __init__(self, settings: FusionSettings, streams: Mapping[str, EncoderSettings]) -> None:
        """streams: their blocks are of the shape of these encoders' blocks.

        Raises ValueError where the encoders' tokens differ in width.
        """
        super().__init__()
        widths = {name: encoder.dim for name, encoder in streams.items()}
        if len(set(widths.values())) != 1:
            shown = ", ".join(f"{name} {dim}" for name, dim in widths.items())
            raise ValueError(f"streams that are fused must have the same dim, got {shown}")
        self.settings = settings
        #: True: activations are computed again for the backward pass instead of kept.
        self.checkpoint_activations = False
        self.blocks = nn.ModuleDict(
            {
                name: nn.ModuleList(
                    Block(e.dim, e.heads, e.mlp_ratio, e.key_bias, e.norm_eps)
                    for _ in range(settings.blocks)
                )
                for name, e in streams.items()
            }
        )
        init_xavier(self.blocks.values())
        self.bottleneck: nn.Parameter | None = None
        if settings.kind == "bottleneck":
            self.bottleneck = nn.Parameter(
                torch.empty(settings.tokens, next(iter(widths.values())))
            )
            nn.init.normal_(self.bottleneck, std=0.02)

    def forward(
        self, tokens: dict[str, Tensor], seen: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        seen = seen or {}
        if self.bottleneck is not None:
            return self._through_bottleneck(tokens, self.bottleneck, seen)
        among = {name: self._among(name, tokens) for name in tokens}
        attended = {name: joined_seen(tokens, seen, names) for name, names in among.items()}
        for number in range(self.settings.blocks):
            tokens = {
                name: self._block(
                    name,
                    number,
                    torch.cat([tokens[other] for other in names], dim=1),
                    sum(tokens[other].shape[1] for other in names[:-1]),
                    attended[name],
                )
                for name, names in among.items()
            }
        return tokens

    def _among(self, name: str, tokens: dict[str, Tensor]) -> list[str]:
        """Streams whose tokens this one attends to, itself at the end."""
        others = [other for other in tokens if other != name]
        return [*others, name] if self.settings.kind == "concat" else [name]

    def _through_bottleneck(
        self, tokens: dict[str, Tensor], first: Tensor, seen: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        some = next(iter(tokens.values()))
        shared = first.to(some.dtype).expand(len(some), -1, -1)
        attended = {
            name: F.pad(of_stream, (0, len(first)), value=True) for name, of_stream in seen.items()
        }
        for number in range(self.settings.blocks):
            out = {
                name: self._block(
                    name, number, torch.cat([x, shared], dim=1), 0, attended.get(name)
                )
                for name, x in tokens.items()
            }
            shared = torch.stack([x[:, -len(first) :] for x in out.values()]).mean(0)
            tokens = {name: x[:, : -len(first)] for name, x in out.items()}
        return tokens

    def _block(self, name: str, number: int, x: Tensor, first: int, seen: Tensor | None) -> Tensor:
        blocks = self.blocks[name]
        assert isinstance(blocks, nn.ModuleList)
        return run_block(blocks[number], x, self.checkpoint_activations, first, seen)
