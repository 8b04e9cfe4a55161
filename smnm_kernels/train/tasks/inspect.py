"""`smnm inspect`: what the trainer sees in files."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any, NamedTuple

import av
import numpy as np
import PIL.Image
from PIL import ImageDraw
from tyro.conf import Positional, arg

from smnm_kernels.errors import Unusable, UsageError, printable
from smnm_kernels.files import reason, replacing
from smnm_kernels.train.data import braces, frames, sound
from smnm_kernels.train.data.audio import MIN_SECONDS
from smnm_kernels.train.data.decoding import modality_of
from smnm_kernels.train.data.find import find
from smnm_kernels.train.data.image import read_pixels
from smnm_kernels.train.data.picture_rows import film_strips, spectrograms
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.spectrogram import log_mel
from smnm_kernels.train.data.suffixes import AUDIO, IMAGE, VIDEO
from smnm_kernels.train.data.view import PixelAspect, View
from smnm_kernels.train.run.machine import cores

from .presets import PRESETS

_CLIP_FRAMES = PRESETS["video"]["tiny"].clip.inputs["video"].size[1]

#: Endings of lists and tars, whose files are looked at.
_HOLDERS = (".tar", ".txt", ".csv", ".tsv", ".json", ".jsonl", ".lst", ".list", ".scp")
_MOST_ROWS = 40  # of the picture
_FRAMES = 8
_ROW_HEIGHT = 96
_SECONDS = 10.0  # of a spectrogram


@dataclass(kw_only=True)
class Inspect:
    """Say what the trainer sees in files: streams, frames, size, rate, duration, and whether they
    are usable.

    Every file is decoded as a whole, as before a run. The exit code is 0 where all are usable, 1
    where some are not or a PATH holds none, 2 where the arguments are wrong: files of other PATHs
    are told of before.
    """

    paths: Annotated[Positional[tuple[Path, ...]], arg(metavar="PATH")]
    """Files; and folders, lists of files and tars as for DATA of `smnm pretrain`."""
    json: bool = False
    """One JSON object a line for each file."""
    out: Path | None = None
    """Picture (png, jpg, ...) that shows what is decoded: frames of videos, spectrograms of sounds
    and of the sound of videos."""
    pixel_aspect: PixelAspect = "apply"
    """Videos whose pixels are not square: apply scales the width, ignore takes them as they are."""


def inspect(options: Inspect) -> int:
    looked, counted, empty, wrong = _files(options.paths)
    if wrong and not looked and not empty:
        raise UsageError("; ".join(wrong))
    if (
        options.out is not None
        and PIL.Image.registered_extensions().get(options.out.suffix.lower()) not in PIL.Image.SAVE
    ):
        raise UsageError(f"--out {options.out}: must end as a picture does, such as .png")
    reports = []
    with ThreadPoolExecutor(cores()) as pool:
        for report in pool.map(partial(report_on, pixel_aspect=options.pixel_aspect), looked):
            reports.append(report)
            print(json.dumps(report) if options.json else _line(report), flush=True)
    usable = sum(report["usable"] for report in reports)
    if not options.json:
        print(f"{usable} of {len(reports)} files are usable", *counted, sep="\n")
    if options.out is not None:
        _draw(list(zip(looked, reports, strict=True)), options.out, options.pixel_aspect)
        if not options.json:
            print(f"picture: {options.out}")
    for path in empty:
        print(f"{path}: no video, sound or picture is there", file=sys.stderr)
    if wrong:
        raise UsageError("; ".join(wrong))
    return 1 if empty or usable < len(reports) else 0


class Looked(NamedTuple):
    """What is looked at: a source, or why there is none."""

    shown: str
    source: Source | None
    reason: str = ""

    @property
    def place(self) -> tuple[str, int]:
        """By which a file that was named twice is known."""
        path = self.source.path if self.source else self.shown
        return os.path.abspath(path), self.source.start if self.source else 0


def _files(paths: tuple[Path, ...]) -> tuple[list[Looked], list[str], list[str], list[str]]:
    """(files, lines on what else there is, PATHs that hold none, what is wrong with others)"""
    if not paths:
        raise UsageError("PATH: at least one file or folder is needed")
    looked: list[Looked] = []
    counted: list[str] = []
    empty: list[str] = []
    wrong: list[str] = []
    for path in paths:
        try:
            found, lines = _files_of(path)
        except UsageError as error:
            wrong.append(f"PATH {str(error).removeprefix('PATH ')}")
        else:
            looked += found
            counted += lines
            if not found:
                empty.append(printable(str(path)))
    return list({one.place: one for one in reversed(looked)}.values())[::-1], counted, empty, wrong


def _files_of(path: Path) -> tuple[list[Looked], list[str]]:
    """Of one PATH. Raises UsageError where it is not there, or is a list of nothing."""
    shown = printable(str(path))
    if not path.is_dir() and path.suffix.lower() not in _HOLDERS and not braces.is_pattern(path):
        if not os.path.lexists(path):
            raise UsageError(f"{shown}: does not exist")
        return [Looked(str(path), Source(path))], []
    found = find(path, AUDIO | IMAGE | VIDEO)
    looked = []
    for entry in found.entries:
        name = str(found.base / (entry.shard or entry.name))
        name += f": {entry.name}" if entry.shard else ""
        looked.append(Looked(name, entry.source(found.base)))
    for name, why in found.left_out.named.items():
        looked.append(Looked(str(found.base / name), None, why))
    lines = [f"{shown}: {line}" for line in found.where]
    return looked, lines + [f"{shown}: not looked at: {c}" for c in found.left_out.counts()]


def report_on(looked: Looked, pixel_aspect: PixelAspect = "apply") -> dict[str, Any]:
    """What JSON shows of one file."""
    report: dict[str, Any] = {"path": looked.shown, "modality": None, "usable": False}
    source = looked.source
    if source is None:
        return report | {"reason": looked.reason, "streams": []}
    try:
        report["modality"] = modality = modality_of(source)
        report |= _LOOK[modality](source, pixel_aspect)
        if modality == "image" and (suffix := PurePath(looked.shown).suffix.lower()) in AUDIO:
            raise Unusable(
                f"is a picture, but {suffix} is what a video or a sound is named by; give it the "
                "suffix of a picture"
            )
        report["usable"] = True
    except Unusable as error:
        report["reason"] = str(error)
    return report | {"streams": _streams(source)}


def _video(source: Source, pixel_aspect: PixelAspect) -> dict[str, Any]:
    record = frames.probe(source, _CLIP_FRAMES, pixel_aspect)
    width, height = View.from_list(record["view"]).size
    seen = {"frames": record["frames"], "width": width, "height": height}
    with frames.media.opened(source, "video") as reader:
        rate = float(reader.stream.average_rate or reader.stream.guessed_rate or 0)
        has_sound = bool(reader.container.streams.audio)
    seen |= {"rate": rate or None, "duration": record["frames"] / rate if rate else None}
    seen["damaged_frames"] = sum(end - begin for begin, end in record["damaged"])
    if has_sound:
        try:
            seen["audio"] = {"usable": True} | _audio(source, pixel_aspect)
        except Unusable as error:
            seen["audio"] = {"usable": False, "reason": str(error)}
    return seen


def _audio(source: Source, _: PixelAspect) -> dict[str, Any]:
    record = sound.probe(source, MIN_SECONDS)
    samples, rate = record["samples"], record["rate"]
    return {"samples": samples, "rate": rate, "duration": samples / rate}


def _image(source: Source, _: PixelAspect) -> dict[str, Any]:
    height, width, _channels = read_pixels(source).shape
    return {"width": width, "height": height}


_LOOK = {"video": _video, "audio": _audio, "image": _image}


def _streams(source: Source) -> list[dict[str, Any]]:
    """What the container says of its streams; none where it cannot be opened."""
    try:
        with av.open(source.url, metadata_errors="replace") as container:
            return [_stream(stream) for stream in container.streams]
    except (av.error.FFmpegError, OSError, ValueError):
        return []


def _stream(stream: Any) -> dict[str, Any]:
    context = stream.codec_context
    said = {"type": stream.type, "codec": context.name if context else None}
    if context and stream.type == "video":
        said |= {"width": context.width, "height": context.height}
    if context and stream.type == "audio":
        said |= {"rate": context.sample_rate, "channels": context.channels}
    flags = [flag.name for flag in type(stream.disposition) if flag & stream.disposition]
    return said | ({"flags": flags} if flags else {})


def _line(report: dict[str, Any]) -> str:
    name = printable(report["path"])
    if not report["usable"]:
        return f"{name}: not usable: {report['reason']}"
    parts = []
    if "frames" in report:
        parts.append(f"{report['frames']} frames")
    if "width" in report:
        parts.append(f"{report['width']}x{report['height']}")
    if report["modality"] == "video":
        parts += [f"{report['rate']:.6g} frames/s"] if report["rate"] else []
        parts += [f"{report['duration']:.2f} s"] if report["duration"] else []
        if report["damaged_frames"]:
            parts.append(f"{report['damaged_frames']} frames around damage are not used")
    for heard in [report] if report["modality"] == "audio" else [report.get("audio")]:
        if heard and "samples" in heard:
            parts.append(f"sound {heard['samples']} samples, {heard['rate']} Hz, ")
            parts[-1] += f"{heard['duration']:.2f} s"
        elif heard:
            parts.append(f"sound not usable: {heard['reason']}")
    codecs = [stream["codec"] or "unknown" for stream in report["streams"]]
    return f"{name}: {report['modality']} ({', '.join(codecs)}): {', '.join(parts)}"


def _draw(
    reports: list[tuple[Looked, dict[str, Any]]], out: Path, pixel_aspect: PixelAspect
) -> None:
    """A row with its name for each file."""
    rows = []
    for (_, source, _), report in reports[:_MOST_ROWS]:
        try:
            row = _row(source, report, pixel_aspect) if source and report["usable"] else None
        except Unusable as error:
            report, row = report | {"usable": False, "reason": str(error)}, None
        rows.append((_line(report), row))
    if len(reports) > _MOST_ROWS:
        rows.append((f"and {len(reports) - _MOST_ROWS} files more", None))
    line = 16
    width = max([600, *(row.width for _, row in rows if row)])
    height = sum(line + (row.height if row else 0) for _, row in rows)
    sheet = PIL.Image.new("RGB", (width, height), "white")
    pen, y = ImageDraw.Draw(sheet), 0
    for text, row in rows:
        pen.text((2, y + 2), text, fill="black")
        y += line
        if row:
            sheet.paste(row, (0, y))
            y += row.height
    try:
        with replacing(out) as file:
            sheet.save(file, format=PIL.Image.registered_extensions()[out.suffix.lower()])
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({reason(error)})") from error


def _row(source: Source, report: dict[str, Any], pixel_aspect: PixelAspect) -> PIL.Image.Image:
    """Of a video with a usable sound, the sound's spectrogram below the frames."""
    if report["modality"] == "audio":
        return _spectrogram(source, report)
    frames = _film_strip(source, report, pixel_aspect)
    if not report.get("audio", {}).get("usable"):
        return frames
    heard = _spectrogram(source, report["audio"])
    both = PIL.Image.new(
        "RGB", (max(frames.width, heard.width), frames.height + heard.height), "white"
    )
    both.paste(frames, (0, 0))
    both.paste(heard, (0, frames.height))
    return both


def _spectrogram(source: Source, seen: dict[str, Any]) -> PIL.Image.Image:
    whole_record = {"samples": seen["samples"], "rate": seen["rate"], "restarts": []}
    count = min(seen["samples"], int(_SECONDS * seen["rate"]))
    samples = sound.resample(sound.read(source, whole_record, 0, count), seen["rate"])
    mel = log_mel(samples, 128)[None, None]
    return PIL.Image.fromarray(spectrograms(mel, np.ones_like(mel, dtype=bool), mel)[0])


def _film_strip(
    source: Source, report: dict[str, Any], pixel_aspect: PixelAspect
) -> PIL.Image.Image:
    shown = [*_pictures(source, report, pixel_aspect)]
    width = max(1, round(_ROW_HEIGHT * shown[0].shape[1] / shown[0].shape[0]))
    small = [np.asarray(PIL.Image.fromarray(p).resize((width, _ROW_HEIGHT))) for p in shown]
    clip = np.stack(small).transpose(3, 0, 1, 2) / 255
    return PIL.Image.fromarray(film_strips(clip, np.ones_like(clip, dtype=bool), clip)[0])


def _pictures(
    source: Source, report: dict[str, Any], pixel_aspect: PixelAspect
) -> Iterator[np.ndarray]:
    """The picture, or frames from all over the video."""
    if report["modality"] == "image":
        yield read_pixels(source)
        return
    stride = max(1, (report["frames"] - 1) // (_FRAMES - 1))
    for number, pixels in enumerate(frames.read_all(source, pixel_aspect)):
        if number % stride == 0:
            yield pixels
