"""`smnm segment`: are the clusters of a frozen encoder's features the objects of a video?"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tyro.conf import Positional, arg

from smnm_kernels.errors import Unusable, UsageError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.crops import resize
from smnm_kernels.train.data.modality import Normalisation
from smnm_kernels.train.data.records import fingerprint
from smnm_kernels.train.run.folder import RunFolder
from smnm_kernels.train.run.machine import autocast_dtype, find_device
from smnm_kernels.train.run.options import Count, Precision, check_apart, need_at_least

from .options import PresetName
from .presets import PRESETS
from .probing.frozen import Frozen, find_frozen
from .probing.layers import tokens_of_layers
from .segmenting.clusters import TIMES, Segmented, Way, reduced, segment_clip
from .segmenting.davis import VOID, MaskedVideo, find_videos, windows
from .segmenting.pictures import Strips, save_gif, sheet, under
from .segmenting.report import About, Found, write_results

_PICTURE, _MOVIES = "overlays.png", "overlays"
# What decides no number.
_NOT_SETTINGS = ("data", "out", "encoder", "against", "pictures", "device")


@dataclass(kw_only=True)
class Segment:
    """Measure how well clusters of an encoder's features are the objects of annotated videos.

    Unsupervised video object segmentation as in the structured-noise paper: of each clip the
    features of all tubelets are clustered by k-means, into as many clusters as the clip has ids
    (clustering) and into three times as many (overclustering), clusters are matched to ids, and the
    mean intersection over union is reported.
    """

    data: Annotated[Positional[Path], arg(metavar="DATA")]
    """Folder in DAVIS's layout: JPEGImages/[480p/]VIDEO/*.jpg and Annotations/[480p/]VIDEO/*.png,
    indexed PNG in which 0 is background and 255 counts as nothing."""
    encoder: str
    """RUN, its encoder.safetensors, an encoder in another known format, or none (untrained)."""
    out: Path
    """Folder for results.json, videos.csv and pictures."""
    against: tuple[str, ...] = ()
    """Further encoders on the same clips, with intervals of the differences."""
    frames: Count = None
    """Of a clip; the paper has 16 for DAVIS and 4 for YouTube-VOS. Default: the encoder's."""
    size: Count = None
    """Pixels of the side to which frames are brought. Default: the encoder's."""
    stride: int = 1
    """Take every N-th annotated frame; shorter videos get the largest stride that fits."""
    clips: str = "1"
    """Clips of a video: N evenly, one alone in the middle; or all, one behind the other."""
    grid: int = 28
    """Side of the grid to which features and masks are brought."""
    set: str | None = None
    """List of videos in ImageSets, such as 2017/val. Default: all videos."""
    background: bool = True
    """Count the background as one of the ids whose mean is reported; --no-background leaves it out
    of the mean (it is clustered and matched in any case)."""
    layer: Count = None
    """Features after block N, 0 is the embedding. Default: the last, after the final norm."""
    pca: Count = None
    """Cluster the first N principal components of a clip's standardised features, as Time-Tuning's
    code does with 50. Default: the features as they are."""
    preset: PresetName = "tiny"
    """Architecture of an encoder none, where no other encoder is given."""
    seed: int = 0
    """Of k-means' starts and of the weights of none."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    precision: Precision = "auto"
    """Of the encoder's matrix products. auto is bfloat16 on CUDA and float32 on the CPU."""
    pictures: int = 6
    """So many videos are shown in overlays.png and as GIFs in overlays/."""

    def __post_init__(self) -> None:
        self.data, self.out = Path(self.data), Path(self.out)


class Clip(NamedTuple):
    """What is clustered: frames uint8 [T, H, W, 3] as they are, and ids uint8 [T, grid, grid]."""

    frames: np.ndarray
    truth: np.ndarray
    digest: str  # of frames and masks as they were read


def segment(options: Segment) -> int:
    """Returns 0. Raises UsageError, before any work, where options or data do not allow it."""
    clips = check(options)
    device = find_device(options.device)
    overrides = {"frames": options.frames, "size": options.size}
    encoders = _encoders(options, overrides)
    videos, left_out = find_videos(options.data, options.set)
    with RunFolder.of_results(options.out) as folder:  # locked until this returns
        for video in videos:
            if video.unannotated:
                print(
                    f"{printable(video.name)}: {video.unannotated} frames have no annotation and "
                    "are not used"
                )
        found: list[Found] = []
        pictured: list[tuple[str, Strips]] = []
        looked_at: list[dict[str, str]] = []
        with bar("segmenting", unit=" videos", over=videos) as shown:
            for video in shown:
                try:
                    read = _read(video, encoders[0], options, clips)
                except Unusable as error:
                    left_out[video.name] = str(error)
                    continue
                looked_at += [{"name": video.name, "digest": clip.digest} for clip in read]
                results = [_segmented(frozen, read, options, device) for frozen in encoders]
                found.append(Found(video.name, results))
                if len(pictured) < options.pictures:
                    pictured.append((video.name, _strips(read[0], results[0])))
        for name, why in left_out.items():
            print(f"left out {printable(name)}: {printable(why)}")
        if not found:
            raise UsageError(f"DATA {printable(str(options.data))}: no video is of use, see above")
        settings = {k: v for k, v in asdict(options).items() if k not in _NOT_SETTINGS}
        settings["device"] = device.type
        about = About(str(options.data.resolve()), fingerprint(looked_at), settings, left_out)
        write_results(folder.path, about, encoders, found, options.background, options.seed)
        _draw(folder.path, pictured)
        return 0


def check(options: Segment) -> int | None:
    """Refuse values outside their range, before any work. Returns the number of clips of a video,
    None for all."""
    for name in ("frames", "size", "stride", "grid", "pca"):
        need_at_least(options, name, 1)
    for name in ("layer", "pictures", "seed"):
        need_at_least(options, name, 0)
    check_apart(options.out, options.data)
    if options.grid > 512:
        raise UsageError(f"--grid must be at most 512, got {options.grid}")
    if options.preset not in PRESETS["video"]:
        raise UsageError(f"--preset {options.preset}: video has {', '.join(PRESETS['video'])}")
    if options.clips != "all" and not (options.clips.isdecimal() and int(options.clips) > 0):
        raise UsageError(f"--clips must be a number of at least 1, or all, got {options.clips!r}")
    return None if options.clips == "all" else int(options.clips)


def _encoders(options: Segment, overrides: dict[str, Any]) -> list[Frozen]:
    given = [options.encoder, *options.against]
    preset = PRESETS["video"][options.preset]
    encoders = find_frozen(given, "video", preset, options.seed, overrides)
    for frozen in encoders:
        depth = len(frozen.encoder.blocks)
        if options.layer is not None and options.layer > depth:
            raise UsageError(
                f"--layer {options.layer}: {printable(frozen.name)} has {depth} blocks"
            )
        ours, theirs = encoders[0].clip.frames, frozen.clip.frames  # type: ignore[attr-defined]
        if ours != theirs:
            raise UsageError(
                f"--against {printable(frozen.name)}: takes {theirs} frames where "
                f"{printable(encoders[0].name)} takes {ours}; --frames makes them equal"
            )
    return encoders


def _read(video: MaskedVideo, frozen: Frozen, options: Segment, clips: int | None) -> list[Clip]:
    """The clips of a video; raises Unusable, which says why there is none."""
    n_frames = frozen.clip.frames  # type: ignore[attr-defined]
    total = len(video.frames)
    if total < n_frames:
        raise Unusable(f"annotated frames: {total}, needed: {n_frames}")
    found = []
    for places in windows(total, n_frames, options.stride, clips):
        frames: list[np.ndarray] = []
        masks: list[np.ndarray] = []
        for place in places:
            frame, mask = video.read_frame(place), video.read_mask(place)
            if frame.shape[:2] != mask.shape or frame.shape != (frames or [frame])[0].shape:
                name = printable(video.frames[place].name)
                raise Unusable(
                    f"frame {name} is {frame.shape[1]}x{frame.shape[0]}, its annotation "
                    f"{mask.shape[1]}x{mask.shape[0]}, the first frame "
                    f"{(frames or [frame])[0].shape[1]}x{(frames or [frame])[0].shape[0]}"
                )
            frames.append(frame)
            masks.append(mask)
        truth = np.stack([_nearest(mask, options.grid) for mask in masks])
        if set(np.unique(np.stack(masks))) <= {0, VOID} and video.is_black_and_white():
            truth[truth == VOID] = 1
        if (truth == 0).all() or not (truth != VOID).any() or not _has_object(truth):
            continue
        digest = hashlib.blake2b(digest_size=16)
        for pixels in (*frames, *masks):
            digest.update(f"{pixels.shape}".encode() + pixels.tobytes())
        found.append(Clip(np.stack(frames), truth, digest.hexdigest()))
    if not found:
        raise Unusable("no object is annotated, or none is large enough for the grid")
    return found


def _has_object(truth: np.ndarray) -> bool:
    return bool(((truth != 0) & (truth != VOID)).any())


def _nearest(mask: np.ndarray, side: int) -> np.ndarray:
    """[h, w] -> [side, side]: what lies at the middle of each cell."""
    rows, columns = ((2 * np.arange(side) + 1) * n // (2 * side) for n in mask.shape)
    return mask[rows][:, columns]


@torch.no_grad()
def clip_features(
    frozen: Frozen,
    frames: np.ndarray,
    grid: int,
    layer: int | None,
    device: torch.device,
    dtype: torch.dtype | None,
) -> np.ndarray:
    """uint8 [T, H, W, 3] -> float32 [t, grid, grid, dim]: what the encoder gives for each tubelet,
    brought to the grid bilinearly. Frames are brought to the encoder's size, whatever their shape.
    """
    encoder = frozen.encoder.to(device)
    size = frozen.input.size[-1]
    raw = torch.stack([resize(frame, size) for frame in frames], dim=1)[None].to(device)
    depth = len(encoder.blocks)
    layer = depth if layer is None else layer
    with torch.autocast(device.type, dtype, enabled=dtype is not None):
        x = Normalisation(frozen.input, device)(raw)
        tokens = tokens_of_layers(encoder, x, None, [layer])[layer][:, encoder.class_tokens :]
    t, h, w = encoder.grid
    maps = tokens.float().view(t, h, w, -1).permute(0, 3, 1, 2)
    large: Tensor = F.interpolate(maps, (grid, grid), mode="bilinear", align_corners=False)
    return large.permute(0, 2, 3, 1).cpu().numpy()


def _segmented(
    frozen: Frozen, clips: Sequence[Clip], options: Segment, device: torch.device
) -> list[dict[Way, Segmented]]:
    """Of each clip both ways."""
    dtype = autocast_dtype(options.precision, device)
    found = []
    for clip in clips:
        points = clip_features(frozen, clip.frames, options.grid, options.layer, device, dtype)
        if options.pca is not None:
            shape = points.shape
            flat = reduced(points.reshape(-1, shape[-1]), options.pca, options.seed)
            points = flat.reshape(*shape[:-1], -1)
        found.append({way: segment_clip(points, clip.truth, way, options.seed) for way in TIMES})
    return found


def _strips(clip: Clip, results: Sequence[dict[Way, Segmented]]) -> Strips:
    """What is shown of a video: its first clip."""
    small = np.stack([resize(frame, 168).permute(1, 2, 0).numpy() for frame in clip.frames])
    strips = [("frames", small), ("annotation", under(small, clip.truth))]
    for way, one in results[0].items():
        strips.append((way, under(small, one.predicted)))
    return strips


def _draw(out: Path, pictured: Sequence[tuple[str, Strips]]) -> None:
    for path in (out / _PICTURE, *(out / _MOVIES).glob("*.gif")):  # of an earlier command
        path.unlink(missing_ok=True)
    if not pictured:
        return
    with replacing(out / _PICTURE) as file:
        sheet([(printable(name), strips) for name, strips in pictured]).save(file, format="PNG")
    (out / _MOVIES).mkdir(exist_ok=True)
    for name, strips in pictured:
        save_gif(out / _MOVIES / f"{name}.gif", strips)
    print(f"pictures: {out / _PICTURE}, {out / _MOVIES}/", flush=True)
