"""What a fine-tuned model says of files."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor
from tqdm import tqdm
from tyro.conf import Positional, arg

from smnm_kernels.errors import RunError, UsageError, printable
from smnm_kernels.files import reason
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.crops import CentreCrop, interpolation_of
from smnm_kernels.train.data.labels import Labels
from smnm_kernels.train.data.left_out import by_reason
from smnm_kernels.train.data.modality import InputFormat, Modality, Normalisation
from smnm_kernels.train.data.padding import Padding, TokenGrid
from smnm_kernels.train.data.scan import Listing, scan, shown_name
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.data.views import OnePass, Views, views_of
from smnm_kernels.train.metrics.predictions import write_predictions
from smnm_kernels.train.models.classifier import Classifier, load_classifier
from smnm_kernels.train.models.encoder_file import metadata_of
from smnm_kernels.train.models.joint_classifier import FORMAT as JOINT
from smnm_kernels.train.models.joint_classifier import JointClassifier, load_joint_classifier
from smnm_kernels.train.models.vit import Encoder, InputSize
from smnm_kernels.train.run.evaluating import Outputs
from smnm_kernels.train.run.machine import cores, default_workers, find_device
from smnm_kernels.train.run.options import Count, check_data, need_at_least
from smnm_kernels.train.run.progress import say

from .finetune_evaluation import BEST, mean_of_views
from .finetune_options import parsed_views
from .finetune_presets import PRESETS

# Of the modality that a model was trained with, what decides how a fixed view is read.
_OF_VIEWS = ("stride", "pixel_aspect", "padding", "sampling", "front")


@dataclass(kw_only=True)
class Predict:
    """Let a fine-tuned model say what files are: a row of CSV for each."""

    model: Annotated[Positional[Path], arg(metavar="TUNED")]
    """RUN of smnm finetune, or its classifier.safetensors."""
    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """A file, a folder, a list of files or a tar, as of smnm pretrain; labels are ignored."""
    out: Path
    """The CSV file: name, prediction, and probability of each class (of more than 20, the five
    highest)."""
    views: str = "1x1"
    """CLIPSxCROPS: so many clips along time, so many crops along the longer side; what they predict
    is averaged."""
    batch_size: int = 16
    """Views that go through the model at a time."""
    workers: Count = None
    """Processes that read files; 0 reads in this one. Default: one less than there are cores, at
    least 1, at most 8."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        self.model, self.data, self.out = Path(self.model), Path(self.data), Path(self.out)


@dataclass(frozen=True)
class Predictions:
    """What a model says of files."""

    names: list[str]  # of the files, in their order
    labels: Labels  # kind, and names of the classes
    values: Tensor  # float32: probabilities [n, classes], or numbers [n]
    failed: dict[str, str]  # files that it says nothing of, each with its reason


@dataclass(frozen=True)
class Tuned:
    """A fine-tuned model, and how it wants files to be read."""

    model: Classifier | JointClassifier
    clip: Modality
    inputs: dict[str, InputFormat]  # those that the model looks at

    @classmethod
    def load(cls, path: Path) -> Tuned:
        """Of RUN or its classifier.safetensors; UsageError where it is none."""
        file = path / BEST if path.is_dir() else path
        if not file.exists():
            what = (
                f"holds no {BEST}, as runs of smnm finetune do" if path.is_dir() else "is not there"
            )
            raise UsageError(f"{printable(str(path))}: {what}")
        try:
            held = metadata_of(file)
            model: Classifier | JointClassifier
            if held.get("format") == JOINT:
                model = load_joint_classifier(file)
                clip: Modality = AudioVideo.of_fixed_views(json.loads(held["preset"])["clip"])
                names = model.inputs
            else:
                model = load_classifier(file)
                clip = _clip_of_one(held, model.encoder.input_size)
                names = tuple(clip.inputs)
            mean, scale = (_by_input(held[key], names) for key in ("mean", "scale"))
            formats = clip.inputs
            inputs = {n: replace(formats[n], mean=mean[n], scale=scale[n]) for n in names}
        except (ValueError, KeyError, TypeError, OSError) as error:
            raise UsageError(f"{printable(str(file))}: is no fine-tuned model ({error})") from error
        return cls(model, clip, inputs)

    @property
    def labels(self) -> Labels:
        head = self.model.head_settings
        return Labels(head.kind, head.names)

    def padding(self, listing: Listing) -> Padding | None:
        """None where no file is padded, or padding is seen as if it were real."""
        tokens = {
            name: TokenGrid(given.size[1:], self._encoder(name).grid, n_keep=None)
            for name, given in self.inputs.items()
        }
        found = Padding(self.clip, tokens, listing.usable)
        return found if found.padded else None

    def _encoder(self, name: str) -> Encoder:
        encoder = self.model.encoder
        return encoder if isinstance(encoder, Encoder) else encoder.branch(name)

    def predict(self, x: dict[str, Tensor], real: dict[str, Tensor]) -> Tensor:
        """Of normalised inputs on the model's device; `real` where they are padded."""
        if isinstance(self.model, JointClassifier):
            return self.model.predict(x, real)
        ((name, values),) = x.items()
        return self.model.predict(values, real.get(name))


def _clip_of_one(held: dict[str, str], size: InputSize) -> Modality:
    """How the files of a model of one input are read, by its file's metadata."""
    kept = json.loads(held["preset"])["clip"]
    clip = PRESETS[held["modality"]]["tiny"].clip.sized(size)
    if isinstance(clip, Video):  # its fixed views are resized as its crop is
        clip = replace(clip, crop=CentreCrop(interpolation=interpolation_of(kept["crop"])))
    names = {field.name for field in fields(clip)}
    return replace(clip, **{n: kept[n] for n in _OF_VIEWS if n in kept and n in names})


def _by_input(text: str, names: tuple[str, ...]) -> dict[str, tuple[float, ...]]:
    """Values of each input, as metadata have them: of the only one, or by names."""
    held = json.loads(text)
    by_name = held if isinstance(held, dict) else {names[0]: held}
    return {name: tuple(values) for name, values in by_name.items()}


def predict(options: Predict) -> int:
    """Write the CSV file. Returns 0, or 1 where some file could not be read.

    Raises UsageError, before any work, where model, DATA or options do not allow it.
    """
    views = parsed_views(options.views)
    need_at_least(options, "batch_size", 1)
    need_at_least(options, "workers", 0)
    tuned = Tuned.load(options.model)
    check_data(options.data, tuned.clip.name)
    if options.out.is_dir():
        raise UsageError(f"--out {options.out}: is a folder; a name for the CSV file is needed")
    found = predictions(
        tuned,
        options.data,
        views,
        batch_size=options.batch_size,
        workers=default_workers() if options.workers is None else options.workers,
        device=find_device(options.device),
    )
    try:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(options.out, found.names, found.labels, found.values, None)
    except OSError as error:
        raise UsageError(f"--out {options.out}: cannot be written ({reason(error)})") from error
    print(f"{len(found.names)} files: {options.out}", flush=True)
    return 1 if found.failed else 0


def predictions(
    tuned: Tuned | str | Path,
    data: str | Path,
    views: tuple[int, int] = (1, 1),
    *,
    batch_size: int = 16,
    workers: int = 0,
    device: torch.device | str = "cpu",
) -> Predictions:
    """What a fine-tuned model says of files, as in the evaluation of its run: the same views, the
    same padding.

    tuned: RUN of smnm finetune, or its classifier.safetensors.
    data: a file, a folder, a list of files or a tar.
    views: clips along time and crops along the longer side, whose predictions are averaged.

    Files that cannot be read are named in `failed`. Raises UsageError where there is no such model
    or no usable file.
    """
    if not isinstance(tuned, Tuned):
        tuned = Tuned.load(Path(tuned))
    data, device = Path(data), torch.device(device)
    listing = scan(data, tuned.clip, None, threads=min(32, cores()))
    failed = {shown_name(record): record["reason"] for record in listing.skipped}
    for name, why in failed.items():
        say(f"  skipped {name}: {printable(why)}")
    if not listing.usable:
        raise UsageError(
            f"DATA {printable(str(data))}: no usable file: {by_reason(failed.values())}"
        )
    numbers = range(len(listing.usable))
    reading = Views(
        data, listing.usable, tuned.clip, numbers, views_of(*views), tuned.padding(listing)
    )
    outputs = _outputs(tuned, reading, batch_size, workers, device)
    for name, why in outputs.failed.items():
        say(f"  failed {printable(name)}: {why}")
    kept, values = mean_of_views(reading, outputs)
    return Predictions(
        [reading.name(number) for number in kept],
        tuned.labels,
        values[:, 0] if tuned.labels.kind == "number" else values,
        failed | outputs.failed,
    )


@torch.no_grad()
def _outputs(
    tuned: Tuned, reading: Views, batch_size: int, workers: int, device: torch.device
) -> Outputs:
    tuned.model.to(device).eval()
    normalisations = {name: Normalisation(of, device) for name, of in tuned.inputs.items()}
    ids: list[int] = []
    values: list[Tensor] = []
    failed: dict[str, str] = {}
    batches = Batches(reading, OnePass(len(reading), batch_size), workers, device, say=say)
    bar: Any = tqdm(
        desc="predicting", total=len(reading), unit=" views", disable=not sys.stderr.isatty()
    )
    try:
        with bar:
            for batch in batches:
                failed |= {f.name: f.reason for f in batch.failures}
                bar.update(len(batch))
                if not len(batch):
                    continue
                there = batch.to(device)
                x = {name: of(there.inputs[name]) for name, of in normalisations.items()}
                values.append(tuned.predict(x, there.real).cpu())
                ids += batch.sample_ids.tolist()
    finally:
        batches.close()
    if not ids:
        raise RunError(f"{reading.folder}: none of its files can be read any more")
    return Outputs(ids, torch.cat(values), failed)
