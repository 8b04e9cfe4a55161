"""Presets, optimiser, and the picture of what a model does."""

import math
from dataclasses import asdict

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
from smnm_kernels.train.run.optimisation import adamw
from smnm_kernels.train.tasks.options import Pretrain, check
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.reconstruction import reconstruction

GRIDS = {
    ("video", 96): (8, 6, 6),
    ("video", 224): (8, 14, 14),
    ("audio", 512): (1, 32, 8),
    ("audio", 1024): (1, 64, 8),
    ("image", 96): (1, 6, 6),
    ("image", 224): (1, 14, 14),
}


@pytest.mark.parametrize(
    ("modality", "name"), [(modality, name) for modality in PRESETS for name in PRESETS[modality]]
)
def test_presets_fit_together(modality, name):
    preset = PRESETS[modality][name]
    inputs = preset.clip.inputs
    assert inputs.keys() == preset.masks.keys() == {modality}
    with torch.device("meta"):
        model = preset.objective.build(inputs, 0)
    (given,) = inputs.values()
    grid = preset.objective.grids(inputs)[modality]
    assert grid == model.encoder.grid == GRIDS[modality, given.size[2]]
    assert len(given.mean) == len(given.scale) == given.size[0]
    masks = preset.masks[modality]
    assert MaskSampler(masks.kind, grid, masks.ratio).n_keep < math.prod(grid)
    if preset.objective.model.encoder.dim == 768:  # ViT-B's blocks without the class token
        blocks = sum(p.numel() for p in model.encoder.blocks.parameters())
        assert blocks == pytest.approx(12 * 7_087_872, rel=2e-4)  # without biases of keys
    assert asdict(preset)["optimisation"]["betas"] == (0.9, 0.95)


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


@pytest.mark.parametrize("modality", PRESETS)
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
        ({"modality": "smell"}, "modality must be one of video, audio, image, got 'smell'"),
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
