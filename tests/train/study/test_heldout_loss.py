"""The loss on held-out files: mean squares over masked patches, file by file, mask by mask."""

from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest
import torch
from clips import write_sound
from tiny_study import write_pictures

from smnm_kernels import MaskSampler
from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.finder import Files
from smnm_kernels.train.data.modality import FixedView, Normalisation
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.models.masked_autoencoding import MaskedAutoencoding
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.pretrain_setup import set_up
from smnm_kernels.train.tasks.studying.heldout_loss import (
    SEED,
    HeldOutLoss,
    build,
    common_masks,
    heldout_loss,
    own_masks,
)


def setup_of(modality="image", **given):
    options = {"size": 32} if modality == "image" else {"frames": 64}
    paths = {"data": Path("DATA"), "out": Path("OUT"), "device": "cpu"}
    setup = set_up(Pretrain(modality=modality, n_keep=2, **paths, **options, **given))
    model = setup.preset.objective.model.resized(
        dim=16, depth=1, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    objective = replace(setup.preset.objective, model=model)
    return replace(setup, preset=replace(setup.preset, objective=objective))


def found(data, setup, model, masks, settings):
    listing = scan(Files(data), setup.preset.clip, None, threads=1)
    losses, failed = heldout_loss(model, setup, {"these": masks}, listing, settings)
    return losses["these"]["loss"], failed, listing.usable


@torch.no_grad()
def by_hand(data, setup, model, sampler, files, places, masks):
    ((name, given),) = setup.preset.clip.inputs.items()
    losses = []
    for place in places:
        record = files[place]
        read = setup.preset.clip.read_fixed(Source(data / record["name"]), record, FixedView())
        x = Normalisation(given)(read[name][None])
        squares = []
        for number in range(masks):
            drawn = sampler.masks(torch.tensor([place * masks + number]))
            latent = model.forward_encoder(x, drawn)
            predicted = model.forward_decoder(latent, drawn)[0].double()
            patches = model.encoder.patchify(x)[:, drawn.ids_masked[0]]
            target = model.target(patches)[0].double()
            squares.append(((predicted - target) ** 2).mean().item())
        losses.append(sum(squares) / masks)
    return sum(losses) / len(losses)


def test_it_is_the_mean_of_squares_over_masked_patches(tmp_path):
    write_pictures(tmp_path, 1)
    setup = setup_of(mask="green2d")
    model = build(setup, 3, None)
    own = own_masks(setup)
    sampler = MaskSampler("green2d", (1, 2, 2), n_keep=2, seed=SEED)
    loss, failed, files = found(tmp_path, setup, model, own, HeldOutLoss(clips=4, masks=3))
    assert len(files) == 6
    assert not failed
    expected = by_hand(tmp_path, setup, model, sampler, files, [0, 1, 3, 4], 3)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_file_that_cannot_be_read_changes_no_mask_of_others(tmp_path):
    write_pictures(tmp_path, 1)
    setup = setup_of(mask="green2d")
    model = build(setup, 3, None)
    files = scan(Files(tmp_path), setup.preset.clip, None, threads=1).usable
    broken = tmp_path / files[1]["name"]
    broken.write_bytes(b"")
    loss, _, left = found(tmp_path, setup, model, own_masks(setup), HeldOutLoss(clips=4, masks=1))
    assert len(left) == 5
    sampler = MaskSampler("green2d", (1, 2, 2), n_keep=2, seed=SEED)
    expected = by_hand(tmp_path, setup, model, sampler, files, [0, 3, 4], 1)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_under_the_common_masks_all_kinds_are_one(tmp_path):
    write_pictures(tmp_path, 1)
    settings, losses = HeldOutLoss(common="blue2d", masks=2), []
    for kind in ("random", "green2d"):
        setup = setup_of(mask=kind)
        masks = common_masks(setup, settings)
        losses.append(found(tmp_path, setup, build(setup, 0, None), masks, settings)[0])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("objective", ["mae", "sigma"])
def test_common_masks_do_not_follow_an_encoder(objective):
    options = {"objective": objective} if objective == "sigma" else {}
    setup = set_up(
        Pretrain(
            modality="video" if options else "image", data=Path("DATA"), out=Path("OUT"), **options
        )
    )
    with pytest.raises(UsageError, match="common self_guided: follows the features of each"):
        common_masks(setup, HeldOutLoss(common="self_guided"))


def test_padding_is_no_part_of_it(tmp_path):
    """Of a padded recording the masked patches that are real, and only those."""
    write_sound(tmp_path / "a.wav", 0.35)
    setup = setup_of("audio", mask="random")
    model = build(setup, 0, None)
    own = own_masks(setup)
    loss, _, files = found(tmp_path, setup, model, own, HeldOutLoss(masks=2))
    clip = setup.preset.clip
    read = clip.read_fixed(Source(tmp_path / "a.wav"), files[0], FixedView())["audio"]
    real = clip.padded(files[0])["audio"][1]
    valid = (torch.arange(32) // 8 < -(-real // 16))[None]
    sampler = MaskSampler("random", (1, 4, 8), n_keep=2, seed=SEED)
    x, losses = Normalisation(clip.inputs["audio"])(read[None]), []
    with torch.no_grad():
        for number in range(2):
            masks = sampler.masks(torch.tensor([number]), valid=valid)
            predicted = model.forward_decoder(model.forward_encoder(x, masks), masks)
            target = model.target(model.encoder.patchify(x)[:, masks.ids_masked[0]])
            counts = valid[0, masks.ids_masked[0]]
            losses.append(((predicted - target) ** 2)[0, counts].double().mean().item())
    assert 0 < counts.sum() < 30
    assert loss == pytest.approx(sum(losses) / 2, rel=1e-5)


def test_objectives_are_told_what_is_real(tmp_path):
    for name, seconds in (("a", 0.35), ("b", 0.5)):
        write_sound(tmp_path / f"{name}.wav", seconds)
    setup, seen, losses = setup_of("audio", mask="random"), [], MaskedAutoencoding.losses

    def noting(self, *arguments):
        seen.append(arguments[-1].real["audio"].tolist())
        return losses(self, *arguments)

    with mock.patch.object(MaskedAutoencoding, "losses", noting):
        found(tmp_path, setup, build(setup, 0, None), own_masks(setup), HeldOutLoss(masks=2))
    assert seen == [[[1, frames, 128]] * 2 for frames in (33, 48)]


def test_masks_that_follow_the_data_see_quiet_padding(tmp_path):
    write_sound(tmp_path / "a.wav", 0.35)
    setup = setup_of("audio", mask="dispersion")
    model = build(setup, 0, None)
    own = own_masks(setup)
    loss, _, files = found(tmp_path, setup, model, own, HeldOutLoss(masks=1))
    clip = setup.preset.clip
    read = clip.read_fixed(Source(tmp_path / "a.wav"), files[0], FixedView())["audio"]
    real = clip.padded(files[0])["audio"][1]
    x = Normalisation(clip.inputs["audio"])(read[None])
    quiet = x.clone()
    quiet[..., real:, :] = x[..., :real, :].min()
    valid = (torch.arange(32) // 8 < -(-real // 16))[None]
    sampler = MaskSampler("dispersion", (1, 4, 8), n_keep=2, seed=SEED)
    masks = sampler.masks(torch.tensor([0]), quiet, valid)
    assert not torch.equal(masks.visible, sampler.masks(torch.tensor([0]), x, valid).visible)
    with torch.no_grad():
        expected = model(x, masks, valid).item()
    assert loss == pytest.approx(expected, rel=1e-6)


def test_files_that_cannot_be_read_are_named(tmp_path):
    write_pictures(tmp_path, 1)
    setup = setup_of()
    model = build(setup, 0, None)
    own = own_masks(setup)
    listing = scan(Files(tmp_path), setup.preset.clip, None, threads=1)
    (tmp_path / "test/dark/00.png").unlink()
    arguments = (model, setup, {"own": own}, listing, HeldOutLoss(masks=1))
    assert list(heldout_loss(*arguments)[1]) == ["test/dark/00.png"]
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(UsageError, match="of 6 held-out files none can be read"):
        heldout_loss(*arguments)
