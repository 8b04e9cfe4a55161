"""Presets, optimiser, and the picture of what a model does."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from smnm_kernels import MaskSampler
from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.crops import MultiScaleCrop, ResizedCrop
from smnm_kernels.train.data.image import Image
from smnm_kernels.train.data.modality import Normalisation
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.run.optimisation import adamw
from smnm_kernels.train.run.schedule import Schedule
from smnm_kernels.train.tasks.options import Pretrain, check
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.reconstruction import reconstruction, restored_by


@pytest.mark.parametrize(
    ("modality", "name"), [(modality, name) for modality in PRESETS for name in PRESETS[modality]]
)
def test_presets_fit_together(modality, name):
    preset = PRESETS[modality][name]
    inputs = preset.clip.inputs
    assert "-".join(sorted(inputs)) == modality
    assert inputs.keys() >= preset.masks.keys() == preset.objective.grids(inputs).keys()
    with torch.device("meta"):
        model = preset.objective.build(inputs, 0)
    for input_name, grid in preset.objective.grids(inputs).items():
        given = inputs[input_name]
        _, frames, height, width = given.size
        tubelet = 2 if frames > 1 else 1
        assert grid == (frames // tubelet, height // 16, width // 16)
        assert len(given.mean) == len(given.scale) == given.size[0]
        masks = preset.masks[input_name]
        assert MaskSampler(masks.kind, grid, masks.ratio).n_keep < math.prod(grid)
    blocks = [p for n, p in model.encoder.named_parameters() if "blocks." in n or "joint." in n]
    if name not in ("tiny", "small"):  # ViT-B's blocks without the class token
        count = 23 if modality == "audio-video" else 12
        n_values = sum(p.numel() for p in blocks)
        assert n_values == pytest.approx(count * 7_087_872, rel=4e-4)  # without biases of keys
    betas = (0.95, 0.999) if "cav-mae" in name else (0.9, 0.95)
    assert asdict(preset)["optimisation"]["betas"] == betas


@pytest.mark.parametrize(
    ("modality", "name", "batch_size", "base_lr", "decay", "epochs", "warmup", "kind", "n_keep"),
    [
        # What the paper's Tables A.9 and A.12 say; the other rows, the methods' scripts.
        ("video", "snm-video", 256, 1.5e-4, 0.05, 800, 40, "green3d", 156),
        ("audio", "snm-audio", 512, 2e-4, 0.05, 32, 5, "rbn", 102),
        ("video", "videomae", 2048, 1.5e-4, 0.05, 800, 40, "tube", 160),
        ("audio", "audiomae", 512, 2e-4, 1e-4, 33, 3, "random", 102),
        ("image", "mae", 4096, 1.5e-4, 0.05, 800, 40, "random", 49),
    ],
)
def test_published_recipes(
    modality, name, batch_size, base_lr, decay, epochs, warmup, kind, n_keep
):
    preset = PRESETS[modality][name]
    o = preset.optimisation
    assert (o.batch_size, o.base_lr, o.weight_decay) == (batch_size, base_lr, decay)
    assert (o.epochs, o.warmup_epochs) == (epochs, warmup)
    assert o.lr == base_lr * batch_size / 256
    masks = preset.masks[modality]
    grid = preset.objective.grids(preset.clip.inputs)[modality]
    assert masks.kind == kind
    assert MaskSampler(masks.kind, grid, masks.ratio).n_keep == n_keep


@pytest.mark.parametrize(
    ("modality", "name", "base_min_lr", "clip"),
    [
        ("video", "snm-video", 1e-5, Video(16, 224, 4, MultiScaleCrop(), flip=True)),
        ("audio", "snm-audio", 0, Audio(1024, 128, gain=False, padding="see")),
        ("video", "videomae", 1e-5, Video(16, 224, 4, MultiScaleCrop(), flip=False)),
        ("audio", "audiomae", 0, Audio(1024, 128, gain=True, padding="see")),
        ("image", "mae", 0, Image(224, ResizedCrop((0.2, 1), interpolation="bicubic"), flip=True)),
    ],
)
def test_published_clips_and_lowest_rates(modality, name, base_min_lr, clip):
    preset = PRESETS[modality][name]
    assert preset.clip == clip
    assert preset.optimisation.base_min_lr == base_min_lr
    assert preset.optimisation.min_lr == base_min_lr * preset.optimisation.batch_size / 256


def test_only_matrices_decay():
    preset = PRESETS["video"]["tiny"]
    model = preset.objective.build(preset.clip.inputs, 0)
    decayed, free = adamw(model, preset.optimisation).param_groups
    assert free["weight_decay"] == 0
    assert decayed["weight_decay"] == 0.05
    assert {id(p) for p in decayed["params"]} == {
        id(m.weight) for m in model.modules() if isinstance(m, nn.Linear | nn.Conv3d)
    }
    assert len(decayed["params"]) + len(free["params"]) == len(list(model.parameters()))


@pytest.mark.parametrize(
    ("name", "kinds", "adam"),
    [
        ("cav-mae", {"video": ("random", 49), "audio": ("random", 128)}, True),
        ("snm-cav-mae", {"video": ("green2d", 49), "audio": ("rbn", 128)}, False),
        ("cav-mae-clip", {"video": ("green3d", 156), "audio": ("rbn", 128)}, False),
    ],
)
def test_published_recipes_of_clips_with_sound(name, kinds, adam):
    preset = PRESETS["audio-video"][name]
    how = preset.optimisation
    assert (how.batch_size, how.epochs, how.weight_decay) == (120, 25, 5e-7)
    assert how.lr == pytest.approx(1e-4, rel=1e-12)
    assert (how.optimizer, how.warmup_epochs) == (("adam", 0) if adam else ("adamw", 2))
    schedule = Schedule(how.lr, how.min_lr, 0, 2500, how.halvings)
    assert schedule.rate(999) > 0.5 * how.lr
    assert schedule.rate(2499) == pytest.approx(how.lr / 8 if adam else 0, abs=1e-9)
    grids = preset.objective.grids(preset.clip.inputs)
    for input_name, masks in preset.masks.items():
        made = MaskSampler(masks.kind, grids[input_name], masks.ratio)
        assert (made.kind, made.n_keep) == kinds[input_name]
    sound = preset.clip.inputs["audio"]
    assert (sound.mean, sound.scale) == ((-5.081,), (4.4849,))


@pytest.mark.parametrize("modality", ["video", "audio", "image"])
def test_the_picture_shows_input_visible_part_and_restored(modality):
    preset = PRESETS[modality]["tiny"]
    (given,) = preset.clip.inputs.values()
    grid = preset.objective.grids(preset.clip.inputs)[modality]
    raw = torch.rand(2, *given.size)
    restored = torch.rand(2, *given.size)
    masks = MaskSampler(preset.masks[modality].kind, grid, 0.8)(2)
    visible = masks.visible.view(2, *grid)
    picture = np.asarray(reconstruction(raw, visible, restored, given.picture_rows)).astype(int)
    height, width = given.size[3], {"video": 8 * 96, "audio": 512, "image": 96}[modality]
    assert picture.shape == (2 * (3 * (height + 4) + 8), 84 + width + 4, 3)
    rows = [picture[4 + i * (height + 4) :][:height, 84:-4] for i in range(3)]
    if modality != "audio":  # every other frame, side by side
        shown = [clip[0, :, ::2].permute(2, 1, 3, 0).flatten(1, 2) for clip in (raw, restored)]
        for row, clip in zip(rows[::2], shown, strict=True):
            assert abs(row - clip.mul(255).round().numpy()).max() <= 1
        seen = visible[0].permute(1, 0, 2).flatten(1)
    else:  # time runs to the right and bands upwards
        assert not (rows[2] == rows[0]).all()
        seen = visible[0, 0].T.flip(0)
    seen = seen.repeat_interleave(16, 0).repeat_interleave(16, 1).numpy()
    assert (rows[1][seen] == rows[0][seen]).all()
    assert (abs(rows[1][~seen] - 127.5) <= 0.5).all()


@pytest.mark.parametrize("modality", ["video", "image"])
@pytest.mark.parametrize("target", ["pixels", "channel"])
def test_the_picture_says_whose_contrast_it_shows(modality, target):
    preset = PRESETS[modality]["tiny"]
    model = preset.objective.model.resized(
        dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    objective = MaskedAutoencoding(replace(model, target=target))
    inputs = preset.clip.inputs
    grids = objective.grids(inputs)
    x = {modality: torch.rand(1, *inputs[modality].size)}
    masks = {modality: MaskSampler("random", grids[modality], 0.8)(1)}
    normalisations = {modality: Normalisation(inputs[modality])}
    built = objective.build(inputs, 0)
    whole = restored_by(objective, built, x, masks, {}, inputs, normalisations, grids)
    picture, height = np.asarray(whole), 3 * (96 + 4) + 8
    note = (picture[height:] < 128).all(-1)
    if target == "pixels":
        assert len(note) == 0
    else:
        assert note.sum() > 500
        assert not note[:, -4:].any()  # nothing is cut off
        assert picture.shape[1] == {"video": 84 + 8 * 96 + 4, "image": 84 + 96 + 4}[modality]


def test_input_normalisation_is_undone():
    (given,) = PRESETS["video"]["tiny"].clip.inputs.values()
    normalise = Normalisation(given)
    raw = torch.randint(0, 256, (1, *given.size), dtype=torch.uint8)
    x = normalise(raw)
    assert x.dtype == torch.float32
    for channel in range(3):
        expected = (raw[:, channel] / 255 - given.mean[channel]) / given.scale[channel]
        assert torch.allclose(x[:, channel], expected, atol=1e-6)
    assert torch.equal(normalise.undo(x).mul(255).round().byte(), raw)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"precision": "fp16"}, "--precision must be one of auto, float32, bfloat16, got 'fp16'"),
        (
            {"modality": "smell"},
            "modality must be one of video, audio, image, audio-video, got 'smell'",
        ),
        ({"steps": "3"}, "--steps must be an int, got '3'"),
        ({"out": "DATA"}, "is DATA itself"),
    ],
)
def test_options_from_python_are_checked_too(wrong, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "DATA").mkdir()
    given = {"modality": "image", "data": "DATA", "out": "RUN"} | wrong
    with pytest.raises(UsageError, match=said):
        check(Pretrain(**given))
