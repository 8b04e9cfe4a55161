"""`smnm retrieve`: does an encoder know which sound belongs to which pictures?"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor
from tyro.conf import Positional, arg

from smnm_kernels.errors import RunError, UsageError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.left_out import by_reason
from smnm_kernels.train.data.modality import InputFormat, Normalisation, Record
from smnm_kernels.train.data.padding import TokenGrid
from smnm_kernels.train.data.records import fingerprint
from smnm_kernels.train.data.scan import scan, shown_name
from smnm_kernels.train.data.views import OnePass, Views, views_of
from smnm_kernels.train.metrics.intervals import bootstrap, bootstrap_difference
from smnm_kernels.train.metrics.retrieval import Ranks, ranks
from smnm_kernels.train.models.formats.state import digest_of
from smnm_kernels.train.models.joint_encoders import JointEncoder
from smnm_kernels.train.models.joint_pretrained import JointPretrained, find_joint_encoder
from smnm_kernels.train.models.pretrained import UNTRAINED
from smnm_kernels.train.run.folder import RunFolder, write_json
from smnm_kernels.train.run.machine import (
    autocast_dtype,
    cores,
    default_workers,
    find_device,
    versions,
)
from smnm_kernels.train.run.options import Count, Precision, check_apart, check_data, need_at_least
from smnm_kernels.train.run.progress import say

from .options import PresetName
from .presets import PRESETS
from .probing.results import shortened, table, unlike

RESULTS, RANKS = "results.json", "ranks.csv"
#: Queries and candidates of each direction.
DIRECTIONS = {"sound_to_video": ("audio", "video"), "video_to_sound": ("video", "audio")}


@dataclass(kw_only=True)
class Retrieve:
    """Measure whether the sound of a file finds its pictures among those of all files, and the
    other way round.

    The encoder makes one vector of the pictures and one of the sound of each file, and those that
    are most alike are taken for a pair: recall at 1, 5 and 10, and the median rank.
    """

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """Videos with sound: a folder, a list or a tar. Labels are ignored."""
    encoder: str
    """RUN of smnm pretrain audio-video or finetune audio-video, a file of it, or none
    (untrained)."""
    out: Path
    """Folder for results.json and ranks.csv."""
    against: tuple[str, ...] = ()
    """Further encoders on the same files, with intervals of the differences. none has the shape of
    the first encoder that is not none."""
    clips: int = 1
    """Moments of a file, evenly along time, whose vectors are averaged."""
    preset: PresetName = "tiny"
    """Architecture of an encoder none, where no other encoder is given."""
    seed: int = 0
    """Of the weights of none, and of the bootstrap."""
    batch_size: int = 16
    """Samples that go through the encoder together."""
    workers: Count = None
    """Processes that read files; 0 reads in this one. Default: one less than there are cores, at
    least 1, at most 8."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """Of the encoder's matrix products. auto is bfloat16 on CUDA and float32 on the CPU."""

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)


@dataclass(frozen=True)
class Embedder:
    """An encoder of clips with sound, and how it wants files to be read."""

    name: str  # as it was given
    origin: str
    encoder: JointEncoder  # float32, eval mode, without gradients
    clip: AudioVideo
    inputs: dict[str, InputFormat]  # with the encoder's own normalisation

    @classmethod
    def of(cls, asked: str, name: str, found: JointPretrained, clip: AudioVideo) -> Embedder:
        """asked: the option with its value, for a UsageError."""
        inputs = {
            of: replace(form, mean=found.mean[of], scale=found.scale[of])
            for of, form in clip.inputs.items()
        }
        for of, form in inputs.items():
            if tuple(form.size) != tuple(found.encoder.input_sizes[of]):
                raise UsageError(
                    f"{asked}: takes {of} of (C, T, H, W) = "
                    f"{tuple(found.encoder.input_sizes[of])}, and its files are read as "
                    f"{tuple(form.size)}"
                )
        return cls(name, found.origin, found.encoder.requires_grad_(False), clip, inputs)

    def described(self) -> dict[str, Any]:
        """For a row of results."""
        return {
            "encoder": self.name,
            "origin": self.origin,
            "digest": digest_of(self.encoder.state_dict()),
            "input_sizes": {name: list(size) for name, size in self.encoder.input_sizes.items()},
        }

    @torch.no_grad()
    def embed(
        self, raw: dict[str, Tensor], files: Sequence[Record], precision: Precision
    ) -> dict[str, Tensor]:
        """As the loader reads these files -> float32 [B, dim] of "video" and "audio", without
        their padding. The encoder is where `raw` is."""
        device = raw["video"].device
        inputs = {
            name: Normalisation(form, device)(raw[name]) for name, form in self.inputs.items()
        }
        dtype = autocast_dtype(precision, device)
        with torch.autocast(device.type, dtype, enabled=dtype is not None):
            found = self.encoder.embed(inputs, self._valid(files, device))
        return {name: x.float() for name, x in found.items()}

    def _valid(self, files: Sequence[Record], device: torch.device) -> dict[str, Tensor]:
        """bool [B, N] of inputs that some of the files pad: tokens that hold anything real."""
        real = [self.clip.padded(record) for record in files]
        valid = {}
        for name in {name for sides in real for name in sides}:
            size = self.inputs[name].size[1:]
            tokens = TokenGrid(size, self.encoder.branch(name).grid, n_keep=None)
            rows = [tokens.real(sides.get(name, size)).flatten() for sides in real]
            valid[name] = torch.stack(rows).to(device)
        return valid


def retrieve(options: Retrieve) -> int:
    """Returns 0. Raises UsageError, before any work, where options or DATA do not allow it."""
    check(options)
    check_data(options.data, "audio-video")
    embedders = embedders_of(options)
    device = find_device(options.device)
    with RunFolder.of_results(options.out) as folder:  # locked until this returns
        _retrieve(options, embedders, device, folder.path)
    return 0


def _retrieve(
    options: Retrieve, embedders: list[Embedder], device: torch.device, out: Path
) -> None:
    widest = max((e.clip for e in embedders), key=lambda clip: clip.least_frames)
    listing = scan(options.data, widest, None, threads=min(32, cores()), besides=out)
    left_out = listing.reasons()
    for name, why in left_out.items():
        say(f"  skipped {name}: {printable(why)}")
    files = listing.usable
    if len(files) < 2:
        reasons = by_reason(record["reason"] for record in listing.skipped)
        raise UsageError(
            f"DATA {printable(str(options.data))}: two usable files at least are needed, there "
            f"{'is one' if len(files) else 'is none'}{f': {reasons}' if reasons else ''}"
        )
    vectors = [_vectors(embedder, files, options, device, left_out) for embedder in embedders]
    usable = [place for place in range(len(files)) if all(place in found for found in vectors)]
    if len(usable) < 2:
        raise RunError(f"{printable(str(options.data))}: its files cannot be read any more")
    found = [
        {
            direction: ranks(*(np.stack([of_one[p][name] for p in usable]) for name in names))
            for direction, names in DIRECTIONS.items()
        }
        for of_one in vectors
    ]
    _write(out, options, embedders, [files[p] for p in usable], found, left_out)


def check(options: Retrieve) -> None:
    """Refuse values outside their range."""
    for name in ("clips", "batch_size"):
        need_at_least(options, name, 1)
    for name in ("seed", "workers"):
        need_at_least(options, name, 0)
    if options.preset not in PRESETS["audio-video"]:
        raise UsageError(
            f"--preset {options.preset}: audio-video has {', '.join(PRESETS['audio-video'])}"
        )
    check_apart(options.out, options.data)


def embedders_of(options: Retrieve) -> list[Embedder]:
    """The encoders that were asked for, in their order. "none" has the shape, files and
    normalisation of the first of them that is something, else those of the preset."""
    given = [options.encoder, *options.against]
    preset = PRESETS["audio-video"][options.preset]
    clip, settings = preset.clip, preset.objective.model.encoder  # type: ignore[attr-defined]
    assert isinstance(clip, AudioVideo)
    inputs, found = clip.inputs, {}
    for name in sorted(dict.fromkeys(given), key=lambda name: name == UNTRAINED):
        asked = f"--{'encoder' if name == options.encoder else 'against'} {printable(name)}"
        pretrained = find_joint_encoder(asked, name, inputs, settings, options.seed)
        own = clip
        if name != UNTRAINED:
            try:
                own = AudioVideo.of_fixed_views(pretrained.clip)
            except (KeyError, TypeError, ValueError) as error:
                raise UsageError(
                    f"{asked}: does not say how its files are read ({error})"
                ) from error
        found[name] = Embedder.of(asked, name, pretrained, own)
        if len(found) == 1:
            clip, settings = own, pretrained.encoder.settings
            inputs = found[name].inputs
    aspects = {one.clip.video.pixel_aspect for one in found.values()}
    if len(aspects) > 1:  # what the scan finds of a file decides how all of them read it
        raise UsageError(
            f"--against: encoders see pixels that are not square in {len(aspects)} ways "
            f"({', '.join(sorted(aspects))}); compare those of one way"
        )
    return [found[name] for name in given]


def _vectors(
    embedder: Embedder,
    files: Sequence[Record],
    options: Retrieve,
    device: torch.device,
    left_out: dict[str, str],
) -> dict[int, dict[str, np.ndarray]]:
    """Of each file by its place: float32 [dim] of "video" and "audio", the mean over its moments.
    Files that cannot be read are put into `left_out`."""
    embedder.encoder.to(device)
    views = views_of(options.clips)
    dataset = Views(options.data, files, embedder.clip, range(len(files)), views)
    numbers = OnePass(len(dataset), options.batch_size)
    workers = default_workers() if options.workers is None else options.workers
    sums: dict[int, dict[str, np.ndarray]] = {}
    counts = np.zeros(len(files), np.int64)
    batches = Batches(dataset, numbers, workers, device, say=say)
    try:
        what = f"vectors of {printable(embedder.name)}"
        with bar(what, len(dataset), unit=" moments") as shown:
            for batch in batches:
                for failure in batch.failures:
                    name = printable(failure.name)
                    if name not in left_out:  # of several moments
                        say(f"  left out {name}: {printable(failure.reason)}")
                    left_out[name] = failure.reason
                shown.update(len(batch) + len(batch.failures))
                if not len(batch):
                    continue
                places = batch.file_numbers.tolist()
                of_files = [files[place] for place in places]
                made = embedder.embed(batch.to(device).inputs, of_files, options.precision)
                rows = {name: x.cpu().numpy() for name, x in made.items()}
                for i, place in enumerate(places):
                    counts[place] += 1
                    before = sums.get(place, dict.fromkeys(rows, np.float32(0)))
                    sums[place] = {name: before[name] + x[i] for name, x in rows.items()}
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"no more memory on {device} at --batch-size {options.batch_size}; a smaller one needs "
            "less"
        ) from error
    finally:
        batches.close()
        embedder.encoder.cpu()
    return {place: of_file for place, of_file in sums.items() if counts[place] == len(views)}


def _write(
    out: Path,
    options: Retrieve,
    embedders: Sequence[Embedder],
    files: Sequence[Record],
    found: Sequence[dict[str, Ranks]],
    left_out: dict[str, str],
) -> None:
    """results.json and ranks.csv, and a table on the screen."""
    names = unlike([embedder.name for embedder in embedders])
    rows, cells = [], []
    for name, embedder, of_one in zip(names, embedders, found, strict=True):
        for direction, of_direction in of_one.items():
            intervals = bootstrap(of_direction, seed=options.seed)
            row = {
                **embedder.described(),
                "name": name,
                "direction": direction,
                "measures": {measure: i.as_row() for measure, i in intervals.items()},
            }
            if of_one is not found[0]:
                differences = bootstrap_difference(
                    found[0][direction], of_direction, seed=options.seed
                )
                row["first_minus_this"] = {m: i.as_row() for m, i in differences.items()}
            rows.append(row)
            what = f"{shortened(name)}, {direction.replace('_', ' ')}"
            cells.append([what, *map(str, intervals.values())])
    content = {
        "command": "retrieve",
        "data": str(options.data.resolve()),
        "data_fingerprint": fingerprint(files),
        "files": len(files),
        "left_out": left_out,
        "settings": {
            "clips": options.clips, "seed": options.seed, "precision": options.precision,
        },
        "protocol": {
            "vectors": "the mean of all tokens of one modality alone, compared by cosine",
            "ties": "their mean over all orders",
            "chance": {"recall@k": f"k / {len(files)}", "median_rank": (len(files) + 1) / 2},
        },
        "interval": "bootstrap over files as queries; the candidates stay the same",
        "versions": versions(),
        "rows": rows,
    }  # fmt: skip
    write_json(out / RESULTS, content)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["encoder", "direction", "name", "rank"])
    for name, of_one in zip(names, found, strict=True):
        for direction, of_direction in of_one.items():
            for record, mean in zip(files, of_direction.means.tolist(), strict=True):
                writer.writerow([name, direction, shown_name(record), f"{mean:g}"])
    with replacing(out / RANKS) as file:
        file.write(text.getvalue().encode("utf-8", "backslashreplace"))
    measures = list(rows[0]["measures"])
    print(f"{len(files)} files; chance finds k of {len(files)}, median rank {len(files) / 2 + 0.5}")
    print(table(["encoder, direction", *measures], cells))
    print(f"results: {out / RESULTS}, {out / RANKS}", flush=True)
