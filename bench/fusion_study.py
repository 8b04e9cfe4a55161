"""What a model of pictures and sound gains from both, by how their tokens are fused, and whether
pretraining without labels finds which sound belongs to which picture: on sprites that sound.

    python examples/data/sounding_sprites.py --out data/sprites
    python examples/data/sounding_sprites.py --out data/more --seed 1 --groups 300 --single 1200
    python bench/fusion_study.py --data data/sprites data/more --out runs/fusion
    python bench/fusion_study.py --data data/sprites data/more --out runs/fusion --report table.md

With labels: `pair`, shape and timbre, by a JointClassifier on AVT's encoder, trained end to end on
the train clips of all sets. Both inputs with each kind of fusion, either input alone, and a linear
probe on what the untrained encoder makes of picture and of sound, beside each other. Accuracy on
the test clips, whose groups are in no other split.

Without labels: AVT's losses, with the weights that --weights names, on the train clips and on the
single clips of all sets but the first; then retrieval among the single clips of the first set, by
the means before fusion, beside the untrained encoder of the same seed and the rule of
retrieval_rule.py. No batch holds two clips of a group, which share a picture or a sound.

Pictures are mirrored and turned by chance in both, which changes neither labels nor sound. Every
result is a line of OUT/rows.jsonl as soon as it is there: the same command goes on where it was
stopped, and several with other --seeds or --parts may run at once.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from fusion_report import report
from saved_rows import SavedRows
from torch import Tensor, nn

from smnm_kernels import MaskSampler
from smnm_kernels.files import replacing
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.crops import CentreCrop
from smnm_kernels.train.data.modality import FixedView, Normalisation
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.metrics.retrieval import ranks
from smnm_kernels.train.models.avt import build_learner
from smnm_kernels.train.models.avt_encoder import FusedEncoder, FusedEncoderSettings
from smnm_kernels.train.models.avt_learner import (
    AvtLearner,
    LossWeights,
    avt_losses,
    pair_chances,
    weighted,
)
from smnm_kernels.train.models.classifier import HeadSettings
from smnm_kernels.train.models.fusion import FusionSettings
from smnm_kernels.train.models.joint_classifier import JointClassifier, inputs_of
from smnm_kernels.train.models.joint_encoders import new_joint_encoder
from smnm_kernels.train.models.settings import EncoderSettings
from smnm_kernels.train.run.optimisation import Optimisation, adamw
from smnm_kernels.train.run.schedule import Schedule
from smnm_kernels.train.tasks.probing.linear import choose_strength, fit_linear
from smnm_kernels.train.tasks.probing.targets import Task

FUSIONS = ("bottleneck", "concat", "late")
#: Of the part with labels: the encoder's fusion, and the inputs that are looked at.
ARMS = {
    **{fusion: (fusion, "both") for fusion in FUSIONS},
    "video": ("bottleneck", "video"),
    "audio": ("bottleneck", "audio"),
}
PROBE, UNTRAINED, PRETRAINED = "untrained features", "untrained", "pretrained"
#: Weights of contrast, matching and segment.
WEIGHTS = {"contrast": LossWeights(1.0, 0.0, 0.0), "avt": LossWeights()}


@dataclass(frozen=True)
class Setting:
    """What decides a row beside its seed and its arm."""

    size: int = 48  # pixels
    frames: int = 8  # of the picture, spread over the sound
    sound: int = 192  # frames of the spectrogram
    patch: int = 8  # pixels
    dim: int = 96
    own: int = 1  # blocks of each input before fusion
    blocks: int = 2  # of fusion
    tokens: int = 4  # of the bottleneck
    batch_size: int = 32
    lr: float = 1e-3
    steps: int = 300  # with labels
    pretraining: int = 1000  # steps without
    weights: str = "contrast"
    clips: int = 0  # how many there are in all sets

    @property
    def clip(self) -> AudioVideo:
        video = Video(self.frames, self.size, 1, CentreCrop(), flip=False)
        return AudioVideo(video, Audio(self.sound, bands=128), spread=self.frames)

    def encoder(self, fusion: str) -> FusedEncoderSettings:
        shape = {"dim": self.dim, "depth": self.own, "heads": self.dim // 32 or 1}
        rest = {"positions": "axes", "class_token": False, "key_bias": True}
        return FusedEncoderSettings(
            EncoderSettings((2, self.patch, self.patch), **shape, **rest),
            EncoderSettings((1, 16, 32), **shape, **rest),
            FusionSettings(fusion, self.tokens, self.blocks),
        )

    @property
    def input_sizes(self) -> dict[str, tuple[int, int, int, int]]:
        return {name: given.size for name, given in self.clip.inputs.items()}


@dataclass(frozen=True)
class Clips:
    """Clips in memory, as a model gets them but for its normalisation, with their table."""

    inputs: dict[str, np.ndarray]  # [n, C, T, H, W]: uint8 of pictures, float32 of sounds
    rows: list[dict[str, str]]

    def of(self, numbers: Sequence[int] | np.ndarray, given: AudioVideo) -> dict[str, Tensor]:
        return {
            name: Normalisation(given.inputs[name])(torch.from_numpy(x[numbers]))
            for name, x in self.inputs.items()
        }

    def split(self, name: str) -> np.ndarray:
        return np.array([i for i, row in enumerate(self.rows) if row["split"] == name])

    def joined(self, other: Clips) -> Clips:
        inputs = {name: np.concatenate([x, other.inputs[name]]) for name, x in self.inputs.items()}
        return Clips(inputs, self.rows + other.rows)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fingerprint(folder: Path) -> str:
    """Of a set, by its generator."""
    return json.loads((folder / "manifest.json").read_text())["fingerprint"]


def load(folder: Path, table: str, setting: Setting, cache: Path) -> Clips:
    """The clips of "labels" or "single"; from the cache where this set's are there."""
    rows = rows_of(folder / f"{table}.csv")
    for row in rows:
        row["group"] = f"{folder} {table} {row['group']}"
        row["pair"] = f"{row['shape']}-{row['timbre']}"  # sets from before have no such column
    s = setting
    held = cache / f"{fingerprint(folder)[:16]}-{table}-{s.size}-{s.frames}-{s.sound}.npz"
    if not held.exists():
        cache.mkdir(parents=True, exist_ok=True)
        found = [_read(folder / row["path"], setting.clip) for row in rows]
        with replacing(held) as file:
            np.savez(file, **{name: np.stack([one[name] for one in found]) for name in found[0]})
    with np.load(held) as arrays:
        return Clips(dict(arrays), rows)


def _read(path: Path, clip: AudioVideo) -> dict[str, np.ndarray]:
    source = Source(path)
    found = clip.read_fixed(source, clip.probe(source), FixedView())
    return {name: x.numpy() for name, x in found.items()}


def draw(groups: Sequence[np.ndarray], count: int, seed: int, step: int) -> np.ndarray:
    """int64 [count], clips of different groups, each as likely as the others of its group."""
    rng = np.random.default_rng([seed, step])
    chosen = rng.choice(len(groups), count, replace=False)
    return np.array([rng.choice(groups[i]) for i in chosen])


def groups_of(clips: Clips, numbers: np.ndarray) -> list[np.ndarray]:
    found: dict[str, list[int]] = {}
    for number in numbers:
        found.setdefault(clips.rows[number]["group"], []).append(int(number))
    return [np.array(group) for group in found.values()]


def turned(video: Tensor, seed: int, step: int) -> Tensor:
    """Each clip [C, T, H, W] mirrored along either axis, and its axes exchanged, by chance."""
    rng = np.random.default_rng([seed, step, 1])
    out = []
    for clip, (x, y, swap) in zip(video, rng.integers(2, size=(len(video), 3)), strict=True):
        clip = clip.flip([axis for axis, yes in ((3, x), (2, y)) if yes])
        out.append(clip.transpose(2, 3) if swap else clip)
    return torch.stack(out)


def train(
    model: nn.Module, loss_of: Callable[[int], Tensor], steps: int, setting: Setting, seed: int
) -> tuple[list[float], float]:
    """(the losses, CPU seconds a step)"""
    optimisation = Optimisation(
        batch_size=setting.batch_size,
        base_lr=setting.lr,
        base_min_lr=0.0,
        weight_decay=0.05,
        betas=(0.9, 0.95),
    )
    optimizer = adamw(model, optimisation)
    schedule = Schedule(setting.lr, setting.lr / 100, steps // 10, steps)
    torch.manual_seed(seed)  # hard negatives are drawn from torch's stream
    losses, began = [], time.process_time()
    for step in range(steps):
        loss = loss_of(step)
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 0:
            print(f"  step {step} of {steps}, loss {losses[-1]:.4f}", flush=True)
    return losses, (time.process_time() - began) / max(steps, 1)


def learn_pairs(clips: Clips, arm: str, setting: Setting, seed: int) -> dict[str, Any]:
    """A classifier of `pair`, trained end to end."""
    fusion, looks_at = ARMS[arm]
    names = tuple(sorted({row["pair"] for row in clips.rows}))
    y = torch.tensor([names.index(row["pair"]) for row in clips.rows])
    encoder = new_joint_encoder(setting.encoder(fusion), setting.input_sizes, seed)
    head = HeadSettings("class", names)
    model = JointClassifier(encoder, head, inputs_of(looks_at), seed=seed)
    of_train = clips.split("train")

    def loss_of(step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        numbers = rng.choice(of_train, setting.batch_size, replace=False)
        given = clips.of(numbers, setting.clip)
        given["video"] = turned(given["video"], seed, step)
        return F.cross_entropy(model(given), y[numbers])

    losses, seconds = train(model, loss_of, setting.steps, setting, seed)
    of_test = clips.split("test")
    with torch.no_grad():
        parts = np.array_split(of_test, -(-len(of_test) // 64))
        said = torch.cat([model.eval()(clips.of(part, setting.clip)).argmax(1) for part in parts])
    accuracy = (said == y[of_test]).float().mean().item()
    return {"accuracy": accuracy, "loss": float(np.mean(losses[-20:])), "seconds": seconds}


def probe_untrained(clips: Clips, setting: Setting, seed: int) -> dict[str, Any]:
    """Of the means of either input's tokens behind all of its blocks, beside each other."""
    encoder = new_joint_encoder(setting.encoder("late"), setting.input_sizes, seed).eval()
    names = sorted({row["pair"] for row in clips.rows})
    y = np.array([names.index(row["pair"]) for row in clips.rows])
    x = means(clips, setting, lambda given: {n: t.mean(1) for n, t in encoder(given).items()})
    beside = np.concatenate(list(x.values()), axis=1)
    task = Task("class", len(names))
    fit, val = ((beside[i], y[i]) for i in map(clips.split, ("train", "val")))
    of_test = clips.split("test")
    said = fit_linear(task, *fit, choose_strength(task, fit, val))(beside[of_test])
    return {"accuracy": float((said.argmax(1) == y[of_test]).mean())}


@torch.no_grad()
def means(
    clips: Clips, setting: Setting, of: Callable[[dict[str, Tensor]], dict[str, Tensor]]
) -> dict[str, np.ndarray]:
    """What `of` makes of each input of all clips, {name: [n, dim]}."""
    parts = np.array_split(np.arange(len(clips.rows)), -(-len(clips.rows) // 64))
    found = [of(clips.of(part, setting.clip)) for part in parts]
    return {name: torch.cat([one[name] for one in found]).numpy() for name in found[0]}


def learner_of(setting: Setting, seed: int) -> AvtLearner:
    weights = WEIGHTS[setting.weights]
    sizes = setting.input_sizes
    return build_learner(setting.encoder("bottleneck"), weights, sizes, seed, classifies=False)


def pretrain(clips: Clips, setting: Setting, seed: int) -> tuple[FusedEncoder, dict[str, Any]]:
    """AVT's encoder, by its losses without labels."""
    model = learner_of(setting, seed)
    weights, of_sound = model.weights, setting.encoder("bottleneck").audio
    grid = of_sound.grid(setting.input_sizes["audio"])
    sampler = MaskSampler("rbn", grid=grid, mask_ratio=0.75, seed=seed)
    groups = groups_of(clips, np.arange(len(clips.rows)))

    def loss_of(step: int) -> Tensor:
        given = clips.of(draw(groups, setting.batch_size, seed, step), setting.clip)
        given["video"] = turned(given["video"], seed, step)
        masks = sampler(setting.batch_size) if weights.segment else None
        parts = model(given, {}, masks, False, pair_chances(weights, given["audio"]))
        found = avt_losses(parts, weights, of_sound.patch, given["audio"], masks, None)
        return weighted(found, weights)

    losses, seconds = train(model, loss_of, setting.pretraining, setting, seed)
    return model.encoder.eval(), {"loss": float(np.mean(losses[-20:])), "seconds": seconds}


def retrieve(encoder: FusedEncoder, single: Clips, setting: Setting) -> dict[str, dict[str, float]]:
    """Measures both ways, those of smnm retrieve."""
    x = means(single, setting, encoder.embed)
    return {
        "sound_to_video": ranks(x["audio"], x["video"]).measures(),
        "video_to_sound": ranks(x["video"], x["audio"]).measures(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=range(5))
    parser.add_argument("--parts", nargs="+", default=("labels", "retrieval"))
    parser.add_argument("--arms", nargs="+", default=tuple(ARMS), choices=tuple(ARMS))
    for name, default in vars(Setting()).items():
        if name != "clips":
            option = f"--{name.replace('_', '-')}"
            parser.add_argument(option, type=type(default), default=default)
    parser.add_argument("--report", type=Path, help="write the tables of what is there, and stop")
    given = parser.parse_args()
    if unknown := set(given.parts) - {"labels", "retrieval"}:
        raise SystemExit(f"--parts: must be labels and retrieval, got {' '.join(sorted(unknown))}")
    if given.weights not in WEIGHTS:
        raise SystemExit(f"--weights {given.weights}: must be one of {', '.join(WEIGHTS)}")
    chosen = {name: getattr(given, name) for name in vars(Setting()) if name != "clips"}
    tables = [folder / f"{name}.csv" for folder in given.data for name in ("labels", "single")]
    setting = Setting(**chosen, clips=sum(len(rows_of(path)) for path in tables))
    table = SavedRows(given.out / "rows.jsonl")
    sets = json.dumps([fingerprint(folder) for folder in given.data])
    held = given.out / "data.json"
    if held.exists() and held.read_text() != sets:
        raise SystemExit(f"--out {given.out}: has rows of other sets; give another folder")
    if not given.report:
        given.out.mkdir(parents=True, exist_ok=True)
        with replacing(held) as file:
            file.write(sets.encode())
    if given.report:
        words = f"--data {' '.join(str(folder) for folder in given.data)}"
        given.report.write_text(report(setting, table.rows, given.data[0], words))
        return
    labelled, single = (
        [load(folder, name, setting, given.out) for folder in given.data[first:]]
        for name, first in (("labels", 0), ("single", 1))
    )
    if "labels" in given.parts:
        learn(reduce(Clips.joined, labelled), setting, given, table)
    if "retrieval" in given.parts:
        ours = [only(clips, clips.split("train")) for clips in labelled]
        asked = load(given.data[0], "single", setting, given.out)
        find(reduce(Clips.joined, ours + single), asked, setting, given.seeds, table)


def learn(clips: Clips, setting: Setting, given: argparse.Namespace, table: SavedRows) -> None:
    """Makes the rows of the part with labels that are not there yet."""
    for seed in given.seeds:
        add_once(table, setting, seed, PROBE, partial(probe_untrained, clips, setting, seed))
        for arm in given.arms:
            add_once(table, setting, seed, arm, partial(learn_pairs, clips, arm, setting, seed))


def only(clips: Clips, numbers: np.ndarray) -> Clips:
    inputs = {name: x[numbers] for name, x in clips.inputs.items()}
    return Clips(inputs, [clips.rows[i] for i in numbers])


def find(
    unlabelled: Clips, asked: Clips, setting: Setting, seeds: Sequence[int], table: SavedRows
) -> None:
    """Makes the rows of the part without labels that are not there yet."""

    def untrained(seed: int) -> dict[str, Any]:
        return retrieve(learner_of(setting, seed).encoder.eval(), asked, setting)

    def pretrained(seed: int) -> dict[str, Any]:
        encoder, found = pretrain(unlabelled, setting, seed)
        return found | retrieve(encoder, asked, setting)

    for seed in seeds:
        add_once(table, setting, seed, UNTRAINED, partial(untrained, seed))
        add_once(table, setting, seed, PRETRAINED, partial(pretrained, seed))


def add_once(
    table: SavedRows, setting: Setting, seed: int, arm: str, make: Callable[[], dict[str, Any]]
) -> None:
    key = {**vars(setting), "seed": seed, "arm": arm}
    if not table.has(**key):
        found = make()
        table.add({**key, **found})
        print(f"seed {seed} {arm}: {found}", flush=True)


if __name__ == "__main__":
    main()
