"""Media files as FFmpeg (PyAV) sees them: which stream is read, and its packets decoded one by one.

FFmpeg goes on after a packet that does not decode, and so does everything here: what comes out is
what `ffmpeg -threads 1` gives. How much damage a file may have is decided by who reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal

import av
from av.container import InputContainer
from av.stream import Discard, Disposition

from smnm_kernels.errors import Unusable

from .source import Source

# More than this share of frames or packets that are corrupt or do not decode: the file is left out.
MOST_DAMAGED = 0.01
# Frames of more pixels are refused (16384 x 16384): a few damaged bytes may ask for any size.
_MOST_PIXELS = 1 << 28

# Of frames whose channels lie apart PyAV finds no more: it reads behind the list of the others.
_MOST_CHANNELS = 8
# More than any packet or header needs.
_SOME_MEMORY = 1 << 26
# Where the data of a JPEG picture begin.
_START_OF_SCAN = b"\xff\xda"

Kind = Literal["video", "audio"]


@contextmanager
def opened(source: Source, kind: Kind, direct: bool = False) -> Iterator[Reader]:
    """The reader of a file's video or sound; Unusable where there is none, or where anything below
    raises what FFmpeg raises.

    direct: look for another codec than the header names in the first packet alone. FFmpeg looks for
    DTS among up to a megabyte of the samples of every WAV file, which takes longer than to read a
    short one.
    """
    options = {"max_probe_packets": "1"} if direct else {}
    try:
        with _asked_by_the_file():
            opening = av.open(source.url, metadata_errors="replace", options=options)
        with opening as container:
            yield Reader(container, _choose(container, kind))
    except MemoryError:  # also FFmpeg's: of this moment, not of the file
        raise
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
        raise Unusable(f"does not decode ({reason_of(error)})") from error


@contextmanager
def _asked_by_the_file() -> Iterator[None]:
    """Around what reads a file's structure: of a length that is damaged FFmpeg says the same as
    where memory runs out."""
    try:
        yield
    except MemoryError as error:
        bytearray(_SOME_MEMORY)  # raises it again where there is none
        raise Unusable("does not decode (a length in it asks for too much memory)") from error


def _choose(container: InputContainer, kind: Kind) -> Any:
    """Of several streams the one that the file marks as default, then the one of most pixels or
    channels, then the first: what FFmpeg's own program takes. Never an attached picture."""
    streams = [s for s in getattr(container.streams, kind) if not _is_a_picture(s)]
    if not streams:
        what = "video" if kind == "video" else "sound"
        raise Unusable(f"has no {what} stream")
    known = [s for s in streams if s.codec_context is not None]
    if not known:
        raise Unusable("is of a codec that FFmpeg does not know")
    stream = max(known, key=lambda s: (bool(s.disposition & Disposition.default), _extent(s)))
    return stream


def _is_a_picture(stream: Any) -> bool:
    return bool(stream.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails))


def _extent(stream: Any) -> int:
    context = stream.codec_context
    return context.width * context.height if stream.type == "video" else context.channels


def reason_of(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


# A packet (None: the end of the file, where the decoder gives what it held back), the frames that
# came when it was decoded, and the error where it does not decode.
Step = tuple["av.Packet | None", list[Any], "Exception | None"]


class Reader:
    """One opening of a file: the stream that is read, and its decoder."""

    def __init__(self, container: InputContainer, stream: Any) -> None:
        self.container, self.stream = container, stream
        for other in container.streams:
            # As FFmpeg's program does: damage in what is not read costs nothing of what is.
            if other.index != stream.index:
                other.discard = Discard.all
        self._is_vp8 = stream.codec_context.name == "vp8" and _knows_libvpx()
        self._context = self._new_context() if self._is_vp8 else stream.codec_context
        _set_up(self._context)

    def _new_context(self) -> Any:
        """FFmpeg's own decoder of VP8 leaves rows of a damaged frame as they are in memory, without
        a mark. libvpx fills them, always in the same way; undamaged frames are equal."""
        context: Any = av.CodecContext.create("libvpx", "r")
        context.extradata = self.stream.codec_context.extradata
        return context

    def steps(self) -> Iterator[Step]:
        """Every packet from where the container stands to the end, decoded."""
        for packet in self._packets():
            if packet.size:
                yield packet, *self._decode(packet)
            elif packet.dts is not None:
                # AVI has empty packets where a frame is repeated. A decoder takes one for the end.
                yield packet, [], None
        yield None, *self._decode(None)

    def decode(self, packet: av.Packet) -> list[Any]:
        """The frames that come when a packet, also of another opening of the file, is decoded."""
        return self._decode(packet)[0]

    def flush(self) -> list[Any]:
        """The frames that the decoder held back."""
        return self._decode(None)[0]

    def forget(self) -> None:
        """The decoder is as new: what comes next is made of nothing that came before."""
        if self._is_vp8:  # libvpx has nothing that FFmpeg could reset
            self._context = self._new_context()
            _set_up(self._context)
        else:
            self._context.flush_buffers()

    def packets_from(self, wanted: int) -> Iterator[av.Packet]:
        """Packets from the key packet of this time stamp on; none where seeking does not lead
        there."""
        for seconds in _EARLIER:
            try:
                self.container.seek(
                    wanted - int(seconds / self.stream.time_base), stream=self.stream
                )
            except av.error.FFmpegError:
                continue
            found = False
            for packet in self._packets():
                if not found and packet.size and packet.is_keyframe:
                    at = stamp(packet)
                    if at is not None and at > wanted:
                        break
                    found = at == wanted
                if found and packet.size:
                    yield packet
            if found:
                return

    def _packets(self) -> Iterator[av.Packet]:
        demuxed = self.container.demux(self.stream)
        while True:
            try:
                with _asked_by_the_file():
                    packet = next(demuxed)
            except (StopIteration, IndexError):
                # At the end PyAV looks for streams that it does not know: those that showed only
                # while the file was read, as in a transport stream.
                return
            yield packet

    def _decode(self, packet: av.Packet | None) -> tuple[list[Any], Exception | None]:
        is_jpeg = self._context.name == "mjpeg"
        if is_jpeg and packet is not None and _START_OF_SCAN not in bytes(packet):
            # It would come out, without a mark, as what memory held before.
            return [], ValueError("a picture without data")
        try:
            frames = self._context.decode(packet)
        except MemoryError:  # no damage: frames left out would move all numbers behind them
            raise
        except (av.error.FFmpegError, ValueError) as error:
            return [], error
        channels = max((_channels_apart(frame) for frame in frames), default=0)
        if channels > _MOST_CHANNELS:
            return [], ValueError(f"{channels} channels, {_MOST_CHANNELS} at most can be read")
        if self._is_vp8 and packet is not None:  # FFmpeg does not ask libvpx for it
            for frame in frames:
                frame.key_frame = not bytes(packet)[0] & 1
        return frames, None


def _channels_apart(frame: Any) -> int:
    is_sound = isinstance(frame, av.AudioFrame) and frame.format.is_planar
    return frame.layout.nb_channels if is_sound else 0


@cache
def _knows_libvpx() -> bool:
    return "libvpx" in av.codecs_available


def _set_up(context: Any) -> None:
    # One decoding thread a file: the loader's workers are what runs in parallel, and damaged
    # streams come out the same every time.
    context.thread_type = "NONE"
    context.thread_count = 1
    context.options = {"max_pixels": str(_MOST_PIXELS)}
    if context.name == "mjpeg":
        # Else it shows, without a mark, what its memory held before where a picture breaks off.
        context.options |= {"err_detect": "explode"}


def stamp(packet: av.Packet) -> int | None:
    """By which a packet is found again."""
    return packet.dts if packet.pts is None else packet.pts


# Seconds before a packet to which its reader seeks in turn: some demuxers land behind it.
_EARLIER = (0, 1, 10)
