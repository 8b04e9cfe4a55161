"""The samples of a sound, mono: what a file holds, and any part of it, read without the rest.

The length is what decodes; headers only tell whether something is missing. A part is what lies
there in the whole decoding, bit for bit. Few decoders allow a start in the middle: mp3 keeps bits
of earlier frames, opus and aac predict from them, noise is drawn from a running generator. So the
probe decodes with a second decoder that starts anew every ten seconds. If it agrees with the first
one throughout, reading may start at these points; if not, at the beginning of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av
import numpy as np

from smnm_kernels.errors import Unusable

from . import media
from .declared_length import by_header
from .source import Source
from .times import Stamps

RATE = 16_000  # Hz: AudioMAE's, and of what `decode` gives
# A recording that moves by less than this (full scale 1, about -80 dB) counts as silent.
SILENCE = 2e-4
# Floating-point sound may pass full scale, but beyond this it is damage or not sound.
MOST = 8.0

_BETWEEN_RESTARTS = 10.0  # seconds
_SETTLES_IN = 2.0  # seconds from a restart until samples count
_MOST_RESTARTS = 128

# Where reading may start: time stamp of a packet, that of the first frame that counts, and the
# number of this frame's first sample.
Restart = list[int]


def probe(source: Source, least_seconds: float, with_times: bool = False) -> dict[str, Any]:
    """Length, rate and restarts of a sound long and loud enough; Unusable otherwise. With times,
    a record for `Times`, too."""
    low, high, count, rate = np.inf, -np.inf, 0, 0
    packets, failures, last_error = 0, 0, None
    with media.opened(source, "audio") as reader:
        uncompressed = _uncompressed(reader)
        restarts = _Restarts(source)
        with restarts:
            mono = _Mono()
            longest = 0
            stamps = Stamps()
            for packet, frames, error in reader.steps():
                packets += packet is not None
                if error is not None:
                    failures, last_error = failures + 1, error
                restarts.compare(packet, frames, count)
                begin = count
                for frame in frames:
                    longest = max(longest, frame.samples)
                    failures += frame.is_corrupt
                    stamps.add(begin, frame)
                    begin += frame.samples
                for block in mono.blocks(frames, last=packet is None):
                    if len(block):
                        low, high = min(low, block.min()), max(high, block.max())
                        count += len(block)
            rate = mono.rate
            found = [] if mono.mixed_rates else restarts.verified()
        time_base = reader.stream.time_base
        seconds = count / max(1, rate)
        declared = by_header(source, reader.container, reader.stream, seconds, longest)
    reason = media.reason_of(last_error) if last_error else "it holds no samples"
    if not count:
        raise Unusable(f"does not decode ({reason})")
    # One may be what some program put behind the last frame.
    if failures > max(1, media.MOST_DAMAGED * packets):
        raise Unusable(f"is damaged: {failures} of {packets} packets are corrupt or do not decode")
    if declared is not None and seconds < 0.9 * declared:
        raise Unusable(f"is truncated: {seconds:.3f} of {declared:.3f} s are there")
    if seconds < least_seconds:
        raise Unusable(f"is too short: {seconds:.3f} s, {least_seconds:.3f} s are needed")
    if high - low < SILENCE:
        raise Unusable("is silent")
    record = {"samples": count, "rate": rate, "restarts": found}
    if uncompressed is not None:
        with media.opened(source, "audio", direct=True) as reader:
            if _uncompressed(reader) == uncompressed:
                record["direct"] = True
    if with_times:
        record["times"] = stamps.of_samples(time_base, count, rate)
    return record


def read(source: Source, record: dict[str, Any], start: int, count: int) -> np.ndarray:
    """`count` samples from `start` on (fewer at the file's end), mono float32, at the file's own
    rate: those that lie there when the file is decoded from its beginning."""
    count = min(count, record["samples"] - start)
    direct = record.get("direct", False)
    passed = [r for r in record["restarts"] if r[2] <= start]
    if passed:
        with media.opened(source, "audio", direct) as reader:
            blocks = _from(reader, passed[-1])
            found = _take(blocks, start - passed[-1][2], count)
        if found is not None:
            return found
    with media.opened(source, "audio", direct) as reader:
        found = _take(_all_blocks(reader, _Mono()), start, count)
    if found is None:
        raise Unusable(f"has no {count} samples from {start} on, as it had when it was scanned")
    return found


def read_all(source: Source) -> tuple[np.ndarray, int]:
    """Every sample, mono float32, and the rate; a file that `probe` would refuse comes, too."""
    mono = _Mono()
    with media.opened(source, "audio") as reader:
        blocks = [*_all_blocks(reader, mono)]
    if not mono.rate:
        raise Unusable("does not decode (it holds no samples)")
    return np.concatenate(blocks), mono.rate


def _uncompressed(reader: media.Reader) -> tuple[Any, ...] | None:
    """What decides how a stream of plain samples is read; None of other codecs."""
    stream, context = reader.stream, reader.stream.codec_context
    if not context.name.startswith("pcm_"):
        return None
    of_codec = (context.name, context.format.name, context.sample_rate, context.layout.name)
    return *of_codec, context.extradata, stream.index, stream.time_base, stream.start_time


def _take(blocks: Iterator[np.ndarray], skip: int, count: int) -> np.ndarray | None:
    """`count` samples behind the first `skip`, or None where they end before that."""
    parts: list[np.ndarray] = []
    for block in blocks:
        if skip >= len(block):
            skip -= len(block)
            continue
        parts.append(block[skip : skip + count])
        skip, count = 0, count - len(parts[-1])
        if count == 0:
            return np.concatenate(parts)
    return None


def _all_blocks(reader: media.Reader, mono: _Mono) -> Iterator[np.ndarray]:
    for packet, frames, _ in reader.steps():
        yield from mono.blocks(frames, last=packet is None)


def _from(reader: media.Reader, restart: Restart) -> Iterator[np.ndarray]:
    """Blocks from the restart's first frame on."""
    stamp, first_frame, _ = restart
    mono, there = _Mono(), False
    for packet in reader.packets_from(stamp):
        frames = reader.decode(packet)
        if not there:
            numbers = [i for i, frame in enumerate(frames) if frame.pts == first_frame]
            if any(frame.pts is not None and frame.pts > first_frame for frame in frames[:1]):
                return
            frames = frames[numbers[0] :] if numbers else []
            there = bool(numbers)
        yield from mono.blocks(frames)
    if there:
        yield from mono.blocks(reader.flush(), last=True)


class _Mono:
    """Frames of a decoder -> blocks of mono samples, float32, all at the rate of the first one."""

    def __init__(self) -> None:
        self.rate = 0
        self.mixed_rates = False
        self._other_rate = 0
        self._resampler: av.AudioResampler | None = None

    def blocks(self, frames: list[Any], last: bool = False) -> Iterator[np.ndarray]:
        for frame in frames:
            samples = mix(frame)
            self.rate = self.rate or frame.sample_rate
            if frame.sample_rate != (self._other_rate or self.rate):
                # What the last resampler holds back goes: a quarter of a millisecond, as in
                # FFmpeg's program.
                self._resampler, self._other_rate = None, 0
                if frame.sample_rate != self.rate:
                    self.mixed_rates, self._other_rate = True, frame.sample_rate
                    self._resampler = _resampler(self.rate)
            if self._resampler is not None:
                yield from _resampled(self._resampler, samples, self._other_rate)
            else:
                yield samples
        if last and self._resampler is not None:
            yield from _resampled(self._resampler, None, self._other_rate)


def mix(frame: Any) -> np.ndarray:
    """The mean of a frame's channels, float32 in [-1, 1] where full scale is 1; Unusable where a
    value is no sound."""
    channels = frame.to_ndarray()
    if not frame.format.is_planar:
        channels = channels.reshape(-1, frame.layout.nb_channels).T
    if channels.dtype == np.uint8:
        channels = (channels.astype(np.float32) - 128) / 128
    elif channels.dtype.kind == "i":
        channels = channels.astype(np.float32) * np.float32(0.5 ** (8 * channels.itemsize - 1))
    else:
        with np.errstate(invalid="ignore"):
            most = abs(channels).max(initial=0)
        if not np.isfinite(most):
            raise Unusable("holds values that are not finite numbers")
        if most > MOST:
            raise Unusable(f"holds values beyond {MOST:g} times full scale (up to {most:.3g})")
        channels = channels.astype(np.float32, copy=False)
    return channels[0] if len(channels) == 1 else channels.mean(axis=0)


def resample(samples: np.ndarray, rate: int, to: int = RATE) -> np.ndarray:
    """Mono float32 at `rate` Hz -> mono float32 at `to` Hz."""
    if rate == to:
        return samples
    resampler = _resampler(to)
    parts = [*_resampled(resampler, samples, rate), *_resampled(resampler, None, rate)]
    return np.concatenate(parts)


def _resampler(rate: int) -> av.AudioResampler:
    return av.AudioResampler(format="flt", layout="mono", rate=rate)


def _resampled(
    resampler: av.AudioResampler, samples: np.ndarray | None, rate: int
) -> Iterator[np.ndarray]:
    """What comes out when samples of `rate` go in; None gets out what is left."""
    frame = None
    if samples is not None:
        samples = np.ascontiguousarray(samples)
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = rate
    for part in resampler.resample(frame):
        yield part.to_ndarray()[0]


class _Restarts:
    """Looks for points from which decoding may start, while the file is decoded as a whole."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._opened = media.opened(source, "audio")
        self._found: list[Restart] = []
        self._exact = True
        self._spacing = _BETWEEN_RESTARTS
        self._next = _BETWEEN_RESTARTS  # seconds of sound
        self._last_stamp: int | None = None
        self._started: tuple[int, int] | None = None  # stamp and size of the packet
        self._sizes: dict[int, int] = {}
        self._counts_from = 0  # sample number
        self._is_counting = False

    def __enter__(self) -> _Restarts:
        self._reader = self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def compare(self, packet: Any, frames: list[Any], number: int) -> None:
        """The frames that the whole decoding gave for a packet begin at sample `number`."""
        if not self._exact or packet is None:
            return
        if packet.pts is None or (self._last_stamp is not None and packet.pts <= self._last_stamp):
            self._exact = False
            return
        self._last_stamp = packet.pts
        if not frames:
            if self._started:
                self._reader.decode(packet)
            return
        rate = frames[0].sample_rate
        if number >= self._next * rate:
            self._start(packet, number, rate)
        if not self._started:
            return
        ours = self._reader.decode(packet)
        if number < self._counts_from:
            return
        if not _equal(ours, frames):
            self._exact = False
        elif not self._is_counting and frames[0].pts is not None:
            self._is_counting = True
            self._found.append([self._started[0], frames[0].pts, number])
            self._sizes[self._started[0]] = self._started[1]
            if len(self._found) > _MOST_RESTARTS:
                self._found = self._found[1::2]
                self._spacing *= 2

    def _start(self, packet: Any, number: int, rate: int) -> None:
        self._reader.forget()
        self._started, self._is_counting = (packet.pts, packet.size), False
        self._counts_from = number + int(_SETTLES_IN * rate)
        self._next = number / rate + self._spacing

    def verified(self) -> list[Restart]:
        """Those that seeking finds."""
        if not self._exact:
            return []
        return [restart for restart in self._found if self._is_reached(restart)]

    def _is_reached(self, restart: Restart) -> bool:
        packet = next(self._reader.packets_from(restart[0]), None)
        return packet is not None and packet.size == self._sizes[restart[0]]


def _equal(ours: list[Any], theirs: list[Any]) -> bool:
    return len(ours) == len(theirs) and all(
        a.pts == b.pts and np.array_equal(a.to_ndarray(), b.to_ndarray())
        for a, b in zip(ours, theirs, strict=True)
    )
