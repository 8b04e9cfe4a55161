"""Writing a data set: every file whole or not at all, and a manifest that says what it holds.

Shared by the generators beside it. `manifest.json` is written last: a folder that has one is
complete. Its digests are of the decoded content, so that the same pictures in other bytes (another
version of an encoder that loses nothing) have the same digest.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
from av.container import OutputContainer

from smnm_kernels.files import replacing
from smnm_kernels.train import decode
from smnm_kernels.train.data import sound
from smnm_kernels.train.data.source import Source

MANIFEST = "manifest.json"
DECODED = {".mp4", ".wav", ".jpg"}
#: Of films with sound.
FILM = ".mkv"


class Missing(Exception):
    """Something that a set is made of cannot be had here; says what and why."""


def write(path: Path, content: bytes) -> None:
    """Replaces the file, whole; makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)


def write_picture(path: Path, pixels: np.ndarray) -> None:
    """uint8 [h, w, 3] as PNG."""
    png = io.BytesIO()
    PIL.Image.fromarray(pixels).save(png, "PNG")
    write(path, png.getvalue())


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """CSV with a header; None is an empty cell, floats have at most four decimals."""
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    for row in rows:
        table.writerow({k: f"{v:.4f}" if isinstance(v, float) else v for k, v in row.items()})
    write(path, text.getvalue().encode())


def write_video(path: Path, frames: Iterable[np.ndarray], rate: int, step: int = 16) -> None:
    """uint8 [h, w, 3] frames, h and w even, as H.264 in mp4.

    step: x264's quantiser, lower is better. It is constant and the encoder runs without vector
    instructions, because its rate control and its vector code choose otherwise on other
    processors, and a set is to have one fingerprint everywhere.
    """
    memory = io.BytesIO()
    with av.open(memory, "w", format="mp4") as container:
        _add_picture(container, frames, rate, step)
    write(path, memory.getvalue())


def write_film(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: int,
    samples: np.ndarray,
    sound_rate: int,
    step: int = 16,
) -> None:
    """As write_video, with a sound, int16 [samples], that begins with the first frame: FLAC, which
    loses nothing, in Matroska."""
    memory = io.BytesIO()
    # Else it writes a number drawn at random.
    with av.open(memory, "w", format="matroska", options={"fflags": "+bitexact"}) as container:
        audio = container.add_stream("flac", rate=sound_rate, layout="mono", format="s16")
        packets = []
        for first in range(0, len(samples), 4096):
            part = samples[None, first : first + 4096].astype(np.int16)
            frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
            frame.sample_rate, frame.pts = sound_rate, first
            packets += audio.encode(frame)
        packets += audio.encode(None)
        _add_picture(container, frames, rate, step)
        container.mux(packets)
    write(path, memory.getvalue())


def _add_picture(
    container: OutputContainer, frames: Iterable[np.ndarray], rate: int, step: int
) -> None:
    stream: Any = None
    for frame in frames:
        if stream is None:
            options = {"qp": str(step), "preset": "veryfast", "x264-params": "asm=0"}
            stream = container.add_stream("libx264", rate=rate, options=options)
            stream.height, stream.width = frame.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1  # the same bytes on any number of cores
            stream.codec_context.gop_size = 16  # short clips are read from their middle
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        container.mux(stream.encode(picture))
    if stream is None:
        raise ValueError("a video of no frames")
    container.mux(stream.encode(None))


def write_sound(path: Path, samples: np.ndarray, rate: int) -> None:
    """int16 [samples] as wav."""
    import wave

    memory = io.BytesIO()
    with wave.open(memory, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    write(path, memory.getvalue())


def split_of(number: int, count: int) -> str:
    """Of group `number` of `count`: the last quarter is test, the eighth before it val."""
    if number >= count - max(1, count // 4):
        return "test"
    return "val" if number >= count - max(1, count // 4) - max(1, count // 8) else "train"


def digest(path: Path) -> str:
    """SHA-256 of what a file decodes to, its shape and type among it; of its bytes, where it is
    text."""
    contents = []
    if path.suffix == ".png":
        with PIL.Image.open(path) as picture:  # with an index, as masks have it
            contents = [np.asarray(picture)]
    elif path.suffix in DECODED:
        contents = [decode(path)]
    elif path.suffix == FILM:
        samples, rate = sound.read_all(Source(path))
        contents = [decode(path), samples, np.array(rate)]
    else:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    found = hashlib.sha256()
    for content in contents:
        found.update(f"{content.dtype.str} {content.shape}\n".encode())
        found.update(np.ascontiguousarray(content).tobytes())
    return found.hexdigest()


def is_complete(folder: Path) -> bool:
    return (folder / MANIFEST).exists()


def make_once(out: Path, make: Callable[[], None]) -> None:
    """Make a set in `out`, unless it holds one; ends the program where something is missing."""
    if is_complete(out):
        print(f"{out} holds the set already")
        return
    try:
        make()
    except Missing as reason:
        raise SystemExit(f"skipped: {reason}") from None


def write_manifest(
    folder: Path, *, command: str, licence: str, sources: dict[str, str], packages: Sequence[str]
) -> str:
    """Digests of all files; returns that of the whole set.

    command: how to make the set again, without its folder. sources: name -> version of what it was
    made from. packages: Python packages whose versions decide the content.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    digests = {p.relative_to(folder).as_posix(): digest(p) for p in files}
    lines = "".join(f"{found}  {name}\n" for name, found in digests.items())
    fingerprint = hashlib.sha256(lines.encode()).hexdigest()
    manifest = {
        "fingerprint": fingerprint,
        "command": command,
        "licence": licence,
        "sources": sources,
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
        "files": digests,
    }
    write(folder / MANIFEST, (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    return fingerprint


@contextmanager
def debian_package(name: str) -> Iterator[tuple[Path, str]]:
    """(folder with the unpacked files, version) of a Debian package; nothing is installed.

    Raises Missing, which says why, where apt cannot give it.
    """
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not there: {name} is a Debian package")
    with tempfile.TemporaryDirectory(prefix="smnm-set-") as there:
        folder = Path(there)
        # apt hands downloads to a user of its own, who may not write here: a warning, no error.
        _run(["apt-get", "-q", "download", name], folder, name)
        (archive,) = folder.glob("*.deb")
        _run(["dpkg-deb", "-x", str(archive), "files"], folder, name)
        yield folder / "files", archive.name.split("_")[1].replace("%3a", ":")


def _run(words: list[str], folder: Path, name: str) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise Missing(f"Debian's package {name}: {said[-1] if said else words[0] + ' failed'}")


def sound_of(path: Path) -> tuple[np.ndarray, int]:
    """(int16 [samples], rate in Hz) of the first channel of a sound file."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="s16p")
        parts, rate = [], 0
        for frame in container.decode(audio=0):
            rate = frame.sample_rate
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(parts), rate
