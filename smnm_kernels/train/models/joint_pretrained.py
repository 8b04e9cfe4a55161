"""The encoder of clips with sound that a command is given."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.modality import InputFormat

from .encoder_file import metadata_of
from .formats.recognise import check_modality
from .joint_classifier import FORMAT, load_joint_classifier
from .joint_encoders import JointEncoder, JointSettings, load_joint_encoder, new_joint_encoder
from .pretrained import CLASSIFIER, ENCODER, UNTRAINED

Values = dict[str, tuple[float, ...]]  # of each input, per channel


@dataclass(frozen=True)
class JointPretrained:
    """As `Pretrained`, of inputs "video" and "audio"."""

    encoder: JointEncoder  # float32 on the CPU, in eval mode
    mean: Values
    scale: Values
    origin: str
    #: Fields of the modality in pretraining; empty where they are not known.
    clip: dict[str, Any] = field(default_factory=dict)


def find_joint_encoder(
    asked: str, given: str, inputs: dict[str, InputFormat], untrained: JointSettings, seed: int
) -> JointPretrained:
    """The encoder that is meant: RUN, a file of it, or "none" for the seed's weights of `untrained`
    on these inputs. Raises UsageError, which begins with `asked`, the option with its value, where
    it is none."""
    if given == UNTRAINED:
        sizes = {name: one.size for name, one in inputs.items()}
        encoder = new_joint_encoder(untrained, sizes, seed).eval()
        mean, scale = ({n: getattr(i, k) for n, i in inputs.items()} for k in ("mean", "scale"))
        return JointPretrained(encoder, mean, scale, f"untrained, seed {seed}")
    path = Path(given)
    try:
        if path.is_dir():
            there = [path / name for name in (ENCODER, CLASSIFIER) if (path / name).exists()]
            if not there:
                raise ValueError(f"holds no {ENCODER}, which a run writes when it is finished")
            path = there[0]
        elif not os.path.exists(path):
            raise ValueError("is not there")
        held = metadata_of(path)
        check_modality(held.get("modality", "audio-video"), "audio-video")
        if held.get("format") == FORMAT:
            encoder = load_joint_classifier(path).encoder
        else:
            encoder = load_joint_encoder(path)
        mean, scale = (
            {name: tuple(of_one) for name, of_one in json.loads(held[key]).items()}
            for key in ("mean", "scale")
        )
        clip = json.loads(held.get("preset", "{}")).get("clip", {})
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise UsageError(f"{asked}: {printable(str(error))}") from error
    step = f", step {held['step']}" if "step" in held else ""
    return JointPretrained(encoder, mean, scale, f"{printable(given)}{step}", clip)
