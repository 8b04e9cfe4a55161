"""Fixed views: the same parts of a file every time, and passes over all of them."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from clips import write_picture, write_sound, write_video

from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.crops import CentreCrop, MultiScaleCrop, ResizedCrop, square
from smnm_kernels.train.data.decoding import decode
from smnm_kernels.train.data.modality import FixedView, evenly
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.views import OnePass, Views, views_of
from smnm_kernels.train.tasks.presets import PRESETS


def test_places_are_even_and_one_alone_is_in_the_middle():
    assert [evenly(i, 5, 8) for i in range(5)] == [0, 2, 4, 6, 8]
    assert evenly(0, 1, 9) == 4
    wide = [square(40, 100, i, 3) for i in range(3)]
    assert [(p.y, p.x, p.height, p.width) for p in wide] == [
        (0, 0, 40, 40),
        (0, 30, 40, 40),
        (0, 60, 40, 40),
    ]
    tall = square(100, 40, 2, 3, share=0.5)
    assert (tall.y, tall.x, tall.height, tall.width) == (80, 10, 20, 20)


def test_a_clip_is_that_of_the_whole_video(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, n=60, size=(96, 64))
    clip = PRESETS["video"]["tiny"].clip
    source, whole = Source(path), decode(path)
    record = {"name": "clip.mp4", **clip.probe(source)}
    span = (clip.frames - 1) * clip.stride + 1
    for number, start in enumerate((0, (60 - span) // 2, 60 - span)):
        found = clip.read_fixed(source, record, FixedView(number, 3, 1, 2))["video"]
        frames = whole[start : start + span : clip.stride, :, 32:]
        part = square(64, 64)
        expected = torch.stack([part.of(frame, clip.size) for frame in frames], dim=1)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_fixed_views_of_video_are_resized_as_its_crops_are(interpolation, tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, n=20, size=(96, 64))
    clip = replace(PRESETS["video"]["tiny"].clip, size=48, stride=1)
    clip = replace(clip, crop=ResizedCrop((0.5, 1.0), interpolation=interpolation))
    source = Source(path)
    found = clip.read_fixed(source, clip.probe(source), FixedView(0, 3, 1, 2))["video"]
    part, frames = square(64, 64, interpolation=interpolation), decode(path)[:16, :, 32:]
    expected = torch.stack([part.of(frame, 48) for frame in frames], dim=1)
    assert torch.equal(found, expected)


def test_of_what_a_run_keeps_its_interpolation_is_taken():
    for modality, name, crop in (
        ("audio-video", "cav-mae", CentreCrop(interpolation="bicubic")),
        ("audio-video", "tiny", CentreCrop()),
    ):
        clip = PRESETS[modality][name].clip
        kept = json.loads(json.dumps(asdict(clip)))
        assert AudioVideo.of_fixed_views(kept).video.fixed_crop == clip.video.fixed_crop == crop
    whole = replace(clip, video=replace(clip.video, crop=MultiScaleCrop()))
    kept = json.loads(json.dumps(asdict(whole)))
    assert AudioVideo.of_fixed_views(kept).video.fixed_crop == CentreCrop()


def test_excerpts_lie_at_both_ends_and_in_the_middle(tmp_path):
    path = tmp_path / "sound.wav"
    write_sound(path, 9.0)
    clip = PRESETS["audio"]["tiny"].clip
    source = Source(path)
    record = {"name": "sound.wav", **clip.probe(source)}
    first, middle, last = (
        clip.read_fixed(source, record, FixedView(i, 3))["audio"] for i in range(3)
    )
    assert torch.equal(middle, clip.read_fixed(source, record, FixedView())["audio"])
    assert not torch.equal(first, middle)
    assert not torch.equal(middle, last)


def test_pictures_are_cut_to_seven_eighths(tmp_path):
    write_picture(tmp_path / "a.png", 0)
    clip = PRESETS["image"]["tiny"].clip
    source = Source(tmp_path / "a.png")
    found = clip.read_fixed(source, {"name": "a.png", **clip.probe(source)}, FixedView())["image"]
    pixels = decode(tmp_path / "a.png")
    part = square(*pixels.shape[:2], share=0.875, interpolation="bicubic")
    assert np.array_equal(found[:, 0], part.of(pixels, clip.size))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_reads_each_view_once_and_leaves_out_what_cannot_be_read(tmp_path, workers):
    for i in range(5):
        write_picture(tmp_path / f"{i}.png", i)
    clip = PRESETS["image"]["tiny"].clip
    listing = scan(tmp_path, clip, None, 1)
    (tmp_path / "1.png").write_bytes(b"gone")
    views = Views(tmp_path, listing.usable, clip, [0, 1, 3, 4], views_of(1, 2))
    seen, failed = [], []
    for rank in range(2):
        numbers = OnePass(len(views), 2, rank, world=2)
        for batch in Batches(views, numbers, workers):
            seen += zip(batch.file_numbers.tolist(), batch.sample_ids.tolist(), strict=True)
            failed += [failure.name for failure in batch.failures]
            assert all(len(x) == len(batch) for x in batch.inputs.values())
    assert sorted(seen) == [(0, 0), (0, 1), (3, 4), (3, 5), (4, 6), (4, 7)]
    assert failed == ["1.png", "1.png"]
