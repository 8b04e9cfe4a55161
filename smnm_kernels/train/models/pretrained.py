"""The encoder that a command is given: of a run, of other people's files, or untrained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import safe_open

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.modality import InputFormat

from .encoder_file import load_encoder
from .mae import build_model
from .resizing import at_size, how_resized
from .settings import ModelSettings
from .vit import Encoder, InputSize

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

    def at_size(
        self, input_size: InputSize, asked: str, say: Callable[[str], None] = print
    ) -> Pretrained:
        """The same for inputs (C, T, H, W), as `resizing.at_size`; `say` gets a line where
        positions change. UsageError, which names `asked`, where it cannot be."""
        try:
            how = how_resized(self.encoder, input_size)
            encoder = at_size(self.encoder, input_size)
        except ValueError as error:
            raise UsageError(f"{asked}: {error}") from error
        if how:
            say(f"{asked}: {how}")
        return replace(self, encoder=encoder)


def find_encoder(
    given: str | Path,
    modality: str,
    inputs: InputFormat,
    untrained: ModelSettings,
    seed: int,
    say: Callable[[str], None] = print,
) -> Pretrained:
    """The encoder that `--encoder GIVEN` means.

    given: RUN, a file or folder in one of the known formats, or "none" for the seed's weights of
        `untrained` on an input of this format.
    inputs: what the encoder is going to get. It keeps the size that it was trained on
        (`Pretrained.at_size` changes it); another number of channels is refused.
    say: gets a line for each thing worth knowing, such as tensors that were left out.

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
