"""SIGMA: assign masked patches to prototypes as features of these patches are assigned.

Salehi, Dorkenwald, Thoker, Gavves, Snoek and Asano, "SIGMA: Sinkhorn-Guided Masked Video Modeling"
(ECCV 2024), and QUVA-Lab/SIGMA.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from smnm_kernels import Masks
from smnm_kernels.train.data.modality import InputFormat

from .collapse import CollapseWatch
from .encoder_file import encoder_metadata, save_tensors
from .exchange import among_others
from .mae import Decoder, check_masks
from .objective import NO_FACTS, Facts, Objective
from .settings import EncoderSettings, ModelSettings
from .sigma_target import FrozenEncoder, FrozenSettings
from .sinkhorn import entropy_share, sinkhorn
from .targets import PatchTargets
from .vit import Encoder, InputSize, select_tokens

_FROZEN = "frozen."  # of the target's tensors in a model, which no checkpoint holds


class Projection(nn.Sequential):
    """Patches [..., values] -> features [..., dim]: linear layers with GELUs between them."""

    def __init__(self, values: int, hidden: tuple[int, ...], dim: int) -> None:
        widths = (values, *hidden, dim)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.GELU()]
        super().__init__(*layers[:-1])


class SigmaModel(nn.Module):
    """A masked autoencoder whose decoder predicts features, and prototypes that these belong to.

    forward(x [B, C, T, H, W] float, masks) -> float32 scalars: `loss`, `target_entropy` and
    `entropy`, as `Sigma` says.
    """

    def __init__(self, settings: Sigma, input_size: InputSize) -> None:
        super().__init__()
        model = settings.model
        self.settings = settings
        self.encoder = Encoder(model.encoder, input_size)
        self.decoder = Decoder(
            model.decoder,
            self.encoder.grid,
            model.encoder.dim,
            model.encoder.class_token,
            settings.features,
        )
        self.targets = PatchTargets(model.target, input_size[0], model.pixel_mean, model.pixel_std)
        self.projection: Projection | None = None
        self.frozen: FrozenEncoder | None = None
        if settings.frozen is None:
            values = model.encoder.patch_values(input_size[0])
            self.projection = Projection(values, settings.projection, settings.dim)
        else:
            self.frozen = FrozenEncoder(settings.frozen, self.encoder.grid)
            self.register_state_dict_post_hook(_leave_out_frozen)
            self.register_load_state_dict_post_hook(_miss_no_frozen)
        prototypes = torch.randn(settings.prototypes, settings.features)
        self.prototypes = nn.Parameter(F.normalize(prototypes, dim=1))

    @torch.no_grad()
    def normalise_prototypes(self) -> None:
        """To length 1."""
        self.prototypes.copy_(F.normalize(self.prototypes, dim=1))

    def forward(self, x: Tensor, masks: Masks) -> dict[str, Tensor]:
        check_masks(masks, x, self.encoder.grid)
        predicted, target = self.features(x, masks)
        # Scores, Sinkhorn and losses are in float32 at any precision (our choice).
        with torch.autocast(x.device.type, enabled=False):
            return assignment_losses(
                target.flatten(0, 1),
                predicted.flatten(0, 1),
                self.prototypes,
                self.settings,
                among_others(),
            )

    def features(self, x: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
        """Of the masked tokens: predicted, and target, [B, N - n_keep, features] each."""
        patches = self.encoder.patchify(x)
        visible = select_tokens(patches, masks.ids_keep)
        predicted = self.decoder(self.encoder.encode(visible, masks.ids_keep), masks)
        if self.frozen is not None:
            return predicted, select_tokens(self.frozen(x), masks.ids_masked)
        assert self.projection is not None
        return predicted, self.projection(
            self.targets.target(select_tokens(patches, masks.ids_masked))
        )


def _leave_out_frozen(model: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    for name in [name for name in state if name.startswith(prefix + _FROZEN)]:
        del state[name]


def _miss_no_frozen(model: nn.Module, keys: Any) -> None:
    keys.missing_keys[:] = [n for n in keys.missing_keys if not n.startswith(_FROZEN)]


def assignment_losses(
    target: Tensor, predicted: Tensor, prototypes: Tensor, settings: Sigma, over_ranks: bool
) -> dict[str, Tensor]:
    """target, predicted: features [M, d] of M tokens; prototypes [K, d], rows of length 1.

    See `Sigma`; scores are cosines, in float32 (float64 of float64).
    """
    dtype = torch.promote_types(prototypes.dtype, torch.float32)
    target_scores = _cosines(target.to(dtype), prototypes)
    scores = _cosines(predicted.to(dtype), prototypes.detach())
    losses, entropies = [], []
    for own, other in ((target_scores, scores), (scores, target_scores)):
        assigned = sinkhorn(other, settings.epsilon, settings.iterations, over_ranks).argmax(1)
        losses.append(F.cross_entropy(own / settings.temperature, assigned))
        entropies.append(entropy_share(own.argmax(1), len(prototypes), over_ranks))
    return {
        "loss": losses[0] + losses[1],
        "target_entropy": entropies[0],
        "entropy": entropies[1],
    }


def _cosines(features: Tensor, prototypes: Tensor) -> Tensor:
    return F.normalize(features, dim=1) @ prototypes.T


@dataclass(frozen=True)
class Sigma(Objective):
    """SIGMA's objective, of modalities with a single input that is never padded.

    Of each masked token there are a target feature z and the decoder's prediction x. z comes from a
    projection network that learns, too, and gets the patch as VideoMAE's target is normalised; or
    from a frozen encoder. With prototypes C, rows of length 1, scores are s_z = z/|z| C^T and
    s_x = x/|x| C^T, the second without a gradient of C. Sinkhorn makes assignments of each, without
    a gradient, balanced over all masked tokens that go through the model at a time, of all
    processes; q is the prototype that it gives most of a token to. The loss is the mean over tokens
    of

        CE(s_z / 0.1, q_x) + CE(s_x / 0.1, q_z).

    With --accumulate Sinkhorn sees one part of a batch after the other, as in the method's code:
    the losses are those of smaller batches, their gradients averaged.

    `target_entropy` and `entropy` say how evenly the masked tokens of all processes, each by its
    highest score, are spread over the prototypes, by the target's scores and by the prediction's
    (`sinkhorn.entropy_share`). That is our choice of what to watch: Sinkhorn's own assignments are
    even by construction, and small differences are enough for it where all features are nearly the
    same.
    """

    model: ModelSettings
    #: Widths between a patch and its feature, and of the feature (the method's code).
    projection: tuple[int, ...] = (1024, 1024, 512)
    dim: int = 256
    prototypes: int = 3000  # the method's code, as all that follows
    epsilon: float = 0.05  # for Kinetics-400; 0.03 for Something-Something v2
    iterations: int = 10
    temperature: float = 0.1
    frozen: FrozenSettings | None = None  # where the target is a frozen encoder's

    picture_row = "assigned"

    @property
    def encoder(self) -> EncoderSettings:
        return self.model.encoder

    @property
    def picture_note(self) -> str:
        return (
            "assigned: each hidden patch has two colours, above of the target's nearest prototype, "
            "below of the prediction's; where they are the same, it was predicted right"
        )

    @property
    def features(self) -> int:
        """Values of a target."""
        return self.dim if self.frozen is None else self.frozen.encoder.dim

    def grids(self, inputs: dict[str, InputFormat]) -> dict[str, tuple[int, int, int]]:
        return {name: self.model.encoder.grid(given.size) for name, given in inputs.items()}

    def build(
        self, inputs: dict[str, InputFormat], seed: int, checkpoint_activations: bool = False
    ) -> SigmaModel:
        (given,) = inputs.values()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = SigmaModel(self, given.size)
        model.encoder.checkpoint_activations = checkpoint_activations
        model.decoder.checkpoint_activations = checkpoint_activations
        return model

    @property
    def reported(self) -> tuple[str, ...]:
        return ("target_entropy", "entropy")

    def losses(
        self,
        forward: Callable[..., Any],
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
        facts: Facts = NO_FACTS,
    ) -> dict[str, Tensor]:
        (name,) = inputs
        losses: dict[str, Tensor] = forward(inputs[name], masks[name])
        return losses

    def after_update(self, model: Any) -> None:
        """The method's code does it before each step, which comes to the same."""
        model.normalise_prototypes()

    def watch(self) -> CollapseWatch:
        return CollapseWatch(("target_entropy", "entropy"))

    def restore(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        masks: dict[str, Masks],
        valid: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """Each masked patch in two colours: above that of the prototype with the target's highest
        score, below of the prediction's. Where both halves have one colour, it is predicted right.
        """
        (name,) = inputs
        x, seen = inputs[name], masks[name]
        colours = _colours(self.prototypes).to(x.device)
        c, (pt, ph, pw) = x.shape[1], self.model.encoder.patch
        halves = []
        for features in reversed(model.features(x, seen)):
            nearest = _cosines(features.flatten(0, 1).float(), model.prototypes).argmax(1)
            colour = (colours[nearest] - model.targets.pixel_mean.T) / model.targets.pixel_std.T
            halves.append(colour.unflatten(0, (len(x), -1)))
        rows = torch.arange(ph, device=x.device) >= ph // 2
        shown = torch.stack(halves, -1)[..., rows.long()]  # [B, n, C, ph]
        shown = shown[:, :, :, None, :, None].expand(-1, -1, c, pt, ph, pw).flatten(2)
        ids = seen.ids_masked.unsqueeze(-1).expand_as(shown)
        patches = model.encoder.patchify(x).float()
        return {name: model.encoder.unpatchify(patches.scatter(1, ids, shown.contiguous()))}

    def export(self, model: Any, path: Path, metadata: dict[str, str]) -> None:
        save_tensors(model.encoder, path, encoder_metadata(model.encoder, **metadata))


def _colours(n: int) -> Tensor:
    """n colours, RGB in [0, 1], that are far apart for numbers near each other: float32 [n, 3]."""
    turn = 0.618034  # of the golden section: the next hue falls into the largest gap
    return torch.tensor(
        [
            colorsys.hsv_to_rgb(i * turn % 1, (0.55, 1.0)[i % 2], (1.0, 0.7)[i // 2 % 2])
            for i in range(n)
        ]
    )
