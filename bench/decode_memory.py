"""Peak memory of reading one clip of 16 frames from videos of growing size.

python bench/decode_memory.py [--codec mjpeg]

Every clip is read in a process of its own; what it had before it opened the file is subtracted.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from smnm_kernels.train.data.sample_randomness import SampleRandomness
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.tasks.presets import PRESETS

SIZES = ((640, 360), (1920, 1080), (3840, 2160), (7680, 4320))
MIB = 1 << 20


def make(path: Path, width: int, height: int, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if codec == "libx264":
            stream.options = {"preset": "ultrafast"}
        rng = np.random.default_rng(0)
        coarse = rng.integers(0, 255, (height // 8, width // 8, 3)).astype(np.uint8)
        picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        for i in range(18):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 8 * i, axis=1), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def read(path: Path) -> None:
    """Prints what the probe and one sample add to this process, in MiB."""
    clip, source = PRESETS["video"]["base"].clip, Source(path)
    before = _peak()
    record = clip.probe(source)
    probed = _peak()
    clip.read(source, record, SampleRandomness(0, 0))
    print(probed - before, _peak() - before)


def _peak() -> float:
    """MiB. (What getrusage says begins with the memory of the process that started this one.)"""
    [line] = [row for row in Path("/proc/self/status").read_text().split("\n") if "VmHWM" in row]
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--codec", default="mjpeg", choices=["mjpeg", "libx264"])
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(given.read)
        return
    print("| frames | codec | scan adds, MiB | clip adds, MiB | 16 whole frames, MiB |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            path = Path(folder, "a.avi" if given.codec == "mjpeg" else "a.mp4")
            make(path, width, height, given.codec)
            words = [sys.executable, __file__, "--read", str(path)]
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            scan, clip = map(float, said.split())
            whole = 16 * 3 * width * height / MIB
            print(f"| {width}x{height} | {given.codec} | {scan:.0f} | {clip:.0f} | {whole:.0f} |")


if __name__ == "__main__":
    main()
