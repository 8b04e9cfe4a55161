"""Small labelled files that are easy to tell apart, and short ways to fine-tune on them."""

import csv
import json
from fractions import Fraction

import av
import numpy as np
from clips import write_samples, write_video
from PIL import Image

from smnm_kernels.cli import main

COUNTS = {"train": 8, "val": 4, "test": 4}  # of each class


def pictures(folder, counts=COUNTS):
    """Dark and light noise, of 48 x 40 pixels."""
    rng = np.random.default_rng(0)
    for split, n in counts.items():
        for name, mean in (("dark", 70), ("light", 180)):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                noise = mean + 40 * rng.standard_normal((40, 48, 3))
                picture = Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8))
                picture.save(folder / split / name / f"{i}.png")
    return folder


def sounds(folder, counts=COUNTS):
    """High and low tones of 0.3 to 1.3 seconds."""
    rng = np.random.default_rng(0)
    for split, n in counts.items():
        for name, hertz in (("high", 3000), ("low", 300)):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                t = np.arange(int((0.3 + rng.random()) * 16000)) / 16000
                tone = 0.5 * np.sin(2 * np.pi * hertz * (1 + 0.2 * rng.random()) * t)
                noise = 0.02 * rng.standard_normal(len(t))
                write_samples(folder / split / name / f"{i}.wav", tone + noise)
    return folder


def videos(folder, counts=COUNTS):
    """Of 20 and of 100 frames, where a frame is the lighter the later it comes."""
    for split, n in counts.items():
        for name, frames in (("long", 100), ("short", 18)):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                write_video(folder / split / name / f"{i}.mp4", n=frames + i, size=32)
    return folder


def films(folder, counts=COUNTS, seconds=0.8):
    """Dark ones with low tones, light ones with high tones; the sound of some is shorter than
    their window."""
    rng = np.random.default_rng(0)
    for split, n in counts.items():
        for name, mean, hertz in (("dark", 70, 300), ("light", 180, 3000)):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                frames = int(30 * (seconds + 0.2 * (i % 4)))
                noise = mean + 30 * rng.standard_normal((frames, 32, 32, 3))
                t = np.arange(frames * 16000 // 30) / 16000
                tone = 0.5 * np.sin(2 * np.pi * hertz * (1 + 0.2 * rng.random()) * t)
                write_film(folder / split / name / f"{i}.mkv", np.clip(noise, 0, 255), tone)
    return folder


def write_film(path, pictures, samples):
    """Pictures [n, h, w, 3] at 30 a second, and a sound at 16 kHz."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = *pictures.shape[2:0:-1], "yuv420p"
        video.codec_context.thread_count = 1
        audio = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        packets = []
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture.astype(np.uint8), format="rgb24")
            packets += video.encode(frame)
        packets += video.encode(None)
        whole = (32767 * samples).astype("i2")[None]
        for first in range(0, len(samples), 1600):
            part = np.ascontiguousarray(whole[:, first : first + 1600])
            frame = av.AudioFrame.from_ndarray(part, "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, first, Fraction(1, 16000)
            packets += audio.encode(frame)
        packets += audio.encode(None)
        container.mux(sorted(packets, key=lambda p: p.dts * p.time_base))


def pictures_with_numbers(folder):
    """A list: brightness of each picture, and which of its channels are light."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for i in range(24):
        channels = [int(v) for v in rng.integers(0, 2, 3)]
        values = np.array([60 + 140 * c for c in channels]) + rng.integers(-20, 20, 3)
        picture = np.clip(values + 20 * rng.standard_normal((40, 40, 3)), 0, 255)
        Image.fromarray(picture.astype(np.uint8)).save(folder / f"{i}.png")
        names = [name for name, c in zip("rgb", channels, strict=True) if c]
        split = "val" if i % 3 == 0 else "train"
        rows.append([f"{i}.png", f"{values.mean():.3f}", ",".join(names), split])
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "brightness", "channels", "split"], *rows])
    return folder / "list.csv"


SMALL = {
    "image": ("--size", 32),
    "audio": ("--frames", 64),
    "video": ("--size", 32),
    "audio-video": ("--size", 32),
}


def finetune(modality, data, out, *arguments, encoder="none"):
    """smnm finetune in this process, small and without loader processes; the exit code."""
    return main(["finetune", modality, *words(modality, data, out, *arguments, encoder=encoder)])


def words(modality, data, out, *arguments, encoder="none"):
    given = [str(a) for a in (data, "--encoder", encoder, "--out", out, *arguments)]
    defaults = {"--batch-size": 4, "--workers": 0, "--threads": 1, "--warmup-steps": 2}
    if encoder == "none":
        defaults[SMALL[modality][0]] = SMALL[modality][1]
    for name, value in defaults.items():
        if name not in given:
            given += [name, str(value)]
    return given


def evaluations(run):
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def results(run):
    return json.loads((run / "results.json").read_text())
