"""Which labels show something: each by an untrained encoder, by a pretrained and a supervised one.

    python examples/data/atari.py --out runs/atari --clips 240 --episodes 24
    python bench/label_pilot.py --data runs/atari --out runs/pilot-atari --by game --steps 1200
    python bench/label_pilot.py --data runs/words --out runs/pilot-words --modality audio

A label that an untrained encoder gets right, or that one trained for it cannot get, says nothing
about pretraining. For every label of labels.csv, of the clips that have it: chance, a probe on the
untrained encoder's features, on the pretrained one's, and both encoders trained end to end on all
labels together. Classes: accuracy; numbers: R². On test, the probe's regularisation chosen on val.

The probe is a ridge regression (of ones and zeros for classes) on standardised features: the mean
of all tokens ("mean"), the mean over time at each place ("place"), or all tokens beside each other
("all"). All encoders get the same. Clips are kept in memory; pretraining takes them at random
moments, probes at their middle. Rows are appended to OUT/rows.jsonl; finished ones are not made
again. `pilot_table.py` makes a table of them.
"""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from saved_rows import SavedRows
from torch import Tensor, nn

from smnm_kernels import MaskSampler
from smnm_kernels.train import decode
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.crops import resize
from smnm_kernels.train.data.modality import FixedView, InputFormat, Normalisation, evenly
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.vit import Encoder
from smnm_kernels.train.run.optimisation import adamw
from smnm_kernels.train.run.schedule import Schedule
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.presets.preset import Preset

POOLINGS = ("mean", "place", "all")
ALPHAS = tuple(10.0**k for k in range(-1, 7))


@dataclass(frozen=True)
class ClipSet:
    """All clips of a set in memory, with their table."""

    pixels: np.ndarray  # [n, C, frames, h, w]: uint8 of videos, float32 of sounds (one frame)
    rows: list[dict[str, str]]

    def split(self, name: str) -> np.ndarray:
        return np.array([i for i, row in enumerate(self.rows) if row["split"] == name])

    def only(self, keep: np.ndarray) -> ClipSet:
        return ClipSet(self.pixels[keep], [self.rows[i] for i in keep])

    def clips(self, numbers: Sequence[int], starts: Sequence[int], span: range) -> Tensor:
        """[B, C, T, h, w]: the frames of `span`, moved by each clip's start."""
        at = zip(numbers, starts, strict=True)
        return torch.from_numpy(np.stack([self.pixels[i][:, np.array(span) + s] for i, s in at]))


def load(data: Path, preset: Preset, cache: Path) -> ClipSet:
    """Videos whole, in the preset's size; of sounds the fixed excerpt."""
    with (data / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    if not cache.exists():
        read = _sound if isinstance(preset.clip, Audio) else _video
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.save(cache, np.stack([read(data / row["path"], preset.clip) for row in rows]))
    return ClipSet(np.load(cache), rows)


def _video(path: Path, clip: Video) -> np.ndarray:
    return torch.stack([resize(frame, clip.size) for frame in decode(path)], dim=1).numpy()


def _sound(path: Path, clip: Audio) -> np.ndarray:
    source = Source(path)
    return clip.read_fixed(source, clip.probe(source), FixedView())["audio"].numpy()


def small_preset(modality: str, size: int, patch: int, batch_size: int) -> Preset:
    """The tiny preset for smaller inputs and patches, unmirrored.

    size: pixels of either side; frames of the spectrogram, 10 ms each.
    """
    tiny = PRESETS[modality]["tiny"]
    settings = tiny.objective.model
    patches = {"video": (2, patch, patch), "audio": (1, patch, patch)}
    encoder = replace(settings.encoder, patch=patches[modality])
    sizes = {"video": {"size": size, "flip": False}, "audio": {"frames": size, "padding": "see"}}
    return replace(
        tiny,
        clip=replace(tiny.clip, **sizes[modality]),
        objective=MaskedAutoencoding(replace(settings, encoder=encoder)),
        optimisation=replace(tiny.optimisation, batch_size=batch_size),
    )


def input_of(preset: Preset) -> InputFormat:
    (given,) = preset.clip.inputs.values()
    return given


def grid_of(preset: Preset) -> tuple[int, int, int]:
    (grid,) = preset.objective.grids(preset.clip.inputs).values()
    return grid


def span_of(preset: Preset) -> range:
    """The frames of a sample, from its first."""
    stride = getattr(preset.clip, "stride", 1)
    return range(0, (input_of(preset).size[1] - 1) * stride + 1, stride)


def middle(clips: ClipSet, preset: Preset) -> int:
    """Where the fixed view of an evaluation begins."""
    return evenly(0, 1, clips.pixels.shape[2] - span_of(preset)[-1] - 1)


def pretrain(
    clips: ClipSet, preset: Preset, kind: str, n_keep: int, steps: int, lr: float, seed: int
) -> tuple[Encoder, list[float]]:
    """(the encoder, the losses)"""
    sampler = MaskSampler(kind, grid_of(preset), n_keep=n_keep, seed=seed)
    model = preset.objective.build(preset.clip.inputs, seed)
    optimizer = adamw(model, preset.optimisation)
    normalise = Normalisation(input_of(preset))
    schedule = Schedule(peak=lr, lowest=lr / 100, warmup_steps=steps // 10, length=steps)
    rng, span = np.random.default_rng([seed, 1]), span_of(preset)
    room = clips.pixels.shape[2] - span[-1]
    losses = []
    for step in range(steps):
        numbers = rng.integers(len(clips.rows), size=preset.optimisation.batch_size)
        starts = rng.integers(room, size=len(numbers))
        x = normalise(clips.clips(numbers, starts, span))
        loss = model(x, sampler(len(x)))
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model.encoder.eval(), losses


@torch.no_grad()
def features(encoder: Encoder, clips: ClipSet, preset: Preset) -> np.ndarray:
    """float32 [n, N, dim] of the fixed views."""
    normalise, start, found = Normalisation(input_of(preset)), middle(clips, preset), []
    for begin in range(0, len(clips.rows), 32):
        numbers = range(begin, min(begin + 32, len(clips.rows)))
        found.append(
            encoder(normalise(clips.clips(numbers, [start] * len(numbers), span_of(preset))))
        )
    return torch.cat(found).numpy()


def pooled(tokens: np.ndarray, pooling: str, grid: tuple[int, int, int]) -> np.ndarray:
    if pooling == "mean":
        return tokens.mean(1)
    by_time = tokens.reshape(len(tokens), *grid, -1)
    return (by_time.mean(1) if pooling == "place" else by_time).reshape(len(tokens), -1)


@dataclass(frozen=True)
class Target:
    """A label of some of the clips."""

    name: str
    keep: np.ndarray  # numbers of the clips that have it
    y: np.ndarray  # [n, outputs]: one-hot of classes, or standardised numbers
    is_class: bool

    def score(self, given: np.ndarray, at: np.ndarray) -> float:
        """Accuracy, or R² against the truth's own mean."""
        y = self.y[at]
        if self.is_class:
            return float((given.argmax(1) == y.argmax(1)).mean())
        return float(1 - ((given - y) ** 2).sum() / ((y - y.mean(0)) ** 2).sum())

    def chance(self, train: np.ndarray, test: np.ndarray) -> float:
        """Of always saying the most frequent class of train, or train's mean."""
        return self.score(np.repeat(self.y[train].mean(0)[None], len(test), 0), test)


def targets(clips: ClipSet, columns: Sequence[str], by: str | None) -> list[Target]:
    """Of each column, apart for each value of column `by`; those that vary."""
    found = []
    groups = sorted({row[by] for row in clips.rows}) if by else [""]
    for column in columns:
        for group in groups if column != by else [""]:
            keep = np.array([
                i for i, row in enumerate(clips.rows)
                if row[column] != "" and (not group or row[by] == group)
            ])  # fmt: skip
            values = [clips.rows[i][column] for i in keep]
            name = f"{group} {column}".strip()
            names = sorted(set(values))
            if len(names) < 2 or len(keep) < 60:
                continue
            if all(value.lstrip("-").replace(".", "", 1).isdigit() for value in names):
                y = np.array(values, float)[:, None]
                found.append(Target(name, keep, (y - y.mean()) / y.std(), False))
            else:
                y = np.array([[value == n for n in names] for value in values], float)
                found.append(Target(name, keep, y, True))
    return found


def ridge(x: np.ndarray, target: Target, splits: dict[str, np.ndarray]) -> float:
    """The score on test of a ridge regression from features [n, D], in its dual form."""
    train = x[splits["train"]]
    x = (x - train.mean(0)) / (train.std(0) + 1e-6) / math.sqrt(x.shape[1])
    train, y = x[splits["train"]], target.y[splits["train"]]
    offset = y.mean(0)
    values, vectors = np.linalg.eigh(train @ train.T)
    against = vectors.T @ (y - offset)
    of = {name: (x[at] @ train.T) @ vectors for name, at in splits.items()}

    def scored(alpha: float, split: str) -> float:
        # Gram matrices here have a trace of about n, whatever D is.
        given = of[split] @ (against / (values + alpha * 1e-3)[:, None].clip(1e-9)) + offset
        return target.score(given, splits[split])

    best = max(ALPHAS, key=lambda alpha: scored(alpha, "val"))
    return scored(best, "test")


def splits_of(clips: ClipSet, keep: np.ndarray) -> dict[str, np.ndarray]:
    """Places within `keep`."""
    return {
        name: np.array([at for at, i in enumerate(keep) if clips.rows[i]["split"] == name])
        for name in ("train", "val", "test")
    }


class Supervised(nn.Module):
    """The encoder with a linear layer on all its tokens."""

    def __init__(self, encoder: Encoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Linear(math.prod(encoder.grid) * encoder.settings.dim, outputs)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.encoder(x)
        return self.head(tokens.flatten(1) / math.sqrt(tokens.shape[1]))


def supervised(
    clips: ClipSet,
    preset: Preset,
    encoder: Encoder,
    found: list[Target],
    steps: int,
    lr: float,
    seed: int,
) -> dict[str, float]:
    """Scores on test of this encoder, trained end to end on all of these targets together."""
    n, outputs = len(clips.rows), sum(t.y.shape[1] for t in found)
    y, known = np.zeros((n, outputs), np.float32), np.zeros((n, outputs), bool)
    place, column = {}, 0
    for t in found:
        place[t.name] = slice(column, column + t.y.shape[1])
        y[t.keep, place[t.name]], known[t.keep, place[t.name]] = t.y, True
        column += t.y.shape[1]
    torch.manual_seed(seed)
    model = Supervised(encoder.train(), outputs)
    optimizer = adamw(model, preset.optimisation)
    normalise = Normalisation(input_of(preset))
    schedule = Schedule(peak=lr, lowest=lr / 100, warmup_steps=steps // 10, length=steps)
    rng, span, start = np.random.default_rng([seed, 2]), span_of(preset), middle(clips, preset)
    train = clips.split("train")
    for step in range(steps):
        numbers = rng.choice(train, preset.optimisation.batch_size)
        x = normalise(clips.clips(numbers, [start] * len(numbers), span))
        given, of, mask = model(x), torch.from_numpy(y[numbers]), torch.from_numpy(known[numbers])
        loss = ((given - of) ** 2)[mask].mean()
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate(step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    out = []
    with torch.no_grad():
        for begin in range(0, n, 32):
            numbers = range(begin, min(begin + 32, n))
            out.append(model(normalise(clips.clips(numbers, [start] * len(numbers), span))))
    given = torch.cat(out).numpy()
    scores = {}
    for t in found:
        at = splits_of(clips, t.keep)["test"]
        scores[t.name] = t.score(given[t.keep][at][:, place[t.name]], at)
    return scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--modality", default="video", choices=("video", "audio"))
    parser.add_argument("--by", help="a column: other labels are probed apart for each value")
    parser.add_argument("--only", nargs="+", help="values of --by that are taken")
    parser.add_argument("--labels", nargs="+", help="columns; default all but path and split")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, nargs="+", default=[1000])
    parser.add_argument("--supervised-steps", type=int, default=600)
    parser.add_argument("--kinds", nargs="*", default=["green3d"])
    parser.add_argument("--keep", type=int, default=16, help="visible tokens of a clip")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    given = parser.parse_args()
    preset = small_preset(given.modality, given.size, given.patch, given.batch_size)
    clips = load(given.data, preset, given.out / f"clips-{given.size}.npy")
    if given.only:
        clips = clips.only(
            np.array([i for i, r in enumerate(clips.rows) if r[given.by] in given.only])
        )
    left_out = {"path", "split", "episode", "prompt", "voice", "thing"}
    columns = given.labels or [c for c in clips.rows[0] if c not in left_out]
    found = targets(clips, columns, given.by)
    table = SavedRows(given.out / "rows.jsonl")
    setting = {"size": given.size, "patch": given.patch, "only": given.only, "lr": given.lr}
    setting["batch_size"] = given.batch_size

    def untrained(seed: int) -> Encoder:
        return preset.objective.build(preset.clip.inputs, seed).encoder.eval()

    def finetune(of: Encoder, **key: Any) -> None:
        steps = given.supervised_steps
        key |= {"supervised_steps": steps}
        if not steps or table.has(**setting, **key):
            return
        scores = supervised(clips, preset, of, found, steps, given.lr, key["seed"])
        for name, score in scores.items():
            table.add({**setting, **key, "label": name, "pooling": "all", "score": score})
            print(key, name, f"{score:.3f}", flush=True)

    def probe(of: Encoder, **key: Any) -> None:
        tokens = features(of, clips, preset)
        for pooling in POOLINGS:
            x = pooled(tokens, pooling, grid_of(preset))
            for t in found:
                splits = splits_of(clips, t.keep)
                score = ridge(x[t.keep], t, splits)
                chance = t.chance(splits["train"], splits["test"])
                row = {"label": t.name, "pooling": pooling, "score": score, "chance": chance}
                row |= {"is_class": t.is_class, "n": len(splits["test"])}
                table.add({**setting, **key, **row})
                print(key, pooling, t.name, f"{score:.3f} (chance {chance:.3f})", flush=True)

    for seed in given.seeds:
        key = {"encoder": "untrained", "seed": seed}
        if not table.has(**setting, **key):
            probe(untrained(seed), **key)
        for kind in given.kinds:
            for steps in given.steps:
                key = {"encoder": kind, "seed": seed, "steps": steps, "keep": given.keep}
                name = "-".join(str(v) for v in (*setting.values(), *key.values()) if v)
                saved = given.out / f"{name}.pt".replace(" ", "")
                trained = untrained(seed)
                if saved.exists():
                    trained.load_state_dict(torch.load(saved))
                else:
                    of_train, began = clips.only(clips.split("train")), time.perf_counter()
                    trained, losses = pretrain(
                        of_train, preset, kind, given.keep, steps, given.lr, seed
                    )
                    ends = np.mean(losses[:20]), np.mean(losses[-20:])
                    took = time.perf_counter() - began
                    print(f"loss {ends[0]:.4f} -> {ends[1]:.4f}, {took:.0f} s", flush=True)
                    torch.save(trained.state_dict(), saved)
                if not table.has(**setting, **key):
                    probe(trained, **key)
                finetune(trained, **key)
        finetune(untrained(seed), encoder="supervised", seed=seed)


if __name__ == "__main__":
    main()
