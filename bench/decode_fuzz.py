"""Damages media files at random and looks at what the trainer makes of each.

python bench/decode_fuzz.py [--files 1000] [--families mp4 mp3 ...] [--ffmpeg PROGRAM ...]

Of every family some files are made and changed: cut, bits flipped, parts spliced, repeated or
zeroed. Each is probed and, where it is usable, decoded as a whole and in parts. What must hold: no
error but Unusable, no crash, no hang; parts equal the whole; frames and samples are those of the
program ffmpeg, as many and with the same values (of several programs, one of them: versions differ
in what they make of damage). Prints a table in Markdown; slowest is in seconds, peak is the memory
of the process that examines files, in MiB.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image

from smnm_kernels.errors import Unusable
from smnm_kernels.train.data import frames, media, sound
from smnm_kernels.train.data.audio import MIN_SECONDS
from smnm_kernels.train.data.image import read_pixels
from smnm_kernels.train.data.source import Source

SECONDS_A_FILE = 60  # more is a hang
MOST_SHOWN = 5

#: Codecs of the files that a family begins with, as (video, audio).
FAMILIES = {
    "mp4": [("libx264", "aac"), ("mpeg4", "aac"), ("libx265", None)],
    "mov": [("mjpeg", "pcm_s16le"), ("libx264", None)],
    "mkv": [("libx264", "aac"), ("libvpx-vp9", "libopus")],
    "webm": [("libvpx", "libopus")],
    "avi": [("mpeg4", "libmp3lame"), ("libx264", "pcm_s16le"), ("mjpeg", None)],
    "ts": [("libx264", "aac"), ("mpeg2video", "mp2")],
    "mpg": [("mpeg2video", "mp2")],
    "flv": [("libx264", "aac"), ("flv", "libmp3lame")],
    "wmv": [("wmv2", "wmav2")],
    "gif": [("gif", None)],
    "wav": [(None, "pcm_s16le"), (None, "pcm_f32le")],
    "mp3": [(None, "libmp3lame")],
    "m4a": [(None, "aac"), (None, "alac")],
    "aac": [(None, "aac")],
    "ogg": [(None, "vorbis"), (None, "libopus")],
    "flac": [(None, "flac")],
    "wma": [(None, "wmav2")],
    "mka": [(None, "flac"), (None, "libopus")],
    "ac3": [(None, "ac3")],
    "aiff": [(None, "pcm_s16be")],
    "png": [], "jpg": [], "webp": [], "tiff": [], "bmp": [],
}  # fmt: skip
PICTURES = ("png", "jpg", "webp", "tiff", "bmp")


def make(path: Path, video: str | None, audio: str | None, seed: int) -> None:
    """Two seconds of moving shapes in noise, and of a tone in noise."""
    rng = np.random.default_rng(seed)
    if path.suffix[1:] in PICTURES:
        PIL.Image.fromarray(picture(rng, 0)).save(path)
        return
    with av.open(str(path), "w") as container:
        if video:
            film: Any = container.add_stream(video, rate=25)
            film.width, film.height = 96, 64
            film.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(video, "yuv420p")
            film.codec_context.thread_count = 1
            film.options = {"g": "12"} | (
                {"x265-params": "log-level=none"} if "265" in video else {}
            )
        if audio:
            layout = "stereo" if audio == "vorbis" else "mono"
            rate = 48000 if audio in ("libopus", "ac3") else 44100
            heard: Any = container.add_stream(audio, rate=rate, layout=layout)
            heard.options = {"strict": "-2"} | ({"b": "64000"} if audio == "wmav2" else {})
            t = np.arange(2 * rate) / rate
            tone = 0.3 * np.sin(2 * np.pi * (300 + 200 * t) * t) + rng.uniform(-0.1, 0.1, len(t))
        if video:
            for i in range(50):
                frame = av.VideoFrame.from_ndarray(picture(rng, i), format="rgb24")
                container.mux(film.encode(frame))
        if audio:
            for start in range(0, len(t), 4096):
                part = np.repeat(tone[None, start : start + 4096], 1 + (layout == "stereo"), axis=0)
                block = av.AudioFrame.from_ndarray(part.astype("f4"), "fltp", layout)
                block.sample_rate, block.pts = rate, start
                container.mux(heard.encode(block))
            container.mux(heard.encode(None))
        if video:
            container.mux(film.encode(None))


def picture(rng: np.random.Generator, i: int) -> np.ndarray:
    y, x = np.mgrid[0:64, 0:96]
    shade = np.stack([2 * x, 3 * y, np.full_like(x, 5 * i)], axis=-1) % 256
    shade[10:30, i : i + 20] = 255
    return np.clip(shade + rng.integers(-8, 8, shade.shape), 0, 255).astype(np.uint8)


def mutated(whole: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to three changes, of a kind that disks, networks and programs make."""
    content = bytearray(whole)
    for _ in range(int(rng.integers(1, 4))):
        size = max(2, len(content))
        at = int(rng.integers(0, size))
        length = int(rng.integers(1, max(2, size // 4)))
        match rng.integers(0, 7):
            case 0:
                del content[at:]
            case 1 | 2:
                for i in rng.integers(0, size, int(2 ** rng.uniform(0, 6))):
                    content[min(i, len(content) - 1)] ^= 1 << int(rng.integers(8))
            case 3:
                begin = int(rng.integers(0, len(other)))
                content[at:at] = other[begin : begin + length]
            case 4:
                content[at : at + length] = bytes(len(content[at : at + length]))
            case 5:
                del content[at : at + length]
            case 6:
                content += other
        if not content:
            content = bytearray(whole[:1])
    return bytes(content)


def examine(path: Path, family: str) -> dict[str, Any]:
    """What the trainer makes of a file; raises nothing but what must not be."""
    found: dict[str, Any] = {}
    if family in PICTURES:
        try:
            pixels = read_pixels(Source(path))
            return {"image": {"shape": pixels.shape}}
        except Unusable as error:
            return {"image": {"reason": str(error)}}
    source, rng = Source(path), np.random.default_rng(0)
    kinds = {
        kind for pair in FAMILIES[family] for kind in zip(("video", "audio"), pair, strict=True)
    }
    if any(kind == "video" and codec for kind, codec in kinds):
        found["video"] = _guarded(lambda: _video(source, rng))
    if any(kind == "audio" and codec for kind, codec in kinds):
        found["audio"] = _guarded(lambda: _audio(source, rng))
    return found


def _guarded(work: Any) -> dict[str, Any]:
    try:
        return work()
    except Unusable as error:
        return {"reason": str(error)}


def _video(source: Source, rng: np.random.Generator) -> dict[str, Any]:
    record = frames.probe(source, 16, "apply")
    whole = np.stack([*frames.read_all(source, "apply")])
    assert len(whole) == record["frames"], "the probe counts other frames"
    stretches = [s for s in frames.undamaged(record) if s[1] >= 16]
    for _ in range(3):
        begin, length = stretches[rng.integers(len(stretches))]
        start = begin + int(rng.integers(0, length - 15))
        clip = [*frames.read(source, record, start, 16, 1)]
        assert np.array_equal(clip, whole[start : start + 16]), "a clip differs from the whole"
    np.save("whole.npy", whole)
    return {"frames": len(whole), "size": whole.shape[2:0:-1], "damaged": record["damaged"]}


def _audio(source: Source, rng: np.random.Generator) -> dict[str, Any]:
    record = sound.probe(source, MIN_SECONDS)
    whole, rate = sound.read_all(source)
    assert len(whole) == record["samples"], "the probe counts other samples"
    for _ in range(3):
        start = int(rng.integers(0, len(whole)))
        part = sound.read(source, record, start, 4000)
        assert np.array_equal(part, whole[start : start + 4000]), "a part differs from the whole"
    np.save("samples.npy", whole)
    return {"samples": len(whole), "rate": rate}


def serve() -> None:
    """A process that examines the files that it is told, one a line."""
    for line in sys.stdin:
        path, family = json.loads(line)
        before = time.monotonic()
        try:
            answer = {"found": examine(Path(path), family)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answer["seconds"] = time.monotonic() - before
        answer["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)


class Examiner:
    """That process, started anew when it crashed or hangs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, path: Path, family: str) -> dict[str, Any]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, os.path.abspath(__file__), "--serve"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=self.folder,
            )
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps([str(path), family]) + "\n")
        stdin.flush()
        if not select.select([stdout], [], [], SECONDS_A_FILE)[0]:
            self.close()
            return {"error": "hangs"}
        line = stdout.readline()
        if not line:
            code = self._process.wait()
            self._process = None
            return {"error": f"crashed with exit code {code}"}
        return json.loads(line)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def differs(
    programs: list[str], path: Path, kind: str, found: dict[str, Any], folder: Path
) -> str | None:
    """How what we decode differs from what each of the programs decodes; None where it equals that
    of one of them."""
    first = None
    for program in programs:
        said = _differs(program, path, kind, found, folder)
        if said is None:
            return None
        first = first or said
    return first


def _differs(
    program: str, path: Path, kind: str, found: dict[str, Any], folder: Path
) -> str | None:
    decoder = _as_the_trainer_decodes(path) if kind == "video" else ()
    head = [program, "-v", "quiet", "-nostdin", "-threads", "1", *decoder, "-i", str(path)]
    if kind == "audio":
        ours = np.load(folder / "samples.npy")
        words = [*head, "-vn", "-f", "f32le", "-"]
        theirs = np.frombuffer(_run(words), np.float32)
        channels = round(len(theirs) / len(ours)) or 1
        if len(theirs) != channels * len(ours):
            return f"{len(ours)} samples, ffmpeg has {len(theirs)} values"
        theirs = theirs.reshape(-1, channels).mean(axis=1)
        worst = abs(ours - theirs).max()
        return None if worst < 1e-3 else f"samples differ by {worst:.3g}"
    ours = np.load(folder / "whole.npy")
    words = [*head, "-an", "-fps_mode", "passthrough", "-f", "rawvideo"]
    raw = np.frombuffer(_run([*words, "-pix_fmt", "rgb24", "-"]), np.uint8)
    if raw.size != ours.size:
        return f"{len(ours)} frames, ffmpeg has {raw.size / ours[0].size:g}"
    worst_of = abs(raw.reshape(ours.shape).astype(np.int16) - ours).reshape(len(ours), -1).max(1)
    for begin, end in found["damaged"]:
        worst_of[begin:end] = 0
    return None if worst_of.max() <= 2 else f"frames differ by {worst_of.max()}"


def _as_the_trainer_decodes(path: Path) -> tuple[str, ...]:
    """Options of the program: see media.py."""
    with media.opened(Source(path), "video") as reader:
        codec = reader.stream.codec_context.name
    return {"vp8": ("-c:v", "libvpx"), "mjpeg": ("-err_detect:v", "explode")}.get(codec, ())


def _run(words: list[str]) -> bytes:
    return subprocess.run(words, stdout=subprocess.PIPE, check=False, timeout=60).stdout


def fuzz(families: list[str], n_files: int, programs: list[str], seed: int) -> list[dict[str, Any]]:
    """A row of counts for each family."""
    rows = []
    for family in families:
        with tempfile.TemporaryDirectory() as name:
            examiner = Examiner(Path(name))
            rows.append(fuzz_family(family, n_files, programs, seed, examiner))
            examiner.close()
        print(_line(rows[-1]), flush=True)
        for trouble in rows[-1]["troubles"][:MOST_SHOWN]:
            print(f"    {trouble}", flush=True)
    return rows


def fuzz_family(
    family: str, n_files: int, programs: list[str], seed: int, examiner: Examiner
) -> dict[str, Any]:
    folder, wholes = examiner.folder, []
    for i, (video, audio) in enumerate(FAMILIES[family] or [(None, None)] * 2):
        path = folder / f"whole{i}.{family}"
        make(path, video, audio, i)
        wholes.append(path.read_bytes())
    counts: Counter[str] = Counter()
    troubles: list[str] = []
    row: dict[str, Any] = {"family": family, "slowest": 0.0, "peak": 0.0}
    for number in range(n_files):
        rng = np.random.default_rng([seed, number, *family.encode()])
        whole, other = (wholes[rng.integers(len(wholes))] for _ in range(2))
        path = folder / f"file.{family}"
        path.write_bytes(mutated(whole, other, rng))
        answer = examiner(path, family)
        if "error" in answer:
            counts["errors"] += 1
            troubles.append(f"file {number}: {answer['error']}")
            continue
        row["slowest"] = max(row["slowest"], answer["seconds"])
        row["peak"] = max(row["peak"], answer["peak"])
        for kind, found in answer["found"].items():
            counts["named" if "reason" in found else "used"] += 1
            if "reason" not in found and kind != "image" and programs:
                difference = differs(programs, path, kind, found, folder)
                counts["compared"] += 1
                if difference:
                    counts["differ"] += 1
                    troubles.append(f"file {number}, {kind}: {difference}")
    return row | {"files": n_files, "troubles": troubles} | counts


COLUMNS = ("family", "files", "used", "named", "errors", "compared", "differ", "slowest", "peak")


def _line(row: dict[str, Any]) -> str:
    cells = [row.get(column, 0) for column in COLUMNS]
    shown = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return f"| {' | '.join(shown)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--ffmpeg", nargs="*", default=["ffmpeg"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve:
        serve()
        return 0
    print(f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}, seed {given.seed}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    rows = fuzz(given.families, given.files, given.ffmpeg, given.seed)
    return 1 if any(row.get("errors") for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
