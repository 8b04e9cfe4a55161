"""Videos as DAVIS lays them out: a folder of frames for each, and one of indexed PNG with the same
names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL.Image

from smnm_kernels.errors import Unusable, UsageError, printable
from smnm_kernels.train.data.image import read_pixels
from smnm_kernels.train.data.source import Source

FRAMES, ANNOTATIONS, SETS = "JPEGImages", "Annotations", "ImageSets"
_FRAME_SUFFIXES = (".jpg", ".jpeg", ".png")
_RESOLUTION = "480p"  # DAVIS's usual one, where there are several
VOID = 255  # of an annotation: belongs to nothing and is not scored


@dataclass(frozen=True)
class MaskedVideo:
    """The annotated frames of one video, in the order of their names."""

    name: str
    frames: tuple[Path, ...]
    masks: tuple[Path, ...]  # of the same frames
    unannotated: int  # frames without a mask, which are not used

    def read_frame(self, number: int) -> np.ndarray:
        """uint8 [h, w, 3]; raises Unusable, which names the file."""
        path = self.frames[number]
        try:
            return read_pixels(Source(path))
        except Unusable as error:
            raise Unusable(f"frame {printable(path.name)} {error}") from error

    def read_mask(self, number: int) -> np.ndarray:
        """uint8 [h, w] of object ids, 0 background, 255 void; raises Unusable."""
        path = self.masks[number]
        try:
            with PIL.Image.open(path) as picture:
                if picture.mode not in ("P", "L", "1"):
                    raise Unusable(
                        f"annotation {printable(path.name)} is a picture of mode {picture.mode}; "
                        "an indexed PNG is needed"
                    )
                ids = np.array(picture, dtype=np.uint8)
                return ids * 255 if picture.mode == "1" else ids
        except (OSError, ValueError, SyntaxError) as error:
            raise Unusable(f"annotation {printable(path.name)} does not decode") from error

    def is_black_and_white(self) -> bool:
        """Whether no mask has an id beside 0 and 255, which is then an object, as in DAVIS 2016;
        raises Unusable."""
        for number in range(len(self.masks)):
            if not np.isin(self.read_mask(number), (0, VOID)).all():
                return False
        return True


def find_videos(data: Path, chosen: str | None = None) -> tuple[list[MaskedVideo], dict[str, str]]:
    """The videos of a folder of DAVIS's layout, by name, and those of no use with the reason.

    JPEGImages/[RESOLUTION/]VIDEO/*.jpg, Annotations/[RESOLUTION/]VIDEO/*.png. Of several
    resolutions 480p is taken. chosen: a list of videos in ImageSets, such as 2017/val; None for
    all. Raises UsageError where the layout or the list is another.
    """
    shown = printable(str(data))
    for needed in (FRAMES, ANNOTATIONS):
        if not (data / needed).is_dir():
            raise UsageError(
                f"DATA {shown}: has no folder {needed}; DAVIS's layout is needed, "
                f"{FRAMES}/[480p/]VIDEO/*.jpg and {ANNOTATIONS}/[480p/]VIDEO/*.png"
            )
    frames = _resolution(data / FRAMES)
    masks = data / ANNOTATIONS / frames.relative_to(data / FRAMES)
    if not masks.is_dir():
        raise UsageError(f"DATA {shown}: {FRAMES} has {frames.name} and {ANNOTATIONS} has not")
    there = {folder.name: folder for folder in sorted(frames.iterdir()) if folder.is_dir()}
    names = list(there) if chosen is None else _named_in(data, chosen, there)
    if not names:
        raise UsageError(f"DATA {shown}: no folder of a video is in {printable(str(frames))}")
    videos, left_out = [], {}
    for name in names:
        video = _video(there[name], masks / name)
        if video.frames:
            videos.append(video)
        else:
            left_out[name] = "no frame has an annotation"
    return videos, left_out


def _resolution(folder: Path) -> Path:
    """The folder whose folders are videos."""
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    levels = [
        path for path in inside if not _frames_of(path) and any(map(Path.is_dir, path.iterdir()))
    ]
    if not levels or len(levels) < len(inside):
        return folder
    names = [path.name for path in levels]
    if _RESOLUTION in names:
        return folder / _RESOLUTION
    if len(names) > 1:
        raise UsageError(
            f"DATA: {printable(str(folder))} holds {', '.join(map(printable, names))}; there must "
            f"be one, or {_RESOLUTION} among them"
        )
    return levels[0]


def _named_in(data: Path, chosen: str, there: dict[str, Path]) -> list[str]:
    path = data / SETS / f"{chosen}.txt"
    asked = f"--set {printable(chosen)}"
    try:
        names = [line.strip() for line in path.read_text().splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        found = sorted(
            str(p.relative_to(data / SETS).with_suffix("")) for p in (data / SETS).rglob("*.txt")
        )
        raise UsageError(
            f"{asked}: {printable(str(path))} cannot be read; there are "
            f"{', '.join(map(printable, found)) or 'none'}"
        ) from error
    missing = [name for name in names if name not in there]
    if missing:
        some = ", ".join(map(printable, missing[:3]))
        raise UsageError(f"{asked}: {len(missing)} of its videos are not there ({some})")
    return list(dict.fromkeys(names))


def _frames_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _FRAME_SUFFIXES)


def _video(frames: Path, masks: Path) -> MaskedVideo:
    annotated = {path.stem: path for path in _frames_of(masks)} if masks.is_dir() else {}
    found = _frames_of(frames)
    both = [path for path in found if path.stem in annotated]
    return MaskedVideo(
        frames.name,
        tuple(both),
        tuple(annotated[path.stem] for path in both),
        len(found) - len(both),
    )


def windows(total: int, frames: int, stride: int, clips: int | None) -> list[list[int]]:
    """The frames of each clip that is looked at.

    clips: so many, evenly along the video, one alone in its middle; None: one after the other
    through all of it, the last one ending with the video. A video too short for the stride is read
    with the largest that fits; one with fewer frames than a clip has none.
    """
    if total < frames:
        return []
    stride = min(stride, (total - 1) // (frames - 1)) if frames > 1 else 1
    span = (frames - 1) * stride + 1
    room = total - span
    if clips is None:
        starts = [*range(0, room, span), room]
    else:
        starts = [room // 2] if clips == 1 else [i * room // (clips - 1) for i in range(clips)]
    return [list(range(start, start + span, stride)) for start in dict.fromkeys(starts)]
