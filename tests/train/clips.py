"""Small data files and short ways to run the command on them."""

import json
import os
import subprocess
import sys
import time
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

from smnm_kernels.cli import main


def write_video(
    path, n=40, size=64, codec="libx264", options=None, muxer=None, times=None, turn=0, aspect=None
):
    """n frames, frame i of brightness 2 i under a mark that moves: a frame tells its own number.

    `size` is a side or (width, height); `times` are the frames' time stamps in 1/1000 s.
    """
    width, height = (size, size) if isinstance(size, int) else size
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=1000 if times else 30)
        stream.width, stream.height = width, height
        stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
        stream.options = options or {}
        stream.codec_context.thread_count = 1
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if turn:
            stream.set_display_rotation(turn)
        for i in range(n):
            picture = np.full((height, width, 3), min(255, 2 * i), dtype=np.uint8)
            picture[4:12, (3 * i) % (width - 8) :][:, :8] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write_sound(path, seconds=2.0, rate=16000, hertz=440.0, silent=False, codec=None, **options):
    t = np.arange(int(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * hertz * t * (1 + 0.1 * t))
    write_samples(path, 0 * tone if silent else tone, rate, codec, **options)


def write_samples(path, samples, rate=16000, codec=None, options=None, muxer=None):
    """Float samples [n] or [channels, n]; by default in the usual codec of the name's ending."""
    samples = np.atleast_2d(samples)
    codec = codec or _CODECS.get(path.suffix, "pcm_s16le")
    if codec == "vorbis" and len(samples) == 1:  # FFmpeg's own encoder takes two channels only
        samples = np.repeat(samples, 2, axis=0)
    layout = {1: "mono", 2: "stereo", 6: "5.1"}[len(samples)]
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.options = {"strict": "-2"} | (options or {})
        for start in range(0, samples.shape[1], 4096):
            part = samples[:, start : start + 4096]
            if codec.startswith("pcm_f64"):
                frame = av.AudioFrame.from_ndarray(part.astype("f8"), "dblp", layout)
            elif codec.startswith("pcm_s16"):
                whole = (32767 * part).round().astype("i2")
                frame = av.AudioFrame.from_ndarray(whole, "s16p", layout)
            else:
                frame = av.AudioFrame.from_ndarray(part.astype("f4"), "fltp", layout)
            frame.sample_rate, frame.pts = rate, start
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


_CODECS = {
    ".mp3": "libmp3lame",
    ".flac": "flac",
    ".ogg": "vorbis",
    ".opus": "libopus",
    ".m4a": "aac",
    ".aac": "aac",
    ".wma": "wmav2",
    ".mka": "vorbis",
    ".webm": "libopus",
    ".ac3": "ac3",
    ".mp2": "mp2",
    ".ts": "aac",
    ".aiff": "pcm_s16be",
    ".au": "pcm_s16be",
    ".caf": "pcm_s16le",
    ".tta": "tta",
    ".wv": "wavpack",
}


def write_picture(path, number=0, size=(80, 64)):
    """A slope of colours under a mark."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    picture = np.stack([2 * x, 3 * y, np.full_like(x, 5 * number)], axis=-1).astype(np.uint8)
    picture[8:24, 10 + number :][:, :16] = 255
    Image.fromarray(picture).save(path)
    return picture


def pretrain(*arguments, modality="video"):
    """smnm pretrain in this process, small and without loader processes; the exit code."""
    return main(["pretrain", modality, *command(*arguments)])


def on_two_ranks(data, run, *arguments):
    """smnm pretrain video in two processes under torchrun."""
    words = ["pretrain", "video", data, "--out", run, "--workers", 0, "--threads", 1, *arguments]
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        + ["-m", "smnm_kernels.cli"]
        + [str(w) for w in words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr


def command(*arguments):
    given = [str(a) for a in arguments]
    for name, value in (("--batch-size", "2"), ("--workers", "0"), ("--threads", "1")):
        if name not in given:
            given += [name, value]
    return given


class Started:
    """smnm pretrain in a process and a process group of its own."""

    def __init__(self, run, *arguments, modality="video"):
        self.run = run
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smnm_kernels.cli", "pretrain", modality, *command(*arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait_for_rows(self, n):
        path = self.run / "metrics.jsonl"
        self._wait(lambda: path.exists() and path.read_bytes().count(b"\n") >= n)

    def wait_for_checkpoint_write(self):
        self._wait(lambda: any(self.run.glob(".last.pt.*.tmp")))

    def _wait(self, condition):
        until = time.monotonic() + 60
        while not condition() and self.process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.0005)

    def signal_group(self, number):
        os.killpg(self.process.pid, number)

    def finish(self):
        """(exit code, everything it said)"""
        said = self.process.communicate(timeout=120)[0].decode()
        return self.process.returncode, said


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


#: Of what a model gives: matrix products are in bfloat16 on a GPU.
ROUNDING = 2e-3 if torch.cuda.is_available() else 1e-5


class Losses(list):
    """Of each step. Equal bit for bit on a CPU; on a GPU torch's attention adds up gradients in no
    fixed order, and runs that did the same are equal up to rounding."""

    def __eq__(self, other):
        if not isinstance(other, list):
            return NotImplemented  # pytest.approx compares itself
        if torch.cuda.is_available():
            return list(self) == pytest.approx(list(other), rel=1e-3)
        return list(self) == list(other)

    def __ne__(self, other):
        return not self == other

    __hash__ = None


def losses(run):
    assert [row["step"] for row in rows(run)] == list(range(1, len(rows(run)) + 1))
    return Losses(row["loss"] for row in rows(run))
