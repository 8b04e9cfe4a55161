"""AVT with labels: the classes are learnt beside its other losses, from the same fused tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smnm_kernels import Masks

from .avt_encoder import FusedEncoder
from .avt_learner import AvtLearner, LossWeights, Parts
from .joint_classifier import JointClassifier


class SupervisedAvt(nn.Module):
    """forward(inputs, real) -> outputs [B, outputs], as its JointClassifier;
    forward(inputs, real, masks, chance, True) -> (outputs, Parts), of which `avt_losses` are made.

    Outputs are those of the whole sound: nothing is masked for them. masks: of the sound, for the
    segment's loss. chance: of `pair_chances`, for that of matching.
    """

    def __init__(self, classifier: JointClassifier, weights: LossWeights, seed: int) -> None:
        """classifier: of both inputs, on an AVT encoder; becomes a part of it. The other losses'
        own weights are the seed's; torch's own random stream stays where it is."""
        super().__init__()
        encoder = classifier.encoder
        assert isinstance(encoder, FusedEncoder)
        self.classifier = classifier
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.learner = AvtLearner(encoder, weights, classifies=True)

    @property
    def depth(self) -> int:
        return self.classifier.depth

    def layer_of(self, name: str) -> int:
        """As JointClassifier's; what only other losses read lies behind all blocks."""
        within = name.removeprefix("classifier.")
        return self.depth + 1 if within == name else self.classifier.layer_of(within)

    def forward(
        self,
        inputs: dict[str, Tensor],
        real: dict[str, Tensor],
        masks: Masks | None = None,
        chance: Tensor | None = None,
        learns: bool = False,
    ) -> Tensor | tuple[Tensor, Parts]:
        if not learns:
            return self.classifier(inputs, real)
        seen = self.classifier.seen(real)
        parts = self.learner(inputs, seen, masks, True, chance)
        assert parts.tokens is not None
        return self.classifier.of_tokens({"both": parts.tokens}, _all(parts.seen)), parts


def _all(seen: Tensor | None) -> dict[str, Tensor]:
    return {} if seen is None else {"both": seen}
