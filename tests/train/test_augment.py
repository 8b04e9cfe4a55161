"""RandAugment and random erasing: what is drawn, and what is done to frames."""

from collections import Counter
from statistics import NormalDist

import numpy as np
import PIL.Image
import pytest
import torch
from clips import write_picture, write_video
from PIL import ImageChops

from smnm_kernels.train.data.augment import OPERATIONS, RandAugment, RandomErasing, changed
from smnm_kernels.train.data.crops import CentreCrop, ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.sample_randomness import AUGMENT, SampleRandomness
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.data.views import views_of

RANDOM = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
GREY = (128, 128, 128)


def applied(name, strength, sign=1, pixels=RANDOM):
    return changed(pixels, [OPERATIONS[name](strength, sign, GREY)])


def test_operations_are_drawn_with_timms_chances():
    augment = RandAugment(magnitude=7, layers=4)
    found = [augment.drawn(SampleRandomness(0, i, AUGMENT)) for i in range(3000)]
    counts = Counter(name for of_sample in found for name, _, _ in of_sample)
    assert set(counts) == set(OPERATIONS)
    n = sum(counts.values())
    assert n / (4 * 3000) == pytest.approx(0.5, abs=0.02)
    assert all(count / n == pytest.approx(1 / 15, abs=0.012) for count in counts.values())
    strengths = [strength for of_sample in found for _, strength, _ in of_sample]
    assert np.mean(strengths) == pytest.approx(7, abs=0.03)
    assert np.std(strengths) == pytest.approx(0.5, abs=0.03)
    assert np.mean([sign for of_sample in found for _, _, sign in of_sample]) == pytest.approx(
        0, abs=0.05
    )


def test_strengths_are_cut():
    found = RandAugment(magnitude=9.9, layers=1, prob=1.0).drawn
    strengths = [found(SampleRandomness(0, i))[0][1] for i in range(500)]
    at_end = 1 - NormalDist(9.9, 0.5).cdf(10)
    assert max(strengths) == 10
    assert np.mean(np.array(strengths) == 10) == pytest.approx(at_end, abs=0.08)


def test_a_strength_of_zero_changes_nothing_where_it_grows_from_there():
    for name in ("rotate", "color", "contrast", "brightness", "sharpness", "solarize_add",
                 "shear_x", "shear_y", "translate_x", "translate_y"):  # fmt: skip
        assert np.array_equal(applied(name, 0), RANDOM), name
    assert np.array_equal(applied("solarize", 0), RANDOM)  # nothing is above 256


@pytest.mark.parametrize(
    ("name", "strength", "expected"),
    [
        ("invert", 0, 255 - RANDOM),
        ("posterize", 7, RANDOM & 0b11000000),  # 4 - int(2.8) bits
        ("posterize", 10, np.zeros_like(RANDOM)),
        ("solarize", 7, np.where(RANDOM < 77, RANDOM, 255 - RANDOM)),  # 256 - int(179.2)
        ("solarize_add", 7, np.where(RANDOM < 128, RANDOM + np.uint8(77), RANDOM)),
    ],
)
def test_operations_on_single_values(name, strength, expected):
    assert np.array_equal(applied(name, strength), expected)


def test_enhancements_take_their_factor_from_the_strength():
    grey = np.full((4, 4, 3), 100, dtype=np.uint8)
    assert (applied("brightness", 5, 1, grey) == 145).all()  # 1 + 0.45
    assert (applied("brightness", 5, -1, grey) == 55).all()


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_takes_every_strength(name):
    for strength in np.linspace(0, 10, 11):
        for sign in (1, -1):
            found = applied(name, strength, sign)
            assert found.shape == RANDOM.shape
            assert found.dtype == np.uint8


def test_geometry():
    wide = np.zeros((20, 40, 3), dtype=np.uint8)
    wide[:, 20:] = 255
    moved = applied("translate_x", 5, 1, wide)  # 0.45 / 2 of 40 pixels to the left
    assert (moved[:, :11] == 0).all()
    assert (moved[:, 11:31] == 255).all()
    assert (moved[:, 31:] == 128).all()
    assert (applied("translate_y", 10, -1, wide)[:9] == 128).all()
    turned = applied("rotate", 10, 1, wide)
    by_pillow = PIL.Image.fromarray(wide).rotate(30, PIL.Image.Resampling.BICUBIC, fillcolor=GREY)
    assert ImageChops.difference(PIL.Image.fromarray(turned), by_pillow).getbbox() is None


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    write_video(path, n=70)
    return Source(path)


CROP = ResizedCrop(area=(1.0, 1.0), aspect=(1.0, 1.0))


def test_all_frames_of_a_clip_are_changed_in_the_same_way(video):
    plain = Video(frames=16, size=64, stride=2, crop=CROP, flip=False)
    augmented = Video(16, 64, 2, CROP, False, augment=RandAugment(7, 4))
    record = plain.probe(video)
    differing = 0
    for index in range(6):
        randomness = SampleRandomness(0, index)
        before = plain.read(video, record, randomness)["video"]
        after = augmented.read(video, record, randomness)["video"]
        changes = augmented.augment.changes(randomness.apart(AUGMENT))
        for frame in range(16):
            pixels = before[:, frame].permute(1, 2, 0).contiguous().numpy()
            expected = torch.from_numpy(changed(pixels, changes)).permute(2, 0, 1)
            assert torch.equal(after[:, frame], expected)  # the crop is the whole frame
        assert torch.equal(after, augmented.read(video, record, randomness)["video"])
        differing += not torch.equal(before, after)
    assert differing >= 4


def test_evaluation_neither_augments_nor_erases(video):
    plain = Video(16, 64, 2, CROP, True)
    augmented = Video(16, 64, 2, CROP, True, augment=RandAugment(7, 4), erase=RandomErasing(1.0))
    record = plain.probe(video)
    for view in views_of(2, 1):
        assert torch.equal(
            plain.read_fixed(video, record, view)["video"],
            augmented.read_fixed(video, record, view)["video"],
        )


def test_without_chance_training_sees_what_evaluation_sees(video):
    clip = Video(16, 64, 2, CentreCrop(), False, sampling="segments")
    record = clip.probe(video)
    part = clip.crop.part(48, 90, 64, np.zeros(0))
    assert (part.y, part.x, part.height, part.width) == (0, 21, 48, 48)
    assert clip.read(video, record, SampleRandomness(0, 0))["video"].shape == (3, 16, 64, 64)
    frames = Video(16, 64, 4, CentreCrop(), False)  # 61 of 70 frames: the start alone is chance
    starts = {
        tuple(frames.read(video, record, SampleRandomness(0, i))["video"][0, :, -4, -4].tolist())
        for i in range(40)
    }
    middle = frames.read_fixed(video, record, views_of()[0])["video"][0, :, -4, -4]
    assert 1 < len(starts) <= 10
    assert tuple(middle.tolist()) in starts


def test_pictures_are_augmented_after_the_crop(tmp_path):
    write_picture(tmp_path / "a.png")
    source = Source(tmp_path / "a.png")
    plain = Image(32, ResizedCrop((0.3, 0.6)), flip=True)
    augmented = Image(32, ResizedCrop((0.3, 0.6)), flip=True, augment=RandAugment(9, 2))
    for index in range(4):
        randomness = SampleRandomness(0, index)
        before = plain.read(source, {}, randomness)["image"][:, 0].permute(1, 2, 0)
        changes = augmented.augment.changes(randomness.apart(AUGMENT))
        expected = changed(before.contiguous().numpy(), changes)
        after = augmented.read(source, {}, randomness)["image"]
        assert after.shape == (3, 1, 32, 32)
        assert np.array_equal(after[:, 0].permute(1, 2, 0), expected)


def test_erasing_puts_new_noise_into_the_same_box_of_every_frame():
    erase = RandomErasing(1.0)
    clip = torch.full((3, 4, 64, 64), 200, dtype=torch.uint8)
    randomness = SampleRandomness(0, 1)
    erased = erase(clip.clone(), randomness)
    y, x, h, w = erase.box(randomness.uniforms(erase.n_uniforms), 64, 64)
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[y : y + h, x : x + w] = False
    assert (erased[..., outside] == 200).all()
    noise = erased[:, :, y : y + h, x : x + w].double() / 255
    assert not torch.equal(noise[:, 0], noise[:, 1])
    assert torch.allclose(
        noise.mean((1, 2, 3)), torch.tensor([0.485, 0.456, 0.406]).double(), atol=0.03
    )
    assert torch.equal(erased, erase(clip.clone(), randomness))


def test_boxes_have_the_shares_and_aspects_that_were_asked_for():
    erase = RandomErasing(0.25)
    boxes = [
        erase.box(SampleRandomness(0, i).uniforms(erase.n_uniforms), 100, 100) for i in range(4000)
    ]
    found = np.array([box for box in boxes if box])
    assert len(found) / 4000 == pytest.approx(0.25, abs=0.03)
    y, x, h, w = found.T
    assert ((y + h <= 100) & (x + w <= 100)).all()
    area = h * w / 1e4
    assert 0.018 < area.min() < 0.03
    assert 0.3 < area.max() < 0.34
    assert 0.27 < (h / w).min() < 0.4
    assert 2.6 < (h / w).max() < 3.7
    assert abs(np.log(h / w).mean()) < 0.1


def test_one_frame_of_each_segment(video):
    clip = Video(16, 64, 2, CROP, False, sampling="segments")
    record = clip.probe(video)  # 70 frames: segments of 4
    for index in range(20):
        u = SampleRandomness(0, index).uniforms(16)
        numbers = clip._one_of_each_segment(record, u)
        assert all(4 * i <= number < 4 * (i + 1) for i, number in enumerate(numbers))
    read = clip.read(video, record, SampleRandomness(0, 1))["video"]
    numbers = clip._one_of_each_segment(record, SampleRandomness(0, 1).uniforms(16))
    # Frame i has brightness 2 i.
    assert read[0, :, -4, -4].tolist() == pytest.approx([2 * n for n in numbers], abs=4)


def test_the_places_in_segments_that_an_evaluation_looks_at(video):
    clip = Video(16, 64, 2, CROP, False, sampling="segments")
    record = clip.probe(video)
    tick = 70 / 16
    for views, shares in ((views_of(1), [0.5]), (views_of(2), [0, 0.5])):
        for view, share in zip(views, shares, strict=True):
            read = clip.read_fixed(video, record, view)["video"]
            expected = [2 * int(tick * (i + share)) for i in range(16)]
            assert read[0, :, -4, -4].tolist() == pytest.approx(expected, abs=4)
