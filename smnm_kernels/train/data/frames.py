"""The frames of a video, as a player shows them: what a file holds, and any of them by number.

Frames are counted as they are decoded, and a clip takes every n-th of them, whatever their time
stamps say: those may be uneven, doubled or missing. A clip late in a file is decoded from a key
frame. The probe, which decodes the whole file, looks for key frames from which a second decoder
makes the same picture as the first one; where there is none, reading begins with the file.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from smnm_kernels.errors import Unusable

from . import media
from .source import Source
from .times import Stamps
from .view import PixelAspect, View

_BETWEEN_RESTARTS = 32  # packets, at the least
_MOST_RESTARTS = 512
_MOST_REORDERED = 32  # frames
_MOST_DELAY = 64  # packets from a key packet to its picture

# Where reading may start: time stamp of a key packet, number of its frame, time stamp of the frame.
Restart = list[Any]


def probe(
    source: Source, least: int, pixel_aspect: PixelAspect, with_times: bool = False
) -> dict[str, Any]:
    """What `read` needs to know of a video that has `least` frames in a row; Unusable otherwise.
    With times, a record for `Times`, too.

    Decodes the whole file: whether frames are damaged shows no other way, and how many there are
    not always.
    """
    with media.opened(source, "video") as reader:
        declared = reader.stream.frames  # 0 where the container does not say (mkv, webm, mpg)
        frames = _Frames(source, reader.stream, pixel_aspect)
        with frames.restarts:
            for packet, decoded, error in reader.steps():
                frames.add(packet, decoded, error)
            found = frames.restarts.verified()
            time_base = reader.stream.time_base
    if frames.packets < 0.9 * declared:
        raise Unusable(f"is truncated: {frames.packets} of {declared} frames are there")
    if frames.view is None:
        reason = media.reason_of(frames.last_error) if frames.last_error else "it holds no frames"
        raise Unusable(f"does not decode ({reason})")
    total = frames.count + frames.failures
    damaged = max(frames.corrupt, frames.corrupt_packets) + frames.failures
    if damaged > media.MOST_DAMAGED * total:
        raise Unusable(f"is damaged: {damaged} of {total} frames are corrupt or do not decode")
    if frames.count < least:
        raise Unusable(f"is too short: {frames.count} frames, {least} are needed")
    record = {
        "frames": frames.count,
        "view": frames.view.to_list(),
        "restarts": found,
        "damaged": frames.damaged,
    }
    longest = max(length for _, length in undamaged(record))
    if longest < least:
        raise Unusable(
            f"is damaged: between its corrupt frames there are {longest} in a row, {least} are "
            "needed"
        )
    if with_times:
        record["times"] = frames.stamps.of_frames(time_base, frames.count)
    return record


def undamaged(record: dict[str, Any]) -> list[tuple[int, int]]:
    """(first frame, number of frames) of the stretches that no corrupt frame touches."""
    begins = [0, *(end for _, end in record["damaged"])]
    ends = [*(begin for begin, _ in record["damaged"]), record["frames"]]
    return [(begin, max(0, end - begin)) for begin, end in zip(begins, ends, strict=True)]


def read(
    source: Source, record: dict[str, Any], start: int, frames: int, stride: int
) -> Iterator[np.ndarray]:
    """`frames` frames, every `stride`-th from frame `start` on, as `read_numbers` gives them."""
    return read_numbers(source, record, range(start, start + frames * stride, stride))


def read_numbers(
    source: Source, record: dict[str, Any], numbers: Sequence[int]
) -> Iterator[np.ndarray]:
    """The frames of these numbers, which rise, one after the other: uint8 [height, width, 3]. They
    are those of the whole decoding."""
    view = View.from_list(record["view"])
    start, stop, wanted = numbers[0], numbers[-1] + 1, frozenset(numbers)
    passed = [r for r in record["restarts"] if r[1] <= start]
    given = 0
    for restart in [*passed[-1:], None]:
        with media.opened(source, "video") as reader:
            for number, frame in _numbered(reader, restart):
                if number in wanted:
                    if frame.is_corrupt:
                        raise Unusable(f"has a corrupt frame, number {number}")
                    given += 1
                    yield view.pixels(frame)
                if number + 1 >= stop:
                    return
        if given:
            break
    raise Unusable(f"has only {given} of {len(numbers)} frames behind frame {start}")


def read_all(source: Source, pixel_aspect: PixelAspect) -> Iterator[np.ndarray]:
    """Every frame, uint8 [height, width, 3]; also of a file that `probe` would refuse."""
    view = None
    with media.opened(source, "video") as reader:
        for _, frame in _numbered(reader, None):
            view = view or View.of(frame, reader.stream, pixel_aspect)
            yield view.pixels(frame)
    if view is None:
        raise Unusable("does not decode (it holds no frames)")


def _numbered(reader: media.Reader, restart: Restart | None) -> Iterator[tuple[int, Any]]:
    """Frames with their numbers; none where the restart is not found again."""
    if restart is None:
        number = 0
        for _, frames, _ in reader.steps():
            for frame in frames:
                yield number, frame
                number += 1
        return
    stamp, number, frame_stamp = restart
    there = False
    for frame in _frames_from(reader, stamp):
        if not there and frame.key_frame:
            if frame.pts != frame_stamp:
                return
            there = True
        # What is shown before the key frame but stands behind it in the file lacks the frames that
        # it is made from.
        if there:
            yield number, frame
            number += 1


def _frames_from(reader: media.Reader, stamp: int) -> Iterator[Any]:
    for packet in reader.packets_from(stamp):
        yield from reader.decode(packet)
    yield from reader.flush()


class _Frames:
    """Counts while a file is decoded."""

    def __init__(self, source: Source, stream: Any, pixel_aspect: PixelAspect) -> None:
        self._stream, self._pixel_aspect = stream, pixel_aspect
        self.view: View | None = None
        self.packets = self.count = self.failures = 0
        self.corrupt = self.corrupt_packets = 0
        self.last_error: Exception | None = None
        # [first, behind the last] from a corrupt frame to the next key frame: what lies between is
        # made from damaged frames, marked or not.
        self.damaged: list[list[int]] = []
        self._open: int | None = None  # number of the frame from which there is damage
        self._damaged_at = 0  # the packet's place in the file
        self._places: dict[int | None, int] = {}  # of packets by their pts
        self._recent: deque[tuple[int, int | None]] = deque(maxlen=_MOST_REORDERED)
        self.restarts = _Restarts(source)
        self.stamps = Stamps()

    def add(self, packet: Any, frames: list[Any], error: Exception | None) -> None:
        self.last_error = error or self.last_error
        if packet is not None:
            self.packets += 1
            self._places[packet.pts] = self.packets
        # What precedes the first frame belongs to one that the file does not hold.
        is_corrupt = packet is not None and packet.is_corrupt
        if self.view is not None and (error or is_corrupt):
            self.failures += error is not None
            self.corrupt_packets += error is None
            self._begin_damage(self.packets)
        if frames and self.view is None:
            self.view = View.of(frames[0], self._stream, self._pixel_aspect)
        if self.view is not None:
            self.restarts.compare(packet, frames, self.count, self.view)
        for frame in frames:
            place = self._places.pop(frame.pts, None) if frame.pts is not None else None
            if frame.is_corrupt:
                self.corrupt += 1
                self._begin_damage(place)
            elif frame.key_frame and (place is None or place > self._damaged_at):
                self._end_damage()
            self._recent.append((self.count, place))
            self.stamps.add(self.count, frame)
            self.count += 1
        if packet is None:
            self._end_damage()

    def _begin_damage(self, place: int | None) -> None:
        """In the frame that comes next, at this place in the file."""
        self._damaged_at = place or 0
        begin = self.count
        for number, other in self._recent:
            # Frames shown before it may stand behind it in the file, and be made from it.
            if place is None or other is None or other > place:
                begin = min(begin, number)
        self._open = begin if self._open is None else min(begin, self._open)

    def _end_damage(self) -> None:
        if self._open is not None and self.count > self._open:
            if self.damaged and self.damaged[-1][1] >= self._open:
                self._open = self.damaged.pop()[0]
            self.damaged.append([self._open, self.count])
        self._open = None


class _Restarts:
    """Looks for key frames from which decoding may start, while the file is decoded as a whole."""

    def __init__(self, source: Source) -> None:
        self._opened = media.opened(source, "video")
        self._found: list[Restart] = []
        self._sizes: dict[int, int] = {}  # of packets, by their stamps
        self._last_key: int | None = None
        self._is_ordered = True
        self._spacing = _BETWEEN_RESTARTS
        self._since = 0  # packets
        self._started: tuple[int, int] | None = None  # stamp and size of the packet
        self._ours: tuple[int | None, bytes] | None = None
        self._theirs: dict[tuple[int | None, bytes], int] = {}  # numbers of key frames

    def __enter__(self) -> _Restarts:
        self._reader = self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def compare(self, packet: Any, frames: list[Any], number: int, view: View) -> None:
        """The frames that the whole decoding gave for a packet begin at frame `number`."""
        self._since += 1
        if packet is not None and packet.is_keyframe and packet.size:
            self._meet_key(packet)
        if self._started is None:
            return
        if self._ours is None and packet is not None and packet.size:
            for frame in self._reader.decode(packet):
                if frame.key_frame:
                    self._ours = (frame.pts, _digest(frame, view))
                    break
        for i, frame in enumerate(frames):
            if frame.key_frame:
                self._theirs[frame.pts, _digest(frame, view)] = number + i
        if self._ours in self._theirs:
            self._found.append([self._started[0], self._theirs[self._ours], self._ours[0]])
            self._sizes[self._started[0]] = self._started[1]
            self._started = None
            if len(self._found) > _MOST_RESTARTS:
                self._found = self._found[1::2]
                self._spacing *= 2
        elif self._since > _MOST_DELAY:
            self._started = None

    def _meet_key(self, packet: Any) -> None:
        stamp = media.stamp(packet)
        if stamp is None or (self._last_key is not None and stamp <= self._last_key):
            self._is_ordered = False  # a packet could be mistaken for another one
            return
        self._last_key = stamp
        if self._is_ordered and self._started is None and self._since > self._spacing:
            self._reader.forget()
            self._started, self._ours, self._since = (stamp, packet.size), None, 0
            self._theirs.clear()

    def verified(self) -> list[Restart]:
        """Those that seeking finds."""
        if not self._is_ordered:
            return []
        return [restart for restart in self._found if self._is_reached(restart[0])]

    def _is_reached(self, stamp: int) -> bool:
        packet = next(self._reader.packets_from(stamp), None)
        return packet is not None and packet.size == self._sizes[stamp]


def _digest(frame: Any, view: View) -> bytes:
    return hashlib.blake2b(view.pixels(frame).tobytes(), digest_size=16).digest()
