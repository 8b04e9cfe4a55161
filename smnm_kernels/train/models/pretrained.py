"""The encoder that a command is given: of a run, of other people's files, or untrained."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import reason
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.modality import InputFormat, Modality
from smnm_kernels.train.data.video import Video

from .classifier import FORMAT as CLASSIFIER_FORMAT
from .classifier import load_classifier
from .encoder_file import OF_CLIPS_WITH_SOUND, load_encoder, metadata_of
from .formats.files import read_json, read_tensors, weight_files
from .formats.recognise import check_modality, recognise
from .formats.state import State, check_weights, encoder_part, encoder_state, load_weights, named
from .formats.told import EXPORT, exported, told_in
from .formats.weights import Head, Weights
from .mae import MaskedAutoencoder, build_model
from .masked_autoencoding import MaskedAutoencoding
from .resizing import at_size, how_resized
from .settings import ModelSettings
from .vit import Encoder, InputSize

ENCODER = "encoder.safetensors"  # in RUN
CLASSIFIER = "classifier.safetensors"  # there, too, where it was fine-tuned
CHECKPOINT, CONFIG = "last.pt", "config.json"  # there, too
UNTRAINED = "none"
_MODALITIES: dict[str, Callable[..., Modality]] = {"video": Video, "audio": Audio, "image": Image}


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
    untrained: bool = False

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
    option: str = "--encoder",
) -> Pretrained:
    """The encoder that `--encoder GIVEN`, or another option with that value, means.

    given: RUN, a file or folder in one of the known formats (`read_weights`), or "none" for the
        seed's weights of `untrained` on an input of this format.
    inputs: what the encoder is going to get. It keeps the size that it was trained on
        (`Pretrained.at_size` changes it); another number of channels is refused.
    say: gets a line for each thing worth knowing, such as tensors that were left out.

    Raises UsageError, which names it, where it is none or of another modality.
    """
    if str(given) == UNTRAINED:
        encoder = build_model(untrained, inputs.size, seed).encoder.eval()
        origin = f"untrained, seed {seed}"
        return Pretrained(encoder, inputs.mean, inputs.scale, modality, origin, untrained=True)
    asked = f"{option} {printable(str(given))}"
    weights = weights_for(asked, Path(given), modality, inputs, say)
    with torch.random.fork_rng(devices=[]):  # its random weights are replaced
        encoder = Encoder(weights.encoder, weights.input_size)
    load_weights(encoder, encoder_part(weights.state))
    step = "" if weights.step is None else f", step {weights.step}"
    return Pretrained(
        encoder.eval(),
        weights.mean,
        weights.scale,
        modality,
        f"{printable(str(given))}{step}",
        weights.clip,
        weights.unmapped,
    )


def weights_for(
    asked: str,
    path: Path,
    modality: str,
    inputs: InputFormat,
    say: Callable[[str], None],
    whole: bool = False,
) -> Weights:
    """`read_weights` for an option, `asked`, and a model with these inputs: UsageError where that
    cannot be."""
    try:
        weights = read_weights(path, inputs.size, modality, whole)
        check_modality(weights.modality, modality)
    except ValueError as error:
        raise UsageError(f"{asked}: {printable(str(error))}") from error
    if weights.input_size[0] != inputs.size[0]:
        raise UsageError(
            f"{asked}: takes inputs of {weights.input_size[0]} channels, and {modality} has "
            f"{inputs.size[0]}"
        )
    for remark in remarks_on(weights, whole):
        say(f"{asked}: {remark}")
    return weights


def remarks_on(weights: Weights, whole: bool = False) -> tuple[str, ...]:
    """What is worth knowing of them, a line each; `whole` as in `read_weights`."""
    if not weights.unmapped:
        return weights.remarks
    left_out = (
        f"{len(weights.unmapped)} of its tensors are no part of the "
        f"{'model' if weights.model and whole else 'encoder'} and are left out: "
        f"{named(weights.unmapped)}"
    )
    return (*weights.remarks, left_out)


def read_weights(
    path: Path, like: InputSize | None = None, wanted: str | None = None, whole: bool = False
) -> Weights:
    """What a file or folder holds:

    * RUN, RUN/encoder.safetensors, RUN/encoders/step-....safetensors, RUN/classifier.safetensors;
    * what `smnm export` wrote;
    * a folder of transformers (VideoMAE, ViTMAE, ViT) or of timm (vit_...);
    * a file with the names of VideoMAE, MAE, AudioMAE, timm's ViT or transformers' classes, as
      safetensors or as torch.save writes it.

    like, wanted: input (C, T, H, W) and modality that are wanted, for what weights do not tell; see
        `recognise`.
    whole: of RUN, what stands behind the encoder, too: the decoder, from its last checkpoint, or
        the head of fine-tuning.

    Raises:
        ValueError: which says why it is none of these.
    """
    if not os.path.exists(path):
        raise ValueError("is not there")
    if not path.is_dir():
        return _of_file(path, like, wanted)
    if (path / ENCODER).exists() and not whole:
        return _of_our_file(path / ENCODER)
    if (path / CLASSIFIER).exists():
        return _of_classifier(path / CLASSIFIER)
    if (path / CHECKPOINT).exists() and (path / CONFIG).exists():
        if not whole:
            raise ValueError(f"is a run without {ENCODER}, which is written when it is finished")
        return _of_run(path)
    if (path / ENCODER).exists():
        return _of_our_file(path / ENCODER)
    told = told_in(path)
    state: State = {}
    for file in weight_files(path):
        state |= read_tensors(file)
    weights = recognise(state, told, like, wanted)
    if not (path / EXPORT).exists():
        return weights
    about = exported(path)
    return replace(weights, modality=about["modality"], clip=about["clip"], step=about["step"])


def _of_file(path: Path, like: InputSize | None, wanted: str | None) -> Weights:
    try:
        kind = metadata_of(path).get("format", "")
    except (ValueError, OSError):
        kind = ""
    if kind.startswith("smnm-encoder-"):
        return _of_our_file(path)
    if kind == CLASSIFIER_FORMAT:
        return _of_classifier(path)
    return recognise(read_tensors(path), None, like, wanted)


def _of_classifier(path: Path) -> Weights:
    """classifier.safetensors"""
    with torch.random.fork_rng(devices=[]):
        model = load_classifier(path)
    state = {
        name: t for name, t in model.state_dict().items() if name.startswith(("fc_norm.", "head."))
    }
    head = Head(state, model.head_settings)
    return replace(_described(model.encoder, path), head=head)


def _of_our_file(path: Path) -> Weights:
    """encoder.safetensors"""
    try:
        with torch.random.fork_rng(devices=[]):
            encoder = load_encoder(path)
    except OSError as error:
        raise ValueError(f"{path.name}: cannot be read ({reason(error)})") from error
    return _described(encoder, path)


def _described(encoder: Encoder, path: Path) -> Weights:
    """With what the file's metadata say."""
    held = metadata_of(path)
    try:
        step = held.get("step")
        return Weights(
            encoder_state(encoder),
            encoder.settings,
            encoder.input_size,
            held["modality"],
            tuple(json.loads(held["mean"])),
            tuple(json.loads(held["scale"])),
            clip=json.loads(held.get("preset", "{}")).get("clip", {}),
            step=None if step is None else int(step),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise ValueError(f"{path.name}: does not say what it was trained on ({error})") from error


def _of_run(path: Path) -> Weights:
    """The model of a run's last checkpoint, with its decoder."""
    config = read_json(path / CONFIG)
    if config.get("run", {}).get("modality") == "audio-video":
        raise ValueError(OF_CLIPS_WITH_SOUND)
    try:
        run = config["run"]
        restores = run["objective"]["name"] == MaskedAutoencoding.__name__
        settings = ModelSettings.from_dict(run["objective"]["model"])
        modality, clip = run["modality"], {**run["clip"], **(run.get("measured") or {})}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{CONFIG}: is of no pretraining run with a decoder ({error})") from error
    try:
        # Mapped: of the optimiser's state, which is twice as large, nothing is read.
        held = torch.load(path / CHECKPOINT, map_location="cpu", weights_only=True, mmap=True)
        state, step = dict(held["model"]), int(held["step"])
    except Exception as error:
        raise ValueError(f"{CHECKPOINT}: is not a checkpoint that can be read ({error})") from error
    about = _input_of(modality, clip)
    remarks: tuple[str, ...] = ()
    with torch.device("meta"):
        if restores:
            check_weights(MaskedAutoencoder(settings, about.size), state)
        else:
            state = {name: t for name, t in state.items() if name.startswith("encoder.")}
            check_weights(Encoder(settings.encoder, about.size), encoder_part(state))
            remarks = ("what stands behind its encoder restores no patches and is left out",)
    return Weights(
        state, settings.encoder, about.size, modality, about.mean, about.scale,
        settings if restores else None, remarks=remarks, clip=clip, step=step,
    )  # fmt: skip


def _input_of(modality: str, clip: dict[str, Any]) -> InputFormat:
    """The input of a run, from what its config.json says of its samples."""
    try:
        # A crop decides nothing of the input's format.
        kind = _MODALITIES[modality](**{k: None if k == "crop" else v for k, v in clip.items()})
    except (KeyError, TypeError) as error:
        raise ValueError(f"{CONFIG}: its samples are not of this version ({error})") from error
    (given,) = kind.inputs.values()
    return given
