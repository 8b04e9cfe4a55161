"""Clips a second, beside other libraries: each opens the file, seeks, and gives 16 RGB frames.

pip install decord torchcodec   # where they load; each is left out where it does not
python bench/decode_speed.py

Every library has one thread, and all of them read the same clips in turn, in rounds. Times are
those of the processor, so that other programs do not count; a ratio is the median of the rounds'
ratios. `right` is the share of clips whose frames are those that lie there when the file is decoded
from its beginning (within 3 grey levels: conversions to RGB differ).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np

from smnm_kernels.train.data import frames
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.video import usable_stride

FRAMES, STRIDE = 16, 4
CLIPS, ROUNDS = 4, 7

# Name: width, height, frames, codec, options.
FILES = {
    "320x240, 10 s, a key frame in 250 (x264's own)": ("a.mp4", 320, 240, 300, "libx264", {}),
    "320x240, 10 s, a key frame in 32": ("b.mp4", 320, 240, 300, "libx264", {"g": "32"}),
    "1280x720, 5 s, a key frame in 48": ("c.mp4", 1280, 720, 150, "libx264", {"g": "48"}),
    "320x240, AVI with B-frames": ("d.avi", 320, 240, 300, "libx264", {"g": "48", "bf": "3"}),
    "320x240, webm": ("e.webm", 320, 240, 300, "libvpx", {"g": "60"}),
}


def make(path: Path, width: int, height: int, n: int, codec: str, options: dict[str, str]) -> None:
    """Coarse noise that drifts, under fine noise; the number of a frame shows in its top row."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 200, (height // 8 + 40, width // 8 + 40, 3)).astype(np.uint8)
    big = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = options
        for i in range(n):
            picture = big[i : i + height, 2 * i % 300 :][:, :width].copy()
            picture += rng.integers(0, 4, (height, width, 1)).astype(np.uint8)
            for bit in range(10):
                picture[:16, 16 * bit : 16 * bit + 16] = 250 * (i >> bit & 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


Reader = Callable[[Path, int, int], np.ndarray]  # of the file, a clip from this frame, this stride


def ours(path: Path) -> Reader:
    record = frames.probe(Source(path), FRAMES, "apply")  # the scan's work, once a file

    def read(path: Path, start: int, stride: int) -> np.ndarray:
        return np.stack([*frames.read(Source(path), record, start, FRAMES, stride)])

    return read


def pyav(_: Path) -> Reader:
    """As one writes it: seek by the frame rate, take what comes."""

    def read(path: Path, start: int, stride: int) -> np.ndarray:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            begin = (stream.start_time or 0) + int(start / stream.average_rate / stream.time_base)
            container.seek(begin, stream=stream)
            taken, number = [], 0
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts < begin:
                    continue
                if number % stride == 0:
                    taken.append(frame.to_ndarray(format="rgb24"))
                number += 1
                if len(taken) == FRAMES:
                    break
        return np.stack(taken)

    return read


def decord(_: Path) -> Reader:
    import decord

    def read(path: Path, start: int, stride: int) -> np.ndarray:
        reader = decord.VideoReader(str(path), num_threads=1)
        return reader.get_batch(range(start, start + FRAMES * stride, stride)).asnumpy()

    return read


def torchcodec(_: Path, mode: str = "exact") -> Reader:
    from torchcodec.decoders import VideoDecoder

    def read(path: Path, start: int, stride: int) -> np.ndarray:
        decoder = VideoDecoder(
            str(path), seek_mode=mode, num_ffmpeg_threads=1, dimension_order="NHWC"
        )
        indices = list(range(start, start + FRAMES * stride, stride))
        return decoder.get_frames_at(indices).data.numpy()

    return read


def torchcodec_approximate(path: Path) -> Reader:
    return torchcodec(path, "approximate")


READERS = {
    "smnm_kernels": ours,
    "PyAV alone": pyav,
    "decord": decord,
    "torchcodec, exact": torchcodec,
    "torchcodec, approximate": torchcodec_approximate,
}


def compare(path: Path) -> list[str]:
    whole = np.stack([*frames.read_all(Source(path), "apply")])
    readers: dict[str, Reader] = {}
    for name, make_reader in READERS.items():
        try:
            readers[name] = make_reader(path)
        except Exception as error:
            print(f"{name} does not load: {str(error).splitlines()[0]}", file=sys.stderr)
    rng = np.random.default_rng(1)
    stride = usable_stride(len(whole), FRAMES, STRIDE)
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    right = dict.fromkeys(readers, 0)
    for _ in range(ROUNDS):
        starts = rng.integers(0, len(whole) - FRAMES * stride, CLIPS).tolist()
        for name, read in readers.items():
            begin = time.process_time()
            clips = [_tried(read, path, start, stride) for start in starts]
            seconds[name].append((time.process_time() - begin) / CLIPS)
            for start, clip in zip(starts, clips, strict=True):
                expected = whole[start : start + FRAMES * stride : stride].astype(int)
                right[name] += clip is not None and abs(clip - expected).mean() < 3
    rows = []
    for name in readers:
        ratios = [b / a for a, b in zip(seconds[name], seconds["smnm_kernels"], strict=True)]
        share = right[name] / (ROUNDS * CLIPS)
        each = 1000 * statistics.median(seconds[name])
        rows.append(f"{name} | {each:.1f} | {statistics.median(ratios):.2f} | {share:.0%}")
    return rows


def _tried(read: Reader, path: Path, start: int, stride: int) -> np.ndarray | None:
    try:
        return read(path, start, stride)
    except Exception:
        return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.parse_args()
    print(f"PyAV {av.__version__} with FFmpeg {av.ffmpeg_version_info}; {CLIPS * ROUNDS} clips\n")
    print("| file | library | CPU ms a clip | clips/s beside ours | right |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, (file, *how) in FILES.items():
            make(Path(folder, file), *how)
            for row in compare(Path(folder, file)):
                print(f"| {name} | {row} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
