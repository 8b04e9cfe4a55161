"""Media files as FFmpeg (PyAV) sees them: which stream is read, and its packets decoded one by one.

FFmpeg goes on after a packet that does not decode, and so does everything here: what comes out is
what `ffmpeg -threads 1` gives. How much damage a file may have is decided by who reads it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import av
from av.container import InputContainer
from av.stream import Disposition

from smnm_kernels.errors import Unusable

from .source import Source

# More than this share of frames or packets that are corrupt or do not decode: the file is left out.
MOST_DAMAGED = 0.01
# Frames of more pixels are refused (16384 x 16384): a few damaged bytes may ask for any size.
_MOST_PIXELS = 1 << 28

Kind = Literal["video", "audio"]


@contextmanager
def opened(source: Source, kind: Kind) -> Iterator[tuple[InputContainer, Any]]:
    """(container, stream) of the stream that is read; Unusable where there is none, or where
    anything below raises what FFmpeg raises."""
    try:
        with av.open(source.url, metadata_errors="replace") as container:
            yield container, _choose(container, kind)
    except MemoryError:  # also FFmpeg's: of this moment, not of the file
        raise
    except (av.error.FFmpegError, OSError, ValueError, OverflowError) as error:
        raise Unusable(f"does not decode ({reason_of(error)})") from error


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
    # One decoding thread a file: the loader's workers are what runs in parallel, and damaged
    # streams come out the same every time.
    stream.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(_MOST_PIXELS)}
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


def steps(container: InputContainer, stream: Any) -> Iterator[Step]:
    """Every packet from where the container stands to the end, decoded."""
    for packet in _packets(container, stream):
        if packet.size:
            yield packet, *_decode(stream.codec_context, packet)
        elif packet.dts is not None:
            # AVI has empty packets where a frame is repeated. A decoder takes one for the end.
            yield packet, [], None
    yield None, *_decode(stream.codec_context, None)


def _packets(container: InputContainer, stream: Any) -> Iterator[av.Packet]:
    demuxed = container.demux(stream)
    while True:
        try:
            packet = next(demuxed)
        except (StopIteration, IndexError):
            # At the end PyAV looks for streams that it does not know: those that showed only while
            # the file was read, as in a transport stream.
            return
        yield packet


def _decode(context: Any, packet: av.Packet | None) -> tuple[list[Any], Exception | None]:
    try:
        return context.decode(packet), None
    except MemoryError:  # no damage: frames that are left out would move all numbers behind them
        raise
    except (av.error.FFmpegError, ValueError) as error:
        return [], error


def decode_packet(stream: Any, packet: av.Packet) -> list[Any]:
    """The frames that come when a packet, also of another opening of the file, is decoded."""
    return _decode(stream.codec_context, packet)[0]


def flush(stream: Any) -> list[Any]:
    """The frames that the decoder held back."""
    return _decode(stream.codec_context, None)[0]


def stamp(packet: av.Packet) -> int | None:
    """By which a packet is found again."""
    return packet.dts if packet.pts is None else packet.pts


# Seconds before a packet to which its reader seeks in turn: some demuxers land behind it.
_EARLIER = (0, 1, 10)


def packets_from(container: InputContainer, stream: Any, wanted: int) -> Iterator[av.Packet]:
    """Packets from the key packet of this time stamp on; none where seeking does not lead there."""
    for seconds in _EARLIER:
        try:
            container.seek(wanted - int(seconds / stream.time_base), stream=stream)
        except av.error.FFmpegError:
            continue
        found = False
        for packet in _packets(container, stream):
            if not found and packet.size and packet.is_keyframe:
                at = stamp(packet)
                if at is not None and at > wanted:
                    break
                found = at == wanted
            if found and packet.size:
                yield packet
        if found:
            return
