"""`smnm probe`: what can be read from the frozen features of an encoder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.labels import Labels, of_fold
from smnm_kernels.train.data.modality import Modality
from smnm_kernels.train.data.records import Records, fingerprint
from smnm_kernels.train.data.scan import shown_name
from smnm_kernels.train.metrics.measures import MAIN, measure
from smnm_kernels.train.run.folder import RunFolder
from smnm_kernels.train.run.listing import scan_into
from smnm_kernels.train.run.machine import (
    autocast_dtype,
    available_memory,
    default_workers,
    find_device,
)
from smnm_kernels.train.run.options import check_data
from smnm_kernels.train.run.signals import StoppedBySignal

from .label_options import finder_of
from .presets import PRESETS
from .probe_options import Probe, check
from .probing.features import Contents, Features, FeatureSettings, Machine, features
from .probing.frozen import Frozen, find_frozen
from .probing.layers import layer_numbers
from .probing.protocol import (
    Data,
    Inputs,
    Probes,
    Trial,
    few_shot,
    possible_shots,
)
from .probing.report import RESULTS, Asked, Row, write_report
from .probing.results import unlike
from .probing.targets import Task

# What decides no number.
_NOT_SETTINGS = ("data", "out", "encoder", "against", "cache", "workers", "scan_of", "stall_limit")


def probe(options: Probe) -> int:
    """Returns 0, or 130 / 143 when SIGINT / SIGTERM made it keep what was done and stop.

    Raises UsageError, before any work, where options or data do not allow it.
    """
    check(options)
    device = find_device(options.device)
    finder = finder_of(options, options.data, all_folds=True)
    check_data(options.data, options.modality)
    encoders = _encoders(options)
    layers = _layers(options, encoders)
    with RunFolder.of_results(options.out) as folder:  # locked until this returns
        try:
            listing = scan_into(
                folder.path, _widest(encoders), finder, options.scan_of, options.stall_limit
            )
            labels, files = listing.labels, listing.usable
            assert labels is not None
            splits = _splits(labels, files, options.fold)
            _check_neighbours(options, splits)
            _check_tokens(options, encoders, len(files), layers)
            about = _about(options, files, device)
            _say_what_is_replaced(about, encoders, options.out)
            contents = Contents.of(options.data, files)
            computed = [
                features(
                    frozen,
                    options.data,
                    files,
                    FeatureSettings(
                        tuple(of_each),
                        options.clips,
                        options.crops,
                        options.pool,
                        "attentive" in options.probes,
                        _precision(options, device),
                    ),
                    Machine(device, options.batch_size, _workers(options)),
                    options.cache or options.out / "features",
                    contents,
                )
                for frozen, of_each in zip(encoders, layers, strict=True)
            ]
        except StoppedBySignal as stopped:
            return 128 + stopped.number
        data = _data(options, labels, files, splits, computed)
        rows = _rows(options, encoders, layers, computed, data, device)
        failed = {name: why for found in computed for name, why in found.failed.items()}
        about["left_out"] = listing.reasons() | failed
        write_report(options.out, Asked(labels, data, about), rows)
        return 0


def _about(options: Probe, files: Records, device: torch.device) -> dict[str, Any]:
    """For results.json: what decides the numbers beside the encoders."""
    return {
        "modality": options.modality,
        "data": str(options.data.resolve()),
        "data_fingerprint": fingerprint(files),
        "settings": {
            name: str(value) if isinstance(value, Path) else value
            for name, value in asdict(options).items()
            if name not in _NOT_SETTINGS
        }
        | {"device": device.type, "precision": _precision(options, device)},
    }


def _say_what_is_replaced(about: dict[str, Any], encoders: Sequence[Frozen], out: Path) -> None:
    """Where OUT holds results of something else."""
    try:
        held = json.loads((out / RESULTS).read_text())
        settings, data = held["settings"], held["data_fingerprint"]
        digests = dict.fromkeys(row["digest"] for row in held["rows"])
    except (OSError, ValueError, TypeError, KeyError):
        return
    now = json.loads(json.dumps(about))["settings"]
    differing = [
        *(["data"] if data != about["data_fingerprint"] else []),
        *(["encoders"] if set(digests) != {frozen.digest for frozen in encoders} else []),
        *(name for name in now if name not in settings or now[name] != settings[name]),
    ]
    if differing:
        print(
            f"  {printable(str(out / RESULTS))} is of other {', '.join(differing)} and will be "
            "replaced",
            flush=True,
        )


# --- encoders


def _encoders(options: Probe) -> list[Frozen]:
    preset = PRESETS[options.modality][options.preset]
    given = [options.encoder, *options.against]
    overrides = {name: getattr(options, name) for name in ("stride", "pixel_aspect", "padding")}
    encoders = find_frozen(given, options.modality, preset, options.seed, overrides)
    for frozen in encoders:
        if options.pool == "class" and not frozen.encoder.class_tokens:
            raise UsageError(f"--pool class: {printable(frozen.name)} has no class token")
    return encoders


def _layers(options: Probe, encoders: Sequence[Frozen]) -> list[list[int]]:
    """Of each encoder the layers' numbers, in the order of --layer."""
    return [
        layer_numbers(options.layer, len(one.encoder.blocks), printable(one.name))
        for one in encoders
    ]


def _widest(encoders: Sequence[Frozen]) -> Modality:
    """The clip whose files are of use to all encoders."""
    clips = [frozen.clip for frozen in encoders]
    aspects = {str(getattr(clip, "pixel_aspect", None)) for clip in clips}
    if len(aspects) > 1:
        raise UsageError(
            f"--against: encoders see pixels that are not square in {len(aspects)} ways "
            f"({', '.join(sorted(aspects))}); --pixel-aspect makes them equal"
        )
    return max(clips, key=lambda clip: getattr(clip, "frames", 0))


def _check_tokens(
    options: Probe, encoders: Sequence[Frozen], n_files: int, layers: Sequence[Sequence[int]]
) -> None:
    """The attentive probe holds all tokens in memory."""
    available = available_memory()
    if "attentive" not in options.probes or available is None:
        return
    needed = sum(
        2
        * n_files
        * options.clips
        * options.crops
        * len(of_each)
        * frozen.encoder.pos_embed.numel()
        for frozen, of_each in zip(encoders, layers, strict=True)
    )
    if needed > available // 2:
        raise UsageError(
            f"--probes attentive: the tokens of {n_files} files take {needed / 2**30:.1f} GiB, "
            f"and {available / 2**30:.1f} GiB of memory are available, of which half may be used; "
            "fewer encoders, --clips, --crops or --layer need less"
        )


def _precision(options: Probe, device: torch.device) -> str:
    return "float32" if autocast_dtype(options.precision, device) is None else "bfloat16"


def _workers(options: Probe) -> int:
    return default_workers() if options.workers is None else options.workers


def _check_neighbours(options: Probe, splits: Splits) -> None:
    there = min(of_files.count("train") for of_files in splits.values())
    if options.k is not None and options.k > there:
        where = "a fold has" if len(splits) > 1 else "there are"
        raise UsageError(f"--k {options.k}: {where} {there} training files")


# --- files


Splits = dict[str, list[str]]  # by the trial's name: of each file train, val or test


def _splits(labels: Labels, files: Records, fold: str | None) -> Splits:
    """The split of each file in each trial. Where each fold is tested in turn, files of the split
    test are in none."""
    if labels.folds:
        return {
            f"fold {one}": ["" if split == "test" else split for split in of_fold(files, one)]
            for one in labels.folds
        }
    name = "all files" if fold is None else f"fold {fold}"
    return {name: [record["split"] for record in files]}


def _data(
    options: Probe,
    labels: Labels,
    files: Records,
    splits: Splits,
    computed: Sequence[Features],
) -> Data:
    """The trials, of files that all encoders have features of."""
    usable = [place for place in range(len(files)) if all(place in c.rows for c in computed)]
    trials = []
    for name, of_files in splits.items():
        places = {
            split: np.array([p for p in usable if of_files[p] == split], dtype=np.int64)
            for split in ("train", "val", "test")
        }
        if not len(places["test"]):
            places["test"], places["val"] = places["val"], places["test"]
        for split in ("train", "test"):
            if not len(places[split]):
                raise UsageError(
                    f"DATA {printable(str(options.data))}: {name} has no file to "
                    f"{split} on: there must be training files, and files of val or test"
                )
        trials.append(Trial(name, **places))
    values = labels.targets(files).numpy()
    values = values if labels.kind == "class" else values.astype(np.float64)
    names = [shown_name(record) for record in files]
    groups = [record["group"] for record in files if record.get("group") is not None]
    return Data(
        Task(labels.kind, len(labels.names)),
        values,
        names,
        groups or None,  # all files have one, or none has
        tuple(trials),
        options.seed,
    )


# --- probes


def _rows(
    options: Probe,
    encoders: Sequence[Frozen],
    layers: Sequence[Sequence[int]],
    computed: Sequence[Features],
    data: Data,
    device: torch.device,
) -> list[Row]:
    shots: list[int] = []
    if data.task.kind == "class" and options.few_shot:
        shots, why = possible_shots(data, options.few_shot)
        for line in why:
            print(f"  few-shot: {line}", flush=True)
    main = MAIN[data.task.kind].name
    values = torch.from_numpy(data.values[data.tested()])
    probes = Probes(options.k, device)
    rows = []
    for frozen, name, of_each, found in zip(
        encoders, unlike([f.name for f in encoders]), layers, computed, strict=True
    ):
        for layer, shown in zip(of_each, options.layer, strict=True):
            inputs = _inputs(found, layer, len(data.values), options, frozen)
            for probe_name in bar(
                f"probes of {printable(name)}", unit=" probes", over=options.probes, delay=1
            ):
                scored = probes.run(probe_name, data, inputs)
                few = {}
                if probe_name != "attentive":
                    for n in shots:
                        drawn = (
                            few_shot(probe_name, data, inputs, n, draw)
                            for draw in range(options.draws)
                        )
                        few[n] = [
                            measure(data.task.kind, torch.from_numpy(scores), values)[main]
                            for scores in drawn
                        ]
                rows.append(Row(frozen, name, shown, probe_name, scored, few))
    return rows


def _inputs(found: Features, layer: int, n_files: int, options: Probe, frozen: Frozen) -> Inputs:
    """Features by the files' places; a file that has none has zeros, and is in no trial."""
    places = sorted(found.rows)
    some = found.matrix(layer, places).double().numpy()
    vectors = np.zeros((n_files, some.shape[1]))
    vectors[places] = some
    tokens: list[torch.Tensor] = []
    if "attentive" in options.probes:
        tokens = [torch.zeros(0, 0)] * n_files
        for place, of_file in zip(places, found.tokens(layer, places), strict=True):
            tokens[place] = of_file
    return Inputs(vectors, tokens, frozen.encoder.settings.heads)
