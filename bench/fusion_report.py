"""The tables of fusion_study.py: intervals over seeds, equivalence of fusions, and their work."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from retrieval_rule import rule
from scipy import stats
from torch import Tensor
from torch.nn import functional

from smnm_kernels.train.metrics.intervals import Interval, t_interval
from smnm_kernels.train.models.fusion import Fusion

if TYPE_CHECKING:
    from fusion_study import Setting

#: By how much accuracies may differ and still count as the same.
MARGIN = 0.02
_CHANCE = 0.25  # of four pairs; of both ways of a single input it is a half


def report(setting: Setting, rows: Sequence[dict[str, Any]], first: Path, words: str) -> str:
    """Markdown of the rows of this setting. first: the folder of the clips that are retrieved."""
    every = rows
    rows = [row for row in every if all(row.get(k) == v for k, v in vars(setting).items())]
    if not rows:
        return "no rows of this setting\n"
    options = " ".join(f"--{k.replace('_', '-')} {v}" for k, v in vars(setting).items())
    options = options.removesuffix(f" --clips {setting.clips}")
    parts = [
        f"`python bench/fusion_study.py {words} {options}`, {setting.clips} clips; {_machine()}.",
        *_of_labels(setting, rows),
        *_of_tokens(setting, every),
        *_of_retrieval(rows, first),
    ]
    return "\n\n".join(parts) + "\n"


def equivalence(
    ours: Sequence[float], theirs: Sequence[float], margin: float = MARGIN
) -> tuple[Interval, float]:
    """(95% interval of the mean of the paired differences, p of two one-sided t tests).

    p below 0.05 says that the mean difference lies within the margin (Schuirmann 1987). Two seeds
    at least. Where all differences are the same, p is 0 or 1.
    """
    differences = np.subtract(ours, theirs)
    n, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(n)
    if error == 0:
        return t_interval(differences), float(abs(mean) >= margin)
    nearest = (margin - abs(mean)) / error  # the worse of the two tests
    return t_interval(differences), float(stats.t.sf(nearest, n - 1))


def attention_pairs(setting: Setting, fusion: str) -> int:
    """Pairs of a query and a key that the attention of all blocks of fusion compares in a clip,
    counted as it runs."""
    of_fusion = setting.encoder(fusion)
    streams = {name: of_fusion.of(name) for name in ("video", "audio")}
    tokens = {
        name: torch.zeros(1, math.prod(streams[name].grid(size)), setting.dim)
        for name, size in setting.input_sizes.items()
    }
    pairs, attention = 0, functional.scaled_dot_product_attention

    def counting(q: Tensor, k: Tensor, v: Tensor, **rest: Any) -> Tensor:
        nonlocal pairs
        pairs += q.shape[-2] * k.shape[-2]
        return attention(q, k, v, **rest)

    functional.scaled_dot_product_attention = counting
    try:
        with torch.no_grad():
            Fusion(of_fusion.fusion, streams)(tokens)
    finally:
        functional.scaled_dot_product_attention = attention
    return pairs


def _of_labels(setting: Setting, rows: Sequence[dict[str, Any]]) -> list[str]:
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        if "accuracy" in row:
            found.setdefault(row["arm"], {})[row["seed"]] = row
    if not found:
        return []
    lines = [
        f"Accuracy of `pair` on test, chance {_CHANCE}: mean over seeds [95% interval]. Beside it "
        "how much better both inputs with a bottleneck are, paired by seeds.",
        "",
        "| model | seeds | accuracy | bottleneck is better by | loss | CPU ms a step |",
        "|---|---|---|---|---|---|",
    ]
    ours = found.get("bottleneck", {})
    for arm, by_seed in found.items():
        values = [row["accuracy"] for row in by_seed.values()]
        shared = [seed for seed in by_seed if seed in ours and arm != "bottleneck"]
        gained = [ours[seed]["accuracy"] - by_seed[seed]["accuracy"] for seed in shared]
        cells = [arm, str(len(values)), shown(t_interval(values, possible=(0, 1)))]
        cells.append(shown(t_interval(gained), "+") if gained else "")
        trained = [row for row in by_seed.values() if "loss" in row]
        cells.append(f"{np.mean([row['loss'] for row in trained]):.3f}" if trained else "")
        seconds = [row["seconds"] for row in trained]
        cells.append(f"{1000 * np.median(seconds):.0f}" if trained else "")
        lines.append(f"| {' | '.join(cells)} |")
    return ["\n".join(lines), *_of_fusions(setting, found)]


def _of_fusions(setting: Setting, found: dict[str, dict[int, dict[str, Any]]]) -> list[str]:
    fusions = [arm for arm in ("bottleneck", "concat", "late") if arm in found]
    pairs = {fusion: attention_pairs(setting, fusion) for fusion in fusions}
    lines = [
        "Pairs of tokens that the attention of fusion compares, in a clip: "
        + ", ".join(f"{name} {count}" for name, count in pairs.items())
        + "."
    ]
    if "concat" in pairs and "bottleneck" in pairs:
        lines[0] += f" Bottleneck: {pairs['bottleneck'] / pairs['concat']:.2f} of concat's."
        ours, theirs = found["bottleneck"], found["concat"]
        seeds = [seed for seed in ours if seed in theirs]
        if len(seeds) > 1:
            values = ([one[seed]["accuracy"] for seed in seeds] for one in (ours, theirs))
            interval, p = equivalence(*values)
            verdict = "equivalent" if p < 0.05 else "not shown to be equivalent"
            lines.append(
                f"Bottleneck minus concat over {len(seeds)} seeds: {shown(interval, '+')}; within "
                f"{MARGIN} by two one-sided tests: p {p:.2g}, {verdict}."
            )
    return lines


def _of_tokens(setting: Setting, rows: Sequence[dict[str, Any]]) -> list[str]:
    """Bottlenecks of other sizes, all else as in the setting, beside the fusions without one."""
    of = [replace(setting, tokens=n) for n in sorted({row["tokens"] for row in rows})]
    found: dict[str, dict[int, float]] = {}
    counted = {}
    for fusion, settings in (("late", [setting]), ("bottleneck", of), ("concat", [setting])):
        for one in settings:
            values = {
                row["seed"]: row["accuracy"]
                for row in rows
                if row["arm"] == fusion and all(row.get(k) == v for k, v in vars(one).items())
            }
            if values:
                name = f"bottleneck of {one.tokens}" if fusion == "bottleneck" else fusion
                found[name], counted[name] = values, attention_pairs(one, fusion)
    ours = found.get(f"bottleneck of {setting.tokens}", {})
    if sum(name.startswith("bottleneck") for name in found) < 2:
        return []
    lines = [
        f"Sizes of the bottleneck; beside them how much better that of {setting.tokens} is, paired "
        "by seeds, and the pairs of tokens that the attention of fusion compares in a clip.",
        "",
        f"| fusion | seeds | accuracy | {setting.tokens} is better by | pairs |",
        "|---|---|---|---|---|",
    ]
    for name, values in found.items():
        gained = [ours[seed] - values[seed] for seed in values if seed in ours]
        shown_gain = shown(t_interval(gained), "+") if gained and values is not ours else ""
        mean = shown(t_interval(list(values.values()), possible=(0, 1)))
        lines.append(f"| {name} | {len(values)} | {mean} | {shown_gain} | {counted[name]} |")
    return ["\n".join(lines)]


def _of_retrieval(rows: Sequence[dict[str, Any]], first: Path) -> list[str]:
    rows = [row for row in rows if "sound_to_video" in row]
    if not rows:
        return []
    names = list(rows[0]["sound_to_video"])
    lines = [
        "Retrieval among the single clips of the first set: mean over seeds [95% interval]; below, "
        "how much more the pretrained encoder has, than the untrained one of the same seed and "
        "than the rule. Of ranks less is better.",
        "",
        f"| direction | encoder | {' | '.join(names)} |",
        f"|---|---|{'---|' * len(names)}",
    ]
    of_rule = {way: ranks.measures() for way, ranks in rule(first).items()}
    for way, of_way in of_rule.items():
        by_arm = {
            arm: {row["seed"]: row[way] for row in rows if row["arm"] == arm}
            for arm in ("pretrained", "untrained")
        }
        lines.append(f"| {way.replace('_', ' ')} | rule | {_cells(names, [of_way])} |")
        for arm, by_seed in by_arm.items():
            if by_seed:
                lines.append(f"| | {arm} | {_cells(names, list(by_seed.values()))} |")
        ours, theirs = by_arm.values()
        if shared := [seed for seed in ours if seed in theirs]:
            than = [_minus(ours[seed], theirs[seed]) for seed in shared]
            lines.append(f"| | than untrained | {_cells(names, than, '+')} |")
        if ours:
            than = [_minus(of_seed, of_way) for of_seed in ours.values()]
            lines.append(f"| | than the rule | {_cells(names, than, '+')} |")
    steps = [row["seconds"] for row in rows if "seconds" in row]
    if steps:
        lines += ["", f"A step of pretraining took {1000 * np.median(steps):.0f} CPU ms."]
    return ["\n".join(lines)]


def _cells(names: Sequence[str], found: Sequence[dict[str, float]], sign: str = "") -> str:
    return " | ".join(shown(t_interval([one[name] for one in found]), sign) for name in names)


def _minus(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    return {name: value - theirs[name] for name, value in ours.items()}


def shown(interval: Interval, sign: str = "") -> str:
    if math.isnan(interval.low):
        return f"{interval.value:{sign}.3f}"
    return f"{interval.value:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def _machine() -> str:
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, Python "
        f"{platform.python_version()}, torch {torch.__version__}"
    )
