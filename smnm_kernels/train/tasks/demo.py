"""A small set of real files with moving content, for a first run without data at hand.

The same files on every machine up to the encoder's version; made once, then found.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from wave import open as open_wave

import av
import numpy as np
import PIL.Image
from tqdm import tqdm

from smnm_kernels.errors import UsageError
from smnm_kernels.files import reason
from smnm_kernels.train.run.plan import find_run

from .demo_finetune import evaluate, labelled_options
from .demo_labels import labelled_names, moving_form
from .demo_sounding import SOUND_RATE, sounding_ball
from .options import ModalityName, Pretrain, Training
from .pretrain import pretrain
from .pretrain_setup import recipe_of, set_up

VIDEO_SIZE, VIDEO_FRAMES, VIDEO_RATE = 128, 72, 30
RECORDING_SECONDS = 8.0
RECORDING_RATES = (16_000, 44_100, 22_050)  # Hz, in turn; two of them need resampling


@dataclass(kw_only=True)
class Demo(Training):
    """Make a small set of files and pretrain on them, in a minute or two."""

    modality: ModalityName
    out: Path | None = None
    """Folder of the run; its files go to OUT/data. Default: smnm-demo-MODALITY."""
    finetune: bool = False
    """Video: other files, with labels (which form moves). Then fine-tune on these, probe the
    pretrained encoder and an untrained one, and print accuracies and what pretraining gained."""


def demo(options: Demo) -> int:
    """Make the files, then do exactly what `smnm pretrain` does on them, and `smnm finetune`."""
    out = options.out or Path(f"smnm-demo-{options.modality}")
    folder = out / "data"
    if options.finetune:
        options = labelled_options(options)
        files, of_pretraining = LABELLED_FILES, folder / "train"
    else:
        files, of_pretraining = FILES[options.modality], folder
    shared = {field.name: getattr(options, field.name) for field in fields(Training)}
    job = Pretrain(modality=options.modality, data=of_pretraining, out=out, **shared)
    # All that can be refused without the files is refused before anything is written.
    setup = set_up(job)
    try:
        _check_demo(folder, files)
        find_run(job, recipe_of(job, setup), out)
        folder.mkdir(parents=True, exist_ok=True)
        n_made = make_files(folder, files)
    except OSError as error:
        raise UsageError(f"--out {out}: cannot be written ({reason(error)})") from error
    if n_made:
        print(f"made {n_made} {options.modality} files in {folder}", flush=True)
    return pretrain(job) or (evaluate(options, out, folder) if options.finetune else 0)


def _check_demo(folder: Path, files: DemoFiles) -> None:
    """Refuse a folder that holds the files of another demo."""
    for others in (*FILES.values(), LABELLED_FILES):
        if others is not files and any((folder / name).exists() for name in others.names):
            raise UsageError(
                f"--out {folder.parent}: holds a demo of another modality, or one with other "
                "labels; give another"
            )


def make_files(folder: Path, files: DemoFiles) -> int:
    """Fill `folder` with a demo's files; those that are there already stay. How many it made."""
    missing = [(i, name) for i, name in enumerate(files.names) if not (folder / name).exists()]
    for i, name in tqdm(missing, "making files", unit=" files", leave=False, disable=None):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        half_done = path.with_name(f".{path.name}")  # a scan passes by what a kill left behind
        files.write(half_done, i)
        os.replace(half_done, path)
    return len(missing)


def write_video(path: Path, number: int) -> None:
    _write_video(path, moving_pictures(number))


def write_sounding(path: Path, number: int) -> None:
    pictures, samples = sounding_ball(number)
    _write_video(path, pictures, samples)


def _write_video(
    path: Path, pictures: Iterable[np.ndarray], samples: np.ndarray | None = None
) -> None:
    """H.264 in mp4 (MPEG-4 where this FFmpeg has no H.264 encoder), with AAC where there are
    samples: float at SOUND_RATE."""
    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    with av.open(str(path), "w", format="mp4") as container:
        stream = heard = None
        for picture in pictures:
            if stream is None:
                stream = container.add_stream(codec, rate=VIDEO_RATE)
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                # One thread and few key frames: the same bytes everywhere, and seeking has work.
                stream.codec_context.thread_count = 1
                stream.codec_context.gop_size = 24
                stream.codec_context.bit_rate = 600_000
                if samples is not None:  # all streams are there before the first packet
                    heard = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        assert stream is not None
        container.mux(stream.encode(None))
        if samples is not None:
            assert heard is not None
            for first in range(0, len(samples), 1024):
                part = samples[None, first : first + 1024].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(part, "fltp", "mono")
                frame.sample_rate, frame.pts = SOUND_RATE, first
                container.mux(heard.encode(frame))
            container.mux(heard.encode(None))


def moving_pictures(number: int) -> Iterator[np.ndarray]:
    """uint8 [size, size, 3] frames: discs and boxes bounce about on a plaid in a turning light."""
    rng = np.random.default_rng([1, number])
    size = VIDEO_SIZE
    y, x = np.mgrid[0:size, 0:size].astype(np.float64)
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.02, 0.02)
    light = rng.uniform(0.3, 1, 3)
    waves: list[dict[str, Any]] = [
        {
            "angle": rng.uniform(0, np.pi),
            "length": rng.uniform(60, 140),
            "drift": rng.uniform(-0.1, 0.1),
            "colour": rng.uniform(0.2, 1, 3),
        }
        for _ in range(3)
    ]
    shapes: list[dict[str, Any]] = [
        {
            "box": bool(rng.integers(2)),
            "radius": rng.uniform(9, 24),
            "at": rng.uniform(25, size - 25, 2),
            "speed": rng.uniform(-3, 3, 2),
            "colour": rng.uniform(0, 255, 3),
        }
        for _ in range(3)
    ]
    for t in range(VIDEO_FRAMES):
        ramp = ((x - size / 2) * np.cos(angle) + (y - size / 2) * np.sin(angle)) / size
        picture = 128 + 150 * ramp[..., None] * light
        angle += turn
        for wave in waves:
            along = x * np.cos(wave["angle"]) + y * np.sin(wave["angle"])
            phase = 2 * np.pi * along / wave["length"] + wave["drift"] * t
            picture += 10 * np.sin(phase)[..., None] * wave["colour"]
        for shape in shapes:
            radius, at = shape["radius"], shape["at"]
            dx, dy = np.abs(x - at[0]), np.abs(y - at[1])
            inside = np.maximum(dx, dy) < radius if shape["box"] else dx**2 + dy**2 < radius**2
            picture[inside] = shape["colour"]
            at += shape["speed"]
            out = (at < radius) | (at > size - radius)
            shape["speed"][out] = np.abs(shape["speed"][out]) * np.where(at[out] < radius, 1, -1)
        yield np.clip(picture, 0, 255).astype(np.uint8)


def write_image(path: Path, number: int) -> None:
    """PNG, JPEG and WebP in turn."""
    picture = PIL.Image.fromarray(next(moving_pictures(1000 + number)))
    picture.save(path, format=("PNG", "JPEG", "WebP")[number % 3], lossless=True)


def write_recording(path: Path, number: int) -> None:
    """16-bit wav."""
    rate = RECORDING_RATES[number % len(RECORDING_RATES)]
    samples = (32767 * sound(number, rate)).round().astype("<i2")
    with open_wave(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())


def sound(number: int, rate: int) -> np.ndarray:
    """Float in [-1, 1]: a voice with overtones, chirps and a beat of noise bursts."""
    rng = np.random.default_rng([2, number])
    t = np.arange(int(RECORDING_SECONDS * rate)) / rate
    out = 0.003 * rng.standard_normal(len(t))

    pitch = rng.uniform(110, 330) * (1 + 0.06 * np.sin(2 * np.pi * rng.uniform(0.2, 1.2) * t))
    phase = 2 * np.pi * np.cumsum(pitch) / rate
    swell = 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(0.3, 1.0) * t + rng.uniform(0, 6))
    for overtone in range(1, 9):
        out += 0.12 / overtone * swell * np.sin(overtone * phase)

    period, low, high = rng.uniform(1.0, 2.5), rng.uniform(300, 900), rng.uniform(2000, 6000)
    place = (t + rng.uniform(0, period)) % period / period
    sweep = low * (high / low) ** (place if rng.integers(2) else 1 - place)
    out += 0.15 * np.sin(np.pi * place) * np.sin(2 * np.pi * np.cumsum(sweep) / rate)

    beat = rng.uniform(0.25, 0.6)
    since = (t + rng.uniform(0, beat)) % beat
    out += 0.25 * np.exp(-since / rng.uniform(0.02, 0.08)) * rng.standard_normal(len(t))
    return 0.9 * out / np.abs(out).max()


@dataclass(frozen=True)
class DemoFiles:
    """The demo's files of one modality."""

    names: list[str]
    write: Callable[[Path, int], None]  # to a path, the file of this number


FILES = {
    "video": DemoFiles([f"clip{i:02d}.mp4" for i in range(24)], write_video),
    "image": DemoFiles(
        [f"image{i:02d}.{('png', 'jpg', 'webp')[i % 3]}" for i in range(48)], write_image
    ),
    "audio": DemoFiles([f"sound{i:02d}.wav" for i in range(24)], write_recording),
    "audio-video": DemoFiles([f"sounding{i:02d}.mp4" for i in range(24)], write_sounding),
}
LABELLED_FILES = DemoFiles(
    labelled_names(), lambda path, number: _write_video(path, moving_form(number))
)
