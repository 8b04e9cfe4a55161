"""What a preset's model may learn instead, and what else is asked of an objective."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import arg
from tyro.extras import literal_type_from_choices

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.avt import Avt
from smnm_kernels.train.models.fusion import FusionSettings
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.objective import Objective
from smnm_kernels.train.models.settings import VIDEOMAE_SMALL, ModelSettings
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.run.options import Number, flag

from .avt_options import (
    SEGMENT_RATIO,
    AvtOptions,
    asked,
    fused_like,
    fusion_of,
    loss_weights,
)
from .masking import MaskSettings


def sigma_of(model: ModelSettings) -> Sigma:
    """With the method's numbers; of encoders narrower than ViT-S with smaller ones (ours)."""
    if model.encoder.dim >= VIDEOMAE_SMALL.encoder.dim:
        return Sigma(model)
    return Sigma(model, projection=(256, 256, 128), dim=64, prototypes=32)


def _mae_of(own: Any) -> MaskedAutoencoding:
    return MaskedAutoencoding(own.model)


def _sigma_of(own: Any) -> Sigma:
    return own if isinstance(own, Sigma) else sigma_of(own.model)


def _avt_of(own: Any) -> Avt:
    return own if isinstance(own, Avt) else Avt(fused_like(own.model.encoder, FusionSettings()))


#: Of each modality, by the name on the command line: from the preset's objective, one of its size.
OBJECTIVES: dict[str, dict[str, Callable[[Any], Objective]]] = {
    "video": {"mae": _mae_of, "sigma": _sigma_of},
    "audio": {"mae": _mae_of},
    "image": {"mae": _mae_of},
    "audio-video": {"cav-mae": lambda own: own, "avt": _avt_of},
}
#: What the command line calls the classes of objectives.
WORDS = {"MaskedAutoencoding": "mae", "Sigma": "sigma", "CavMae": "cav-mae", "Avt": "avt"}
NAMES = tuple(dict.fromkeys(name for table in OBJECTIVES.values() for name in table))

if TYPE_CHECKING:
    ObjectiveName = str
else:
    ObjectiveName = literal_type_from_choices(NAMES)


@dataclass(kw_only=True)
class ObjectiveOptions(AvtOptions):
    """What is learnt from masked inputs."""

    objective: Annotated[
        ObjectiveName | None, arg(metavar="{" + ",".join(NAMES) + "}", help_behavior_hint="")
    ] = None
    """mae restores masked patches; sigma, of video, predicts to which prototypes features of them
    are assigned. Of audio-video cav-mae restores patches and compares the two inputs; avt compares
    them, fuses them, and restores a sound. Default: the preset's."""
    target: Annotated[Path | None, arg(metavar="X", help_behavior_hint="")] = None
    """sigma: take the features from a frozen encoder, of pictures or of video, in any form that
    --init takes. Default: from a projection of the patches, which is trained with the model."""
    sinkhorn_epsilon: Number = None
    """sigma: how soft assignments are; smaller is harder. Default: 0.05, as the method has it for
    Kinetics-400; 0.03 for Something-Something v2."""


def objective_of(options: ObjectiveOptions, modality: str, own: Objective) -> Objective:
    """What was asked for, or the preset's own; UsageError where the modality has none such."""
    objective = own
    if options.objective is not None:
        table = OBJECTIVES.get(modality, {})
        if options.objective not in table:
            has = f"{modality} has {', '.join(table)}" if table else f"is not of {modality}"
            raise UsageError(f"--objective {options.objective}: {has}")
        objective = table[options.objective](own)
    for name in ("target", "sinkhorn_epsilon"):
        given = getattr(options, name)
        if given is not None and not isinstance(objective, Sigma):
            raise UsageError(f"{flag(name)} {given}: is for --objective sigma")
    if isinstance(objective, Avt):
        return _with_asked(objective, options)
    if asked(options):
        raise UsageError(f"{asked(options)[0]}: is for --objective avt")
    epsilon = options.sinkhorn_epsilon
    if epsilon is None:
        return objective
    if not 0 < epsilon < math.inf:
        raise UsageError(f"--sinkhorn-epsilon must be a finite number above 0, got {epsilon}")
    assert isinstance(objective, Sigma)
    return replace(objective, epsilon=epsilon)


def _with_asked(objective: Avt, options: AvtOptions) -> Avt:
    model = replace(objective.model, fusion=fusion_of(options, objective.model.fusion))
    try:
        return Avt(model, loss_weights(options))
    except ValueError as error:
        raise UsageError(f"{' '.join(asked(options))}: {error}") from error


def own_masks(objective: Objective, preset: dict[str, MaskSettings]) -> dict[str, MaskSettings]:
    """The masks of a preset whose objective is this one: AVT masks whole sounds, and no video."""
    if not isinstance(objective, Avt):
        return preset
    return {"audio": MaskSettings("activity", SEGMENT_RATIO)} if objective.weights.segment else {}
