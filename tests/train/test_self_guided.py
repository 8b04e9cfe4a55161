"""smnm pretrain --mask self_guided: what the masks look at, and that runs go on with it."""

import time
from dataclasses import replace
from unittest import mock

import pytest
import torch
from clips import losses, on_two_ranks, pretrain, rows, write_sound

import smnm_kernels as smnm
from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.encoder_file import load_encoder
from smnm_kernels.train.models.guide import Guide
from smnm_kernels.train.models.mae import MaskedAutoencoder, build_model
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.models.settings import AUDIOMAE, VIDEOMAE
from smnm_kernels.train.tasks.masking import SeparateMasks
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain_setup import set_up

SIZES = {
    "dim": 24, "depth": 1, "heads": 2, "decoder_dim": 16, "decoder_depth": 1, "decoder_heads": 2,
}  # fmt: skip
GUIDED = ("--mask", "self_guided", "--hint-schedule", "0:1")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Presets whose steps take no time: a grid of 8 x 8."""
    for modality, model, more in (
        ("audio", AUDIOMAE.resized(**SIZES), {"frames": 128}),
        ("video", VIDEOMAE.resized(**SIZES), {"frames": 4, "size": 64}),
    ):
        tiny = PRESETS[modality]["tiny"]
        preset = replace(
            tiny,
            clip=replace(tiny.clip, **more),
            objective=MaskedAutoencoding(model),
            masks={modality: replace(tiny.masks[modality], ratio=0.75)},
            optimisation=replace(tiny.optimisation, checkpoint_every=2),
        )
        monkeypatch.setitem(PRESETS[modality], "tiny", preset)


@pytest.mark.parametrize("settings", [VIDEOMAE, AUDIOMAE])
def test_features_are_those_of_the_encoder_that_sees_what_is_valid(settings):
    channels, patch = (3, (2, 16, 16)) if settings is VIDEOMAE else (1, (1, 16, 16))
    grid = (2, 2, 3) if settings is VIDEOMAE else (1, 4, 3)
    size = (channels, *(n * p for n, p in zip(grid, patch, strict=True)))
    model = build_model(settings.resized(**SIZES | {"depth": 2}), size, seed=1)
    x = torch.randn(3, *size, generator=torch.Generator().manual_seed(1))
    guide = Guide(model)
    features = guide(x)
    assert features.shape == (3, 24, *grid)
    assert not features.requires_grad
    assert model.training
    whole = model.encoder(x)
    torch.testing.assert_close(features.flatten(2).mT, whole.detach(), atol=1e-5, rtol=0)

    valid = torch.arange(12).expand(3, -1) < torch.tensor([[4], [12], [7]])
    found = guide(x, valid).flatten(2).mT
    for row in range(3):
        ids = valid[row].nonzero().T
        alone = model.encoder(x[row : row + 1], ids).detach()
        torch.testing.assert_close(found[row][valid[row]][None], alone, atol=1e-5, rtol=0)


def test_it_sees_as_in_evaluation():
    model = build_model(VIDEOMAE.resized(**SIZES), (3, 4, 32, 32), seed=1)
    for block in model.encoder.blocks:
        block.drop_path = 0.9
    x = torch.randn(3, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))
    guide = Guide(model)
    assert torch.equal(guide(x), guide(x))
    assert guide(x).dtype == Guide(model, torch.bfloat16)(x).dtype == torch.float32
    assert not torch.equal(guide(x), Guide(model, torch.bfloat16)(x))


@pytest.fixture
def short_and_long(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i, seconds in enumerate((0.7, 2.0, 1.0, 2.0)):
        write_sound(folder / f"{i}.wav", seconds, hertz=300 + 100 * i)
    return folder


def seen_by_the_model(data, out, *more, modality="audio", masks=GUIDED):
    """[(input, masks, valid or None)] of each call of the model in a run."""
    calls, forward = [], MaskedAutoencoder.forward

    def noting(self, x, masks, valid=None):
        calls.append((x, masks, valid))
        return forward(self, x, masks, valid)

    with mock.patch.object(MaskedAutoencoder, "forward", noting):
        # On the CPU, where these tests compute the features that masks follow.
        words = (data, "--out", out, "--seed", 5, "--device", "cpu", *masks, *more)
        assert pretrain(*words, modality=modality) == 0
    return [call for call in calls if call[0].device.type != "meta"]


@pytest.mark.parametrize("parts", [1, 2])
def test_masks_are_those_of_the_weights_of_each_step(short_and_long, tmp_path, parts):
    out = tmp_path / "run"
    more = ("--steps", 3, "--batch-size", 4, "--keep-every", 1, "--accumulate", parts, "--lr", 1)
    calls = seen_by_the_model(short_and_long, out, *more)[-3 * parts :]
    for i, (x, masks, valid) in enumerate(calls):
        step, part = divmod(i, parts)
        n = 4 // parts
        ids = torch.arange(n) + 4 * step + n * part
        assert (masks.visible.sum(1) == 16).all()
        if step == 0:  # the hint is 1: chance alone
            expected = smnm.guided_masks(
                ids, torch.zeros(n, 64), n_keep=16, hint_ratio=1.0, seed=5, valid=valid
            )
            assert torch.equal(masks.visible, expected.visible)
            continue
        encoder = load_encoder(out / f"encoders/step-{step:08}.safetensors").eval()
        seen = torch.cat([torch.ones_like(valid[:, :1]), valid], 1)
        with torch.no_grad():
            features = encoder.encode(encoder.patchify(x), None, seen)[:, 1:]
        expected = smnm.guided_masks(
            ids,
            smnm.self_guided_scores(features, valid),
            n_keep=16,
            masked="lowest",
            hint_ratio=round(1 - step / 3, 4),
            seed=5,
            valid=valid,
        )
        assert torch.equal(masks.visible, expected.visible)


def test_masks_may_begin_as_an_easier_kind(short_and_long, tmp_path):
    out, steps = tmp_path / "run", 3
    more = ("--steps", steps, "--batch-size", 4, "--keep-every", 1, "--lr", 1)
    masks = ("--mask", "self_guided", "--mask-from", "random")
    calls = seen_by_the_model(short_and_long, out, *more, masks=masks)[-steps:]
    for step, (x, masks, valid) in enumerate(calls):
        sampler = smnm.CurriculumSampler(
            {"kind": "random"}, {"kind": "self_guided"}, (1, 8, 8), 0.75,
            share=round(step / steps, 6), seed=5,
        )  # fmt: skip
        features = torch.zeros(4, 24, 1, 8, 8)
        if step:
            encoder = load_encoder(out / f"encoders/step-{step:08}.safetensors").eval()
            seen = torch.cat([torch.ones_like(valid[:, :1]), valid], 1)
            with torch.no_grad():
                tokens = encoder.encode(encoder.patchify(x), None, seen)[:, 1:]
            features = tokens.mT.reshape(4, 24, 1, 8, 8)
        expected = sampler.masks(torch.arange(4) + 4 * step, features, valid)
        assert torch.equal(masks.visible, expected.visible)


@pytest.mark.parametrize(
    ("masks", "looking"),
    [
        (("--mask", "self_guided"), [0, 1, 2]),
        (("--mask", "self_guided", "--mask-options", "hint_ratio=1"), []),
        (("--mask", "self_guided", "--hint-schedule", "0.5:1"), [2]),
        (("--mask", "self_guided", "--mask-from", "random"), [1, 2]),
        (("--mask", "random", "--mask-from", "self_guided"), [0, 1, 2]),
    ],
)
def test_features_are_computed_where_masks_depend_on_them(
    short_and_long, tmp_path, monkeypatch, masks, looking
):
    """Where they do not, masks are those of any features (the tests above)."""
    steps, step, call = [], [-1], Guide.__call__
    set_step = SeparateMasks.set_step

    def telling(self, number):
        step[0] = number
        set_step(self, number)

    def noting(self, *arguments):
        steps.append(step[0])
        return call(self, *arguments)

    monkeypatch.setattr(SeparateMasks, "set_step", telling)
    monkeypatch.setattr(Guide, "__call__", noting)
    run = (short_and_long, "--out", tmp_path / "run", *masks, "--batch-size", 4)
    assert pretrain(*run, "--steps", 3, modality="audio") == 0
    assert [one for one in dict.fromkeys(steps) if one < 3] == looking


def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(short_and_long, tmp_path):
    run = (short_and_long, *GUIDED, "--schedule-steps", 6)
    straight, parted = tmp_path / "straight", tmp_path / "parted"
    assert pretrain(*run, "--out", straight, "--steps", 6, modality="audio") == 0
    for steps in (3, 6):
        assert pretrain(*run, "--out", parted, "--steps", steps, modality="audio") == 0
    assert losses(parted) == losses(straight)


def test_its_time_is_time_for_masks(short_and_long, tmp_path):
    slow, call = [], Guide.__call__

    def slowly(self, *arguments):
        slow.append(1)
        time.sleep(0.05)
        return call(self, *arguments)

    with mock.patch.object(Guide, "__call__", slowly):
        run = (short_and_long, "--out", tmp_path / "run", "--steps", 2)
        assert pretrain(*run, "--mask", "self_guided", modality="audio") == 0
    assert len(slow) >= 2
    assert all(row["mask_ms"] >= 50 for row in rows(tmp_path / "run"))


@pytest.mark.parametrize(
    ("modality", "options", "named"),
    [
        ("video", {"mask": "self_guided", "objective": "sigma"}, "--mask self_guided.* is Sigma"),
        ("audio-video", {"video_mask": "self_guided"}, "--video-mask self_guided.* is CavMae"),
        ("audio-video", {"audio_mask": "self_guided"}, "--audio-mask self_guided.* is CavMae"),
    ],
)
def test_other_objectives_are_refused(modality, options, named):
    with pytest.raises(UsageError, match=named):
        set_up(Pretrain(modality=modality, data="DATA", out="RUN", **options))


@pytest.mark.exhaustive
def test_compiled_and_on_two_ranks(videos, tmp_path):
    run = ("--steps", 3, "--batch-size", 4, *GUIDED)
    one, two, compiled = (tmp_path / name for name in ("one", "two", "compiled"))
    assert pretrain(videos, "--out", one, *run) == 0
    assert pretrain(videos, "--out", compiled, *run, "--compile") == 0
    on_two_ranks(videos, two, *run, "--preset", "tiny")
    assert losses(compiled) == pytest.approx(losses(one), abs=1e-3)
    assert len(losses(two)) == 3
