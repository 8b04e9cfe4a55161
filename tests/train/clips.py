"""Small data files and short ways to run the command on them."""

import json
import os
import subprocess
import sys
import time

import av
import numpy as np
import soundfile
from PIL import Image

from smnm_kernels.cli import main


def write_video(path, n=40, size=64, codec="libx264", options=None, faststart=False):
    """n frames, frame i of brightness 2 i under a mark that moves: a frame tells its own number."""
    container_options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=container_options) as container:
        stream = container.add_stream(codec, rate=30)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.options = options or {}
        stream.codec_context.thread_count = 1
        for i in range(n):
            picture = np.full((size, size, 3), min(255, 2 * i), dtype=np.uint8)
            picture[4:12, (3 * i) % (size - 8) :][:, :8] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def write_sound(path, seconds=2.0, rate=16000, hertz=440.0, silent=False):
    t = np.arange(int(seconds * rate)) / rate
    tone = 0.5 * np.sin(2 * np.pi * hertz * t * (1 + 0.1 * t))
    soundfile.write(path, 0 * tone if silent else tone, rate)


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


def command(*arguments):
    given = [str(a) for a in arguments]
    for name, value in (("--batch-size", "2"), ("--workers", "0"), ("--threads", "1")):
        if name not in given:
            given += [name, value]
    return given


class Started:
    """smnm pretrain video in a process and a process group of its own."""

    def __init__(self, run, *arguments):
        self.run = run
        self.process = subprocess.Popen(
            [sys.executable, "-m", "smnm_kernels.cli", "pretrain", "video", *command(*arguments)],
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


def losses(run):
    assert [row["step"] for row in rows(run)] == list(range(1, len(rows(run)) + 1))
    return [row["loss"] for row in rows(run)]
