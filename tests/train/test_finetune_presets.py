"""Recipes of fine-tuning against what the methods' code and the paper's tables say."""

import inspect
import math
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.augment import RandAugment, RandomErasing
from smnm_kernels.train.data.augment_bands import Bands
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.crops import CentreCrop, ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.labels import Labels
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.audio_video_encoder import AudioVideoEncoder
from smnm_kernels.train.models.classifier import Classifier, HeadSettings
from smnm_kernels.train.models.joint_classifier import JointClassifier
from smnm_kernels.train.models.vit import Encoder
from smnm_kernels.train.tasks.finetune import _order
from smnm_kernels.train.tasks.finetune_options import (
    Finetune,
    TuningOptions,
    check,
    clip_of,
    of_the_encoder,
    parsed_views,
    preset_of,
)
from smnm_kernels.train.tasks.finetune_presets import PRESETS
from smnm_kernels.train.tasks.finetune_presets.preset import InputMask

ALL = [(modality, name) for modality in PRESETS for name in PRESETS[modality]]


@pytest.mark.parametrize(("modality", "name"), ALL)
def test_presets_fit_together(modality, name):
    preset = PRESETS[modality][name]
    formats = preset.clip.inputs
    assert preset.clip.name == modality
    head = HeadSettings("class", ("a", "b"), preset.pool)
    with torch.device("meta"):
        if modality == "audio-video":
            sizes = {of: given.size for of, given in formats.items()}
            encoder = AudioVideoEncoder(preset.model, sizes)
            last = encoder.joint[-1]
        else:
            (given,) = formats.values()
            encoder = Encoder(preset.model.encoder, given.size)
            last = encoder.blocks[-1]
    with torch.device("cpu"):
        if modality == "audio-video":
            JointClassifier(encoder, head, tuple(formats), drop_path=preset.drop_path)
        else:
            Classifier(encoder, head, drop_path=preset.drop_path)
    assert last.drop_path == preset.drop_path
    assert preset.optimisation.betas[1] == 0.999
    assert preset.optimisation.batch_size % 2 == 0
    if preset.mask:
        assert preset.mask.sampler(encoder.grid, 0).n_keep == preset.mask.n_keep(encoder.grid)
    assert preset_of(Finetune(modality=modality, data="D", out="R", encoder="none", preset=name))


VIDEOMAE_CLIP = {
    "frames": 16, "size": 224, "crop": ResizedCrop((0.08, 1.0)), "augment": RandAugment(7, 4),
    "erase": RandomErasing(0.25),
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "batch", "rate", "lowest", "decay", "epochs", "warmup", "layers", "views", "clip"),
    [
        ("videomae", 512, 1e-3, 2e-6, 0.05, 100, 5, 0.75, (5, 3),
         Video(stride=4, flip=True, **VIDEOMAE_CLIP)),
        ("videomae-ssv2", 512, 5e-4, 2e-6, 0.05, 50, 5, 0.75, (2, 3),
         Video(stride=4, flip=False, sampling="segments", **VIDEOMAE_CLIP)),
        ("snm-video", 16, 1e-3, 6.25e-8, 0.05, 100, 5, 0.75, (5, 3),
         Video(16, 224, 4, ResizedCrop((0.08, 1.0)), True, augment=RandAugment(9, 4))),
        ("mae", 1024, 5e-4, 1e-6, 0.05, 100, 5, 0.65, (1, 1),
         Image(224, ResizedCrop((0.08, 1), interpolation="bicubic"), True,
               RandAugment(9, 2, fill=(124, 116, 104)), RandomErasing(0.25))),
        ("audiomae-as20k", 32, 1e-3, 1e-6, 5e-4, 60, 4, 0.75, (1, 1),
         Audio(1024, 128, gain=True, padding="see")),
        ("audiomae-as2m", 256, 2e-4, 1e-6, 5e-4, 100, 10, 0.75, (1, 1),
         Audio(1024, 128, gain=True, padding="see")),
        ("audiomae-esc50", 64, 1e-3, 1e-6, 0.05, 50, 5, 0.75, (1, 1),
         Audio(512, 128, padding="see")),
        ("snm-audio", 256, 1e-3, 1e-6, 0.05, 60, 5, 0.75, (1, 1),
         Audio(1024, 128, padding="see")),
    ],
)  # fmt: skip
def test_published_recipes(name, batch, rate, lowest, decay, epochs, warmup, layers, views, clip):
    (preset,) = (table[name] for table in PRESETS.values() if name in table)
    how = preset.optimisation
    assert (how.batch_size, how.base_lr, how.weight_decay) == (batch, rate, decay)
    assert how.min_lr == pytest.approx(lowest)
    assert (how.epochs, how.warmup_epochs) == (epochs, warmup)
    assert (preset.layer_decay, preset.drop_path) == (layers, 0.1)
    assert preset.views == views
    assert preset.clip == clip
    assert how.repeats == 1


def test_published_mixing_and_masking():
    video, audio, image = PRESETS["video"], PRESETS["audio"], PRESETS["image"]
    for preset in (video["videomae"], video["videomae-ssv2"], video["snm-video"], image["mae"]):
        assert preset.mix == Mix(mixup=0.8, cutmix=1.0, prob=1.0, switch=0.5)
        assert preset.label_smoothing == 0.1
    for name in ("audiomae-as20k", "audiomae-as2m"):
        assert audio[name].mix == Mix(mixup=10.0, prob=0.5, powers=True)
        assert audio[name].bands == Bands(time=192, mel=48)
        assert audio[name].mask.n_keep((1, 64, 8)) == 51 * 6
        assert audio[name].label_smoothing == 0
    assert audio["audiomae-as2m"].optimisation.most_per_epoch == 200_000
    esc = audio["audiomae-esc50"]
    assert (esc.bands, esc.mask, esc.mix.on) == (Bands(time=24, mel=96), None, False)
    assert (esc.statistics, esc.label_smoothing) == ((-6.6268077, 5.358466), 0.1)
    assert audio["snm-audio"].mask.n_keep((1, 64, 8)) == 512 - math.ceil(0.3 * 512)


def options(**more):
    given = {"modality": "audio", "data": "D", "out": "R", "encoder": "none"} | more
    return Finetune(**given)


def test_help_names_every_preset():
    told = inspect.getsource(TuningOptions)
    for name in {name for table in PRESETS.values() for name in table}:
        assert name in told or f"{name.partition('-')[0]}-..." in told


def test_options_stand_in_place_of_the_presets_values():
    preset = preset_of(
        options(preset="audiomae-as2m", mask_ratio=0.5, mixup=0.3, epochs=7, balanced=50,
                layer_decay=0.9, drop_path=0.2, views="3x1", pool="class", batch_size=8)
    )  # fmt: skip
    assert preset.mask == InputMask(0.5)
    assert preset.mix == Mix(mixup=0.3, prob=0.5, powers=True)
    assert (preset.layer_decay, preset.drop_path, preset.views) == (0.9, 0.2, (3, 1))
    assert (preset.pool, preset.optimisation.most_per_epoch) == ("class", 50)
    # 7 epochs of 50 files each in batches of 8.
    assert preset.optimisation.total_steps(1000) == math.ceil(7 * 50 / 8)
    assert preset_of(options(mask_ratio=0.0)).mask is None
    # Sounds are mixed by their powers where the preset does not mix, too.
    assert preset_of(options(mixup=0.5)).mix == Mix(mixup=0.5, powers=True)


def test_epochs_in_place_of_the_steps_of_tiny():
    how = preset_of(options(epochs=20)).optimisation
    assert how.total_steps(40) == 100
    assert how.warmup_of(100) == 10  # the same share
    assert preset_of(options(epochs=20, repeats=2)).optimisation.total_steps(40) == 200


def test_what_mirrors_crops_and_augments_can_be_left_out():
    given = options(modality="video", preset="videomae", flip=False, crop=False, augment=False)
    assert clip_of(given, preset_of(given), None) == Video(16, 224, 4, CentreCrop(), False)
    given = options(modality="image", preset="mae", crop=False)
    clip = clip_of(given, preset_of(given), None)
    assert (clip.crop, clip.flip) == (CentreCrop(0.875, "bicubic"), True)
    given = options(crop=False, flip=False, augment=False)  # of sounds there is none
    assert clip_of(given, preset_of(given), None) == PRESETS["audio"]["tiny"].clip


def test_what_the_encoder_decides_in_place_of_the_preset_is_told():
    given = options(modality="video", preset="videomae")
    clip = replace(preset_of(given).clip, stride=2, frames=8, pixel_aspect="ignore")
    told = of_the_encoder(given, preset_of(given), clip)
    assert told == ["frames 8, not 16", "stride 2, not 4", "pixel-aspect ignore, not apply"]
    asked = options(modality="video", preset="videomae", stride=2, frames=8)
    assert of_the_encoder(asked, preset_of(asked), clip) == told[2:]
    assert of_the_encoder(given, preset_of(given), preset_of(given).clip) == []
    given = options(preset="audiomae-esc50")
    clip = Audio(1024, 128, padding="hide")
    assert of_the_encoder(given, preset_of(given), clip) == [
        "frames 1024, not 512",
        "padding hide, not see",
    ]
    given = options(modality="video", preset="videomae-ssv2")  # it has no use for a stride
    assert of_the_encoder(given, preset_of(given), replace(preset_of(given).clip, stride=2)) == []


def test_what_would_do_nothing_is_refused():
    given = options(modality="video", preset="videomae-ssv2", stride=2)
    with pytest.raises(UsageError, match="--stride 2: --preset videomae-ssv2 takes a frame of"):
        clip_of(given, preset_of(given), None)
    with pytest.raises(UsageError, match="--repeats 2: and --preset audiomae-as2m"):
        preset_of(options(preset="audiomae-as2m", repeats=2))


def test_an_epoch_of_balanced_draws_is_as_long_for_numbers_which_weigh_the_same():
    preset = preset_of(options(preset="audiomae-as2m", balanced=4))
    plan = SimpleNamespace(trained_on=range(10), files=[{"label": float(i)} for i in range(10)])
    order = _order(preset, Labels("number", (), {}), plan)
    assert preset.optimisation.epoch_samples(10) == order.draws == 4
    counts = Counter(order.file_of(0, i) for i in range(4 * 1000))
    assert all(abs(n / 1000 - 0.4) < 4 * math.sqrt(0.24 / 1000) for n in counts.values())


def test_views():
    assert parsed_views("5x3") == (5, 3)
    for wrong in ("", "5x", "x3", "5*3", "-1x3", "0x3", "5x3x1", "99999x1"):
        with pytest.raises(UsageError, match="--views must be CLIPSxCROPS"):
            parsed_views(wrong)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"modality": "smell"},
            "modality must be one of video, audio, image, audio-video, got 'smell'",
        ),
        ({"pool": "max"}, "--pool must be mean or class, got 'max'"),
        ({"padding": "drop"}, "--padding must be hide or see, got 'drop'"),
        ({"encoder": ""}, "--encoder is empty"),
        ({"repeats": "2"}, "--repeats must be an int, got '2'"),
        ({"out": "D"}, "is DATA itself"),
    ],
)
def test_options_from_python_are_checked_too(wrong, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=said.replace("(", r"\(")):
        check(options(**wrong))
