"""Rows as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from typing import NamedTuple

from smnm_kernels.analysis.quality import FEW_MASKS

#: For each column's head, a function from a row to the text of its cell.
Columns = dict[str, Callable[[dict], str]]


def markdown(rows: list[dict], about: dict[str, object]) -> str:
    """A table for every section, shape and batch, under a line of where it was measured."""
    versions = ", ".join(
        f"{name} {about[name]}" for name in ("torch", "numpy", "python", "smnm_kernels")
    )
    lines = [
        f"{about['device']}, {about['cores']} cores, {about['threads']} threads; {versions}, "
        f"commit {about['commit']}, backend {about['backend']}{_vectors(about)}; "
        f"{about['date']}. Times are medians "
        "with quartiles; ratios are medians of paired times, with those of each repetition. Calls "
        "are repeated, which keeps caches warm; 'in turn' are single calls, each after one of what "
        "the others are divided by."
    ]
    for name, of_section in groupby(rows, lambda row: row["section"]):
        section = SECTIONS[name]
        lines += ["", f"## {section.title}"]
        for (shape, batch), rows_of_both in groupby(
            of_section,
            lambda row: (row.get("shape") or row["curve"], row.get("batch") or row.get("over")),
        ):
            group = list(rows_of_both)
            where = f"B = {batch}" if isinstance(batch, int) else batch and f"over {batch}"
            lines += ["", f"### {shape}" + (f", {where}" if where else ""), ""]
            lines += section.lines(group)
    return "\n".join(lines) + "\n"


def _vectors(about: dict) -> str:
    """The vector instructions of the C++ library, where that is what ran."""
    ran = about["backend"] == "cpu" and about.get("built_with")
    return f" with {ran['vectors']}" if ran else ""


def _masks(group: list[dict]) -> list[str]:
    return _table(
        group,
        {
            "": _what,
            "time": _time,
            "ratio": _ratio,
            "repeats": _repeats,
            "in turn": _of("ratio_in_turn"),
            "note": _note,
        },
    )


def _load(group: list[dict]) -> list[str]:
    return _table(group, LOAD)


def _quality(group: list[dict]) -> list[str]:
    return [QUALITY_LEGEND, "", *_table(group, QUALITY)]


def _growth(group: list[dict]) -> list[str]:
    exponent = group[0]["exponent"]
    said = (
        []
        if exponent is None
        else [f"Fitted exponent {exponent:g} (upper half of the points).", ""]
    )
    columns: Columns = {group[0]["over"]: _of("what"), "time": _time, "memory": _memory}
    if any(row["path"] for row in group):
        columns["path"] = _of("path")
    return [f"{group[0]['fixed']}.", "", *said, *_table(group, columns)]


def _bank(group: list[dict]) -> list[str]:
    return _table(group, BANK)


def _training(group: list[dict]) -> list[str]:
    steps = [row for row in group if "us" in row]
    models = [row for row in group if "us" not in row]
    shown = dict(TRAINING)
    if "waits" in steps[0]:
        shown |= {"waits": _of("waits"), "copies to the device": _of("copies_to_device")}
    return [*_table(steps, shown), "", *_table(models, MODEL)]


class Section(NamedTuple):
    title: str
    #: The lines for rows of one shape and batch size.
    lines: Callable[[list[dict]], list[str]]


SECTIONS = {
    "masks": Section("Making masks", _masks),
    "load": Section("While every core is busy", _load),
    "quality": Section("What masks are worth", _quality),
    "growth": Section("Growth", _growth),
    "bank": Section("What a bank costs", _bank),
    "training": Section("In training", _training),
}


def _table(rows: Iterable[dict], columns: Columns) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(show(row) for show in columns.values()) + " |" for row in rows]
    return lines


def _of(name: str, digits: int = 3) -> Callable[[dict], str]:
    def show(row: dict) -> str:
        value = row.get(name)
        if value is None:
            return ""
        return f"{value:.{digits}g}" if isinstance(value, float) else str(value)

    return show


def _what(row: dict) -> str:
    return f"**{row['what']}**" if row["ours"] else row["what"]


def _duration(us: float) -> str:
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if us >= size:
            return f"{us / size:.3g} {unit}"
    return f"{us:.3g} us"


def _time(row: dict) -> str:
    low, high = row["us_quartiles"]
    return f"{_duration(row['us'])} ({_duration(low)} to {_duration(high)})"


def _ratio(row: dict) -> str:
    return f"{row['ratio']:.3g}"


def _repeats(row: dict) -> str:
    return " ".join(f"{ratio:.3g}" for ratio in row["ratio_repeats"])


def _note(row: dict) -> str:
    clock = "" if row["clock"] in ("wall", "graph") else row["clock"]
    return "; ".join(part for part in (row["note"], clock) if part)


def _memory(row: dict) -> str:
    outputs = f"outputs {row['output_bytes'] / 1e6:.3g} MB"
    peak = row["peak_bytes"]
    return outputs if peak is None else f"{outputs}, peak {peak / 1e6:.3g} MB"


LOAD: Columns = {
    "": _what,
    "nothing else runs: median, 95th percentile": lambda row: (
        f"{_duration(row['quiet_us'])}, {_duration(row['quiet_us_p95'])}"
    ),
    "every core busy": lambda row: (
        f"{_duration(row['loaded_us'])}, {_duration(row['loaded_us_p95'])}"
    ),
    "in multiples of the quiet median": lambda row: (
        f"{row['times_quiet']:.3g}, {row['times_quiet_p95']:.3g}"
    ),
    "calls": _of("calls"),
    "note": lambda row: row["note"],
}
QUALITY_LEGEND = (
    "Clustering is R-BN's own score of the visible patches: lower is more even. Holes are in "
    f"patches, of up to {FEW_MASKS:,} masks. Coverage is the worst token's deviation, in standard "
    "deviations of independent masks, and chi2/dof is 1 for those, less where masks share out the "
    "tokens. Changes in time are relative to independent frames."
)
QUALITY: Columns = {
    "": _of("what"),  # all are ours
    "time, B = 64": _time,
    "spectrum error (sampling alone)": lambda row: (
        ""
        if row["spectrum_error"] is None
        else f"{row['spectrum_error']:.2g} ({row['spectrum_sampling_error']:.2g})"
    ),
    "clustering": _of("clustering"),
    "largest hole, mean and worst": lambda row: (
        f"{row['largest_hole_mean']:.3g}, {row['largest_hole_worst']:.3g}"
    ),
    "coverage: worst token (expected)": lambda row: (
        f"{row['coverage_deviation']:.2f} ({row['coverage_expected']:.2f})"
    ),
    "coverage: chi2/dof": _of("coverage_chi2_per_dof"),
    "changes in time": _of("changes_in_time"),
    "distinct": lambda row: f"{row['distinct']} of {row['n_masks']}",
}
BANK: Columns = {
    "": _what,
    "distinct masks": lambda row: f"{row['distinct_masks']} of {row['masks']}",
    "bytes per process, on the host or resident on the device": lambda row: (
        f"{row['bytes_per_process']:,}"
    ),
    "to make": lambda row: f"{row['seconds_to_make']:g} s",
    "to load": lambda row: f"{row['seconds_to_load']:g} s",
    "uses of a noise value in an epoch": _of("uses_of_a_noise_value_per_epoch"),
    "note": lambda row: row["note"],
}
TRAINING: Columns = {
    "step with": _what,
    "time": _time,
    "ratio": _ratio,
    "mask making alone": lambda row: _duration(row["mask_us"]) if "mask_us" in row else "",
    "share": lambda row: f"{row['mask_share']:.2%}" if "mask_share" in row else "",
    "steps": _of("measurements"),
    "note": _note,
}
MODEL: Columns = {
    "parameters": lambda row: f"{row['parameters_millions']:g} M",
    "of the encoder": lambda row: f"{row['encoder_parameters_millions']:g} M",
    "forward, a clip": lambda row: f"{row['forward_gflops_per_clip']:g} GFLOP",
    "peak memory of a step": lambda row: (
        "" if row["peak_memory_gb"] is None else f"{row['peak_memory_gb']:g} GB"
    ),
    "clips a second": _of("clips_per_second"),
    "100,000 clips": lambda row: f"{row['hours_per_100000_clips']:g} h",
}
