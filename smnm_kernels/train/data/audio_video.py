"""Files with picture and sound: which are looked at, and frames and spectrogram of one moment.

What is one moment the file's time stamps say (`times`): streams may begin at different times, and
frames may follow each other unevenly. Picture and sound of a sample belong together within a hop of
the spectrogram.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from smnm_kernels.errors import Unusable

from . import frames as frames_of_files
from . import media, sound
from .audio import MIN_SECONDS, Audio
from .crops import CentreCrop, interpolation_of
from .modality import FixedView, InputFormat, Record, evenly
from .sample_randomness import SOUND, SampleRandomness
from .source import Source
from .suffixes import VIDEO as SUFFIXES
from .times import Times
from .video import Video


@dataclass(frozen=True)
class Moment:
    """Which part of a file is a sample."""

    begin: float  # seconds, of the sound's window
    numbers: list[int]  # of frames, rising; one that is shown for long may come several times

    def of_one(self, place: int) -> Moment:
        return Moment(self.begin, self.numbers[place : place + 1])


@dataclass(frozen=True)
class AudioVideo:
    """Frames and the log-mel spectrogram of the same moment of a file.

    spread: None takes a clip of `video.frames` frames, `video.stride` of the file's (mean) frames
        apart, and as window of the sound what lies around it: the clip in its middle, or nearer to
        one end where the file ends (our choice). A clip longer than the window is read with less
        between its frames.
        A number n takes a window of the sound and n frames at its beginning and every n-th of it
        after that. All of them where `video.frames` is n, so that frames and spectrogram are of the
        same seconds throughout. Where it is 1, one of them: any in training, number n // 2 for
        evaluation, or where several clips are asked for number k of n evenly (CAV-MAE, n = 10).

    What the file has of both picture and sound is used. Where that is shorter than the window, all
    of it comes and the spectrogram is padded at its end. Where a file shows too few pictures, one
    comes several times.
    """

    video: Video
    audio: Audio
    spread: int | None = None

    name = "audio-video"
    suffixes = SUFFIXES

    def __post_init__(self) -> None:
        if self.spread is not None and self.video.frames not in (1, self.spread):
            raise ValueError(
                f"of {self.spread} frames that are spread over the sound one or all are read, "
                f"not {self.video.frames}"
            )
        if self.video.sampling is not None:
            raise ValueError(f"video.sampling must be None, got {self.video.sampling!r}")

    @classmethod
    def of_fixed_views(cls, kept: Mapping[str, Any]) -> AudioVideo:
        """From what a run keeps of its own (`asdict`), to read fixed views alone: what chance does
        in training is left out."""
        crop = CentreCrop(interpolation=interpolation_of(kept["video"]["crop"]))
        unchanged = {"crop": crop, "flip": False, "augment": None, "erase": None}
        video, audio = Video(**{**kept["video"], **unchanged}), Audio(**kept["audio"])
        return cls(video, audio, kept["spread"])

    @property
    def inputs(self) -> dict[str, InputFormat]:
        return {"video": self.video.inputs["video"], "audio": self.audio.inputs["audio"]}

    def sized(self, size: tuple[int, int, int, int]) -> AudioVideo:
        raise ValueError("a sample has two inputs, video and audio")

    @property
    def least_frames(self) -> int:
        return self.video.frames if self.spread is None else 1

    @property
    def probed(self) -> dict[str, Any]:
        return {"frames": self.least_frames, "pixel_aspect": self.video.pixel_aspect}

    def probe(self, source: Source) -> dict[str, Any]:
        for kind in ("video", "audio"):
            with media.opened(source, kind):  # soon said where one is missing
                pass
        try:
            heard = sound.probe(source, MIN_SECONDS, with_times=True)
        except Unusable as error:
            raise Unusable(f"has sound that {error}") from error.__cause__
        try:
            seen = frames_of_files.probe(
                source, self.least_frames, self.video.pixel_aspect, with_times=True
            )
        except Unusable as error:
            raise Unusable(f"has video that {error}") from error.__cause__
        record = {"video": seen, "audio": heard}
        file = _File(record)
        longest = max(stretch.end - stretch.begin for stretch in file.stretches)
        if longest < MIN_SECONDS:
            what = "" if file.end - file.begin < MIN_SECONDS else " without damage"
            raise Unusable(
                f"has picture and sound at once{what} for {max(0.0, longest):.3f} s, "
                f"{MIN_SECONDS:.3f} s are needed"
            )
        return record

    def read(
        self, source: Source, record: Record, randomness: SampleRandomness
    ) -> dict[str, Tensor]:
        u = randomness.uniforms(2 + self.video.crop.n_uniforms + 1)
        file = _File(record)
        moment = self._moment(file, *_place(self._rooms(file), u[0]))
        if self._is_one_of_many:
            moment = moment.of_one(int(u[1] * len(moment.numbers)))
        numbers, again = np.unique(moment.numbers, return_inverse=True)
        clip = self.video.clip(source, record["video"], numbers.tolist(), u[2:], randomness)
        samples = self._samples(source, file, moment.begin)
        mel = self.audio.spectrogram(samples, file.rate, randomness.apart(SOUND))
        return {"video": clip[:, again].contiguous(), "audio": mel}

    def read_fixed(self, source: Source, record: Record, view: FixedView) -> dict[str, Tensor]:
        """The view's moment, as `fixed_moment` chooses it; the short side of the frames fills the
        picture."""
        moment = self.fixed_moment(record, view)
        numbers, again = np.unique(moment.numbers, return_inverse=True)
        clip = self.video.fixed_clip(source, record["video"], numbers.tolist(), view)
        file = _File(record)
        mel = self.audio.spectrogram(self._samples(source, file, moment.begin), file.rate)
        return {"video": clip[:, again].contiguous(), "audio": mel}

    def fixed_moment(self, record: Record, view: FixedView) -> Moment:
        """One that lies evenly along the stretch without damage that has most room."""
        file = _File(record)
        stretch, room = max(self._rooms(file), key=lambda found: found[1])
        microseconds = evenly(view.clip, view.clips, int(1e6 * room))
        moment = self._moment(file, stretch, stretch.begin + microseconds / 1e6)
        if not self._is_one_of_many:
            return moment
        count = len(moment.numbers)
        return moment.of_one(
            count // 2 if view.clips == 1 else evenly(view.clip, view.clips, count - 1)
        )

    @property
    def _is_one_of_many(self) -> bool:
        return self.spread is not None and self.video.frames == 1

    @property
    def _count(self) -> int:
        """Frames of a moment, of which perhaps one is read."""
        return self.spread or self.video.frames

    def _window(self, file: _File) -> float:
        """Seconds of sound in a sample."""
        return self.audio.count(file.rate) / file.rate

    def _spacing(self, file: _File) -> float:
        """Seconds from one frame to the next."""
        longest = min(self._window(file), max(s.end - s.begin for s in file.stretches))
        most = longest / self._count
        return most if self.spread else min(self.video.stride * file.seen.step, most)

    def _rooms(self, file: _File) -> list[tuple[_Stretch, float]]:
        """The stretches that are long enough for all frames, and by how many seconds they are
        longer."""
        span = self._count * self._spacing(file)
        rooms = [(stretch, stretch.end - stretch.begin - span) for stretch in file.stretches]
        return [(stretch, max(0.0, room)) for stretch, room in rooms if room > -1e-6]

    def _moment(self, file: _File, stretch: _Stretch, wanted: float) -> Moment:
        """That whose frames begin at the wanted time, or where the frame that is shown then does:
        unless it stands so long that other moments belong to it, too."""
        seen, spacing = file.seen, self._spacing(file)
        back = max(0.0, wanted - seen.of(seen.at(wanted)))
        back = back if back < min(spacing, 2 * seen.step) else 0.0
        first = wanted - back
        # A frame counts for a time that lies before its middle. So rounding decides nothing.
        half = min(spacing, seen.step) / 2
        numbers = [seen.at(first + i * spacing + half) for i in range(self._count)]
        numbers = [min(max(number, stretch.first), stretch.behind - 1) for number in numbers]
        window = self._window(file)
        if file.end - file.begin <= window:
            return Moment(file.begin, numbers)
        centred = first + (self._count * spacing - window) / 2
        # A frame that is shown already when the sound begins takes the window with it.
        earliest = min(file.begin, first)
        return Moment(max(earliest, min(centred, file.end - window)), numbers)

    def _samples(self, source: Source, file: _File, begin: float) -> np.ndarray:
        """Mono float32 at the file's own rate: those of the window that begins at this time, up to
        where picture or sound end. What is not there, such as in a pause of the sound, is 0."""
        kept, rate = file.record["audio"], file.rate
        count = min(self.audio.count(rate), round((file.end - begin) * rate))
        out = np.zeros(count, np.float32)
        pieces = kept["times"]["pieces"]
        ends = [*(piece[0] for piece in pieces[1:]), kept["samples"]]
        for (number, seconds, step), behind in zip(pieces, ends, strict=True):
            # The nearest sample comes first, also where the stream's clock is slow and half of its
            # step more than half a sample.
            nearest = round((begin - seconds) / step)
            first = number + max(0, nearest)
            at = 0 if nearest >= 0 else round((seconds - begin) * rate)
            n = min(behind - first, count - at)
            if n > 0:
                out[at : at + n] = sound.read(source, kept, first, n)
        return out

    def padded(self, record: Record) -> dict[str, tuple[int, int, int]]:
        return self.audio.padded(_File(record).as_sound())

    def remarks(self, records: Sequence[Record]) -> list[str]:
        lines = self.audio.remarks([_File(record).as_sound() for record in records])
        if self.spread is not None:
            return lines
        files = (_File(record) for record in records)
        narrow = sum(
            self._spacing(file) < 0.99 * self.video.stride * file.seen.step for file in files
        )
        if narrow:
            lines.append(
                f"{narrow} files are read with less than {self.video.stride} frames from one frame "
                "of a clip to the next, so that clips fit into them and into the sound's window"
            )
        return lines


@dataclass(frozen=True)
class _Stretch:
    """Frames without damage, while there is sound."""

    first: int
    behind: int
    begin: float  # seconds
    end: float


class _File:
    """What can be used of a file, by its record: what it has of both picture and sound."""

    def __init__(self, record: Record) -> None:
        video, audio = record["video"], record["audio"]
        self.record, self.rate = record, audio["rate"]
        self.seen = Times(video["times"], video["frames"])
        heard = Times(audio["times"], audio["samples"])
        self.begin = max(self.seen.begin, heard.begin)  # seconds
        self.end = min(self.seen.end, heard.end)
        self.stretches = []
        for first, count in frames_of_files.undamaged(video):
            begin, end = self.seen.of(first), self.seen.of(first + count)
            begin, end = max(begin, self.begin), min(end, self.end)
            self.stretches.append(_Stretch(first, first + count, begin, end))

    def as_sound(self) -> Record:
        """As the record of a recording."""
        return {"samples": round((self.end - self.begin) * self.rate), "rate": self.rate}


def _place(rooms: list[tuple[_Stretch, float]], u: float) -> tuple[_Stretch, float]:
    """A time in one of the rooms, each as likely; the first one's beginning where none has room."""
    at = u * sum(room for _, room in rooms)
    for stretch, room in rooms:
        if at < room:
            return stretch, stretch.begin + at
        at -= room
    return rooms[0][0], rooms[0][0].begin
