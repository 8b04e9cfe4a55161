"""The encoder that a command is given: of a run, of other people's files, or untrained."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import safe_open

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.modality import InputFormat

from .encoder_file import load_encoder
from .mae import build_model
from .settings import ModelSettings
from .vit import Encoder

ENCODER = "encoder.safetensors"  # in RUN
UNTRAINED = "none"


@dataclass(frozen=True)
class Pretrained:
    """An encoder with what it was trained on."""

    encoder: Encoder  # float32 on the CPU, in eval mode
    # Per channel. The encoder's input is (raw - mean) / scale, as in `InputFormat`.
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    modality: str
    origin: str  # for logs and results: from where, and what of it
    #: Fields of the modality in pretraining (frames, stride, ...); empty where they are not known.
    clip: dict[str, Any] = field(default_factory=dict)
    #: Tensors of the file that the encoder has no place for.
    unmapped: tuple[str, ...] = ()


def find_encoder(
    given: str | Path, modality: str, inputs: InputFormat, untrained: ModelSettings, seed: int
) -> Pretrained:
    """The encoder that `--encoder GIVEN` means.

    given: RUN, a file or folder in one of the known formats, or "none" for the seed's weights of
        `untrained` on an input of this format.

    Raises UsageError, which names it, where it is none or of another modality.
    """
    if str(given) == UNTRAINED:
        encoder = build_model(untrained, inputs.size, seed).encoder.eval()
        origin = f"untrained, seed {seed}"
        return Pretrained(encoder, inputs.mean, inputs.scale, modality, origin)
    asked = f"--encoder {printable(str(given))}"
    path = Path(given)
    file = path / ENCODER if os.path.isdir(path) else path
    if not os.path.exists(file):
        raise UsageError(f"{asked}: {'holds no ' + ENCODER if file != path else 'is not there'}")
    try:
        encoder = load_encoder(file)
    except (ValueError, OSError) as error:
        raise UsageError(f"{asked}: {error}") from error
    with safe_open(str(file), framework="pt") as opened:
        held = opened.metadata() or {}
    if held.get("modality") != modality:
        raise UsageError(f"{asked}: is of {held.get('modality')}, and {modality} was asked for")
    preset = json.loads(held.get("preset", "{}"))
    return Pretrained(
        encoder,
        tuple(json.loads(held["mean"])),
        tuple(json.loads(held["scale"])),
        modality,
        f"{printable(str(file))}, step {held.get('step', '?')}",
        preset.get("clip", {}),
    )
