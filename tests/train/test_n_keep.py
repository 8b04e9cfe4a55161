"""smnm pretrain --n-keep, --frames, --size: as many visible patches for every kind of mask."""

import json
from dataclasses import replace

import pytest
import torch
from clips import pretrain as command

from smnm_kernels.errors import UsageError
from smnm_kernels.train.tasks.options import Pretrain, preset_of
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain_setup import recipe_of, set_up


def kind(**given):
    options = {"modality": "video", "data": "DATA", "out": "OUT"} | given
    setup = set_up(Pretrain(**options))
    (name,) = setup.kinds
    drawn = setup.masking(1).of_ids(torch.arange(3), {}, {})[name]
    assert drawn.visible.sum(1).tolist() == [setup.kinds[name].n_keep] * 3
    return setup.kinds[name]


def test_a_ratio_gives_kinds_other_counts_and_n_keep_gives_them_one():
    kinds = ("tube", "green2d", "green3d", "random")
    assert [kind(mask=name, mask_ratio=0.9).n_keep for name in kinds] == [24, 24, 28, 28]
    assert [kind(mask=name, n_keep=24).n_keep for name in kinds] == [24] * 4


def test_sizes_take_the_place_of_the_presets():
    assert kind(frames=8, size=64).grid == (4, 4, 4)
    assert kind(modality="audio", frames=128).grid == (1, 8, 8)


@pytest.mark.parametrize("modality", PRESETS)
def test_no_crop_takes_the_squares_of_evaluation(modality):
    cropped, whole = (
        preset_of(Pretrain(modality=modality, data="DATA", out="OUT", crop=crop)).clip
        for crop in (True, False)
    )
    if modality == "audio":
        assert whole == cropped
        return
    if modality == "audio-video":
        assert whole.audio == cropped.audio
        cropped, whole = cropped.video, whole.video
    assert whole == replace(cropped, crop=cropped.fixed_crop) != cropped


def test_of_two_inputs_each_has_its_number():
    given = {"modality": "audio-video", "data": "DATA", "out": "OUT", "video_mask": "tube"}
    options = Pretrain(**given, video_n_keep=32)
    setup = set_up(options)
    assert {name: kind.n_keep for name, kind in setup.kinds.items()} == {"video": 32, "audio": 12}
    drawn = setup.masking(1).of_ids(torch.arange(2), {}, {})["video"]
    assert drawn.visible.sum(1).tolist() == [32, 32]
    assert recipe_of(options, setup).settings["n_keep"] == {"video": 32, "audio": None}
    avt = Pretrain(**given | {"video_mask": None}, objective="avt", audio_n_keep=40)
    assert recipe_of(avt, set_up(avt)).settings["n_keep"] == 40


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"n_keep": 24, "mask_ratio": 0.9}, "--n-keep 24: and --mask-ratio; give one"),
        ({"n_keep": 0}, "--n-keep must be at least 1, got 0"),
        ({"mask": "tube", "n_keep": 25}, "--mask tube --n-keep 25 on a grid of"),
        ({"mask_options": ("n_keep=3",)}, "--n-keep sets it"),
        ({"modality": "audio-video", "n_keep": 8}, "give --video-n-keep or --audio-n-keep"),
        (
            {"modality": "audio-video", "audio_n_keep": 8, "audio_mask_ratio": 0.5},
            "--audio-n-keep 8: and --audio-mask-ratio; give one",
        ),
        (
            {"modality": "audio-video", "audio_n_keep": 80},
            "--audio-mask rbn --audio-n-keep 80 on a grid of",
        ),
        (
            {"modality": "audio-video", "audio_mask_options": ("n_keep=3",)},
            "--audio-mask-options n_keep=3: --audio-n-keep sets it",
        ),
        ({"video_n_keep": 24}, "--video-n-keep: is for audio-video; video has one input"),
        ({"size": 50}, "--preset tiny --size 50:"),
        ({"modality": "image", "frames": 8}, "--frames 8: image has no such option"),
        ({"modality": "audio", "size": 8}, "--size 8: audio has no such option"),
    ],
)
def test_wrong_counts_and_sizes_are_refused_by_name(given, words):
    with pytest.raises(UsageError, match="(?s)" + words):
        kind(**given)


def test_a_run_keeps_its_count_and_goes_on_only_with_it(videos, tmp_path, capsys):
    small = (videos, "--out", tmp_path / "run", "--mask", "tube", "--size", 32, "--steps")
    assert command(*small, 1, "--n-keep", 8) == 0
    run = json.loads((tmp_path / "run/config.json").read_text())["run"]
    assert run["n_keep"] == 8
    assert command(*small, 2, "--n-keep", 16) == 2
    assert "n_keep is 8 there, 16 was asked for" in capsys.readouterr().err
    assert command(*small, 2, "--n-keep", 8) == 0
