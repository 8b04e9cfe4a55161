"""Films whose picture flashes when their sound clicks."""

from fractions import Fraction

import av
import numpy as np

CLICK = 0.002  # seconds

_CODECS = {
    ".mp4": ("libx264", "aac"),
    ".mkv": ("libx264", "libopus"),
    ".webm": ("libvpx-vp9", "libopus"),
    ".avi": ("mpeg4", "pcm_s16le"),
    ".mov": ("libx264", "pcm_s16le"),
    ".ts": ("libx264", "aac"),
}
_FAST = {"libx264": {"preset": "veryfast"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}
_FAST["libvpx-vp9"] = _FAST["libvpx"]


def flashing(n):
    """The numbers of the frames that are bright: some 6 to 11 frames apart."""
    gaps = np.random.default_rng(5).integers(6, 12, n)
    return [k for k in np.cumsum(gaps).tolist() if k < n]


def write_flashes(
    path,
    n=100,
    fps=25,
    rate=48000,
    size=32,
    codecs=None,
    times=None,
    picture_at=0.0,
    sound_at=0.0,
    pause=None,
    seconds=None,
    silent=False,
):
    """n frames at `fps`, or at `times` (ms), the first one at second `picture_at`; a sound of which
    second `sound_at` is the first in the file, clicking when a bright frame begins.

    pause: (from, to), seconds whose sound the file does not hold. Returns when the flashes are.
    """
    video_codec, audio_codec = codecs or _CODECS[path.suffix]
    base = Fraction(1, 1000) if times else 1 / Fraction(fps)
    stamps = times or range(n)
    shown = [picture_at + float(stamp * base) for stamp in stamps]
    flashes = [shown[k] for k in flashing(n)]
    seconds = seconds or shown[-1] + 1 / fps
    samples = 0.02 * np.sin(2 * np.pi * 300 * np.arange(round(seconds * rate)) / rate)
    for at in flashes:
        first = round(at * rate)
        noise = np.random.default_rng(first).uniform(-0.9, 0.9, round(CLICK * rate))
        samples[first : first + len(noise)] = noise[: max(0, len(samples) - first)]
    if silent:
        samples *= 0
    with av.open(str(path), "w") as container:
        video = container.add_stream(video_codec, rate=1000 if times else fps)
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        video.options = _FAST.get(video_codec, {})
        video.codec_context.thread_count = 1
        audio = container.add_stream(audio_codec, rate=rate, layout="stereo")
        audio.options = {"strict": "-2"}
        packets = []
        for k, stamp in enumerate(stamps):
            picture = np.full((size, size, 3), 235 if k in flashing(n) else 20, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = stamp + round(Fraction(picture_at) / base), base
            packets += video.encode(frame)
        packets += video.encode(None)
        for first in range(round(sound_at * rate), len(samples), 1024):
            if pause and pause[0] <= first / rate < pause[1]:
                continue
            part = np.repeat(samples[None, first : first + 1024], 2, axis=0)
            if audio_codec == "pcm_s16le":
                whole = (32767 * part).astype("i2")
                frame = av.AudioFrame.from_ndarray(whole, "s16p", "stereo")
            else:
                frame = av.AudioFrame.from_ndarray(part.astype("f4"), "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, first, Fraction(1, rate)
            packets += audio.encode(frame)
        packets += audio.encode(None)
        packets.sort(key=lambda p: (p.pts if p.dts is None else p.dts) * p.time_base)
        container.mux(packets)
    return flashes
