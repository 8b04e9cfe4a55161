"""README.md of an exported folder: what the model is, and from what it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smnm_kernels.errors import printable
from smnm_kernels.train.data.records import fingerprint, read_files
from smnm_kernels.train.models.formats.folders import Folder
from smnm_kernels.train.models.formats.weights import Weights
from smnm_kernels.train.run.folder import CONFIG, FILES, METRICS
from smnm_kernels.train.run.machine import versions
from smnm_kernels.train.run.meter import ends_of

RESULTS = "results.json"  # in RUN, where it was fine-tuned
# Of models without a head for classes.
_FEATURES = {
    "video": "feature-extraction",
    "image": "image-feature-extraction",
    "audio": "feature-extraction",
}
_LIBRARIES = {"hf-videomae": "transformers", "hf-vitmae": "transformers", "timm": "timm"}
_LOADING = {
    "hf-videomae": "transformers.{kind}.from_pretrained(DIR)",
    "hf-vitmae": "transformers.{kind}.from_pretrained(DIR)",
    "timm": 'timm.create_model("local-dir:DIR", pretrained=True)',
    "mae": 'torch.load("DIR/checkpoint.pth", weights_only=True)["model"]',
}


def model_card(run: Path, to: str, given: Weights, folder: Folder) -> str:
    """Markdown. What RUN does not say is left out; the licence is the owner's to fill in."""
    config = _json(run / CONFIG)
    settings: dict[str, Any] = config.get("run", {})
    runtime: dict[str, Any] = config.get("runtime", {})
    front = ["---", "license:  # choose one"]
    if to in _LIBRARIES:
        front.append(f"library_name: {_LIBRARIES[to]}")
    front += [f"pipeline_tag: {_task_of(given)}", "tags: [masked-autoencoder, smnm]", "---"]
    kind = folder.files.get("config.json", {}).get("architectures", [""])[0]
    exporter = f"smnm_kernels {versions()['smnm_kernels']}"
    sections = [
        "\n".join(front),
        f"# A vision transformer for {given.modality}",
        f"```python\n{_LOADING[to].format(kind=kind)}\n```",
        _section("Model", _model(given)),
        _section("Data", _data(run, settings, runtime)),
        _section("Masks", _masks(settings)),
        _section("Recipe", _recipe(settings, runtime, given)),
        _section("Losses", _losses(run)),
        _section("Results", _results(run)),
        _section("Differences", {str(i): line for i, line in enumerate(folder.remarks, 1)}),
        _section("Versions", {**runtime.get("versions", {}), "exported by": exporter}),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _task_of(given: Weights) -> str:
    """In the terms of the Hugging Face hub, which has none for numbers."""
    classes = given.head is not None and given.head.settings.kind != "number"
    return f"{given.modality}-classification" if classes else _FEATURES[given.modality]


def _section(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *lines]) if lines else ""


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return printable(text).replace("|", "\\|")


def _model(given: Weights) -> dict[str, Any]:
    encoder = given.encoder
    rows = {
        "input (channels, frames, height, width)": list(given.input_size),
        "patch (frames, height, width)": list(encoder.patch),
        "width, blocks, heads": [encoder.dim, encoder.depth, encoder.heads],
        "input is (raw - mean) / scale": {"mean": list(given.mean), "scale": list(given.scale)},
    }
    if given.modality == "audio" and given.clip.get("front"):
        rows["raw"] = "log-mel spectrogram, time by band, as smnm_kernels' Spectrogram with"
        rows["its settings"] = given.clip["front"]
    elif given.modality == "audio":
        rows["raw"] = "log-mel spectrogram, time by band: 16 kHz, 25 ms windows every 10 ms"
    else:
        rows["raw"] = "RGB in [0, 1]"
    if given.head is not None:
        rows["labels"] = given.head.settings.kind
        if given.head.settings.names:
            rows["classes"] = ", ".join(given.head.settings.names)
    return rows


def _data(run: Path, settings: dict[str, Any], runtime: dict[str, Any]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    if (run / FILES).exists():
        usable, _ = read_files(run / FILES)
        rows |= {"files": len(usable), "fingerprint": fingerprint(usable)}
    elif "usable_files" in runtime:
        rows["files"] = runtime["usable_files"]
    if "clip" in settings:
        rows["samples"] = settings["clip"]
    return rows


def _masks(settings: dict[str, Any]) -> dict[str, Any]:
    n_keep = settings.get("n_keep")
    of_inputs = n_keep.values() if isinstance(n_keep, dict) else [n_keep]
    counts = (["mask_ratio"] if None in of_inputs else []) + ["n_keep"]
    names = ("mask", *counts, "mask_options", "hint_schedule", "mask_bank", "mask_from", "grid")
    return {name: settings[name] for name in names if settings.get(name) is not None}


def _recipe(settings: dict[str, Any], runtime: dict[str, Any], given: Weights) -> dict[str, Any]:
    names = (
        "preset", "init", "encoder", "seed", "batch_size", "lr", "min_lr", "weight_decay", "betas",
        "warmup_steps", "schedule_steps", "task", "layer_decay", "drop_path", "label_smoothing",
        "mix", "pool", "repeats", "balanced",
    )  # fmt: skip
    rows = {name: settings[name] for name in names if settings.get(name) is not None}
    objective = settings.get("objective")
    if isinstance(objective, dict):
        rows["objective"] = objective.get("name")
        frozen = settings.get("target")
        rows["target"] = (
            f"features of a frozen encoder, {frozen}"
            if frozen
            else objective.get("model", {}).get("target")
        )
    if given.step is not None:
        rows["steps done"] = given.step
    return rows | {n: runtime[n] for n in ("steps", "precision") if n in runtime}


def _losses(run: Path) -> dict[str, Any]:
    path = run / METRICS
    if not path.exists():
        return {}
    losses = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            losses.append(float(json.loads(line)["loss"]))
        except (ValueError, KeyError, TypeError):
            break
    return {name: f"{loss:.4f}" for name, loss in ends_of(losses).items()}


def _results(run: Path) -> dict[str, Any]:
    """Of a fine-tuning run, with their intervals."""
    held = _json(run / RESULTS)
    measures = held.get("measures")
    names = ("split", "files", "views", "best_step", "chosen_by")
    rows = {name: held[name] for name in names if name in held}
    return rows | (measures if isinstance(measures, dict) else {})


def _json(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text())
        return held if isinstance(held, dict) else {}
    except (OSError, ValueError):
        return {}  # of no run
