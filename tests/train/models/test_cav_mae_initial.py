"""CAV-MAE that begins with an MAE of pictures: what goes where, and that it does the same."""

from dataclasses import replace

import pytest
import torch
from families import shaken

from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.data.picture_rows import spectrograms
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_initial import start_from_pictures
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.formats.weights import Weights
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import MAE

SIZE = {"dim": 16, "depth": 3, "heads": 2}
DECODER = {"decoder_dim": 12, "decoder_depth": 2, "decoder_heads": 2}
TINY = CAV_MAE.resized(**SIZE, **DECODER)
NAMES = ("video", "audio")


def formats(video=(3, 1, 32, 48), audio=(1, 1, 48, 32)):
    sizes = {"video": video, "audio": audio}
    return {
        name: InputFormat(size, (0.0,) * size[0], (1.0,) * size[0], spectrograms)
        for name, size in sizes.items()
    }


def pictures(settings=None):
    settings = settings or MAE.resized(**SIZE, **DECODER)
    torch.manual_seed(3)
    model = shaken(build_model(settings, (3, 1, 32, 48), seed=0))
    weights = Weights(
        model.state_dict(), settings.encoder, (3, 1, 32, 48), "image",
        (0.0,) * 3, (1.0,) * 3, settings,
    )  # fmt: skip
    return model, weights


def started(model=TINY, inputs=None, weights=None):
    inputs = inputs or formats()
    start = start_from_pictures(weights or pictures()[1], model, inputs)
    made = CavMae(model).build(inputs, seed=0)
    before = {name: t.clone() for name, t in made.state_dict().items()}
    start.load(made)
    changed = {n for n, t in made.state_dict().items() if not torch.equal(t, before[n])}
    return made.eval(), start, changed


@torch.no_grad()
def test_a_branch_and_the_joint_block_do_what_the_pictures_encoder_does():
    """Without class token, modality embedding and differing eps, for frames and for grey
    spectrograms that lie as CAV-MAE lays them."""
    model, weights = pictures()
    made, _, _ = started(weights=weights)
    theirs = replace(weights.encoder, class_token=False, norm_eps=1e-5)
    alike = build_model(replace(model.settings, encoder=theirs), (3, 1, 32, 48), 0).eval().encoder
    state = {n: t for n, t in model.encoder.state_dict().items() if n in alike.state_dict()}
    alike.load_state_dict(state | {"pos_embed": alike.pos_embed})
    for name in NAMES:
        made.encoder.branch(name).modality.zero_()
    frames = torch.randn(2, 3, 1, 32, 48)
    found = made.encoder.tokens({"video": frames})["video"]
    torch.testing.assert_close(found, alike(frames))
    both = made.encoder.norm(made.encoder.joint[0](made.encoder.branch("video")(frames)))
    torch.testing.assert_close(both, alike(frames))

    sound = torch.randn(2, 1, 1, 48, 32)  # time, bands
    turned = sound.transpose(3, 4).expand(-1, 3, -1, -1, -1)  # bands as rows, grey
    found = made.encoder.tokens({"audio": sound})["audio"].unflatten(1, (3, 2))
    expected = alike(turned).unflatten(1, (2, 3)).transpose(1, 2)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_tubelets_of_equal_frames_are_embedded_as_the_picture():
    model, weights = pictures()
    clips = formats(video=(3, 4, 32, 48))
    made, _, _ = started(TINY.with_clips(), clips, weights)
    frame = torch.randn(2, 3, 1, 32, 48)
    branch = made.encoder.branch("video")
    patches = branch.patchify(frame.expand(-1, -1, 4, -1, -1))
    expected = model.encoder.patch_embed(model.encoder.patchify(frame))
    found = branch.patch_embed(patches).unflatten(1, (2, 6))
    for i in range(2):
        torch.testing.assert_close(found[:, i], expected)
    # Both frames of a tubelet are predicted as the picture.
    x = torch.randn(5, 12)
    values = made.decoder.pred["video"](x).view(5, 3, 2, 256)
    expected = model.decoder.pred(x).view(5, 3, 256)
    for i in range(2):
        torch.testing.assert_close(values[:, :, i], expected)
    red = made.decoder.pred["audio"](x).view(5, 16, 16)
    torch.testing.assert_close(red, expected[:, 0].view(5, 16, 16).transpose(1, 2))


def test_all_is_taken_but_what_pictures_have_not():
    made, start, changed = started()
    new = {n for n in made.state_dict() if n not in changed}
    assert {n for n in new if not n.endswith("bias")} == {
        "encoder.branches.video.modality",
        "encoder.branches.audio.modality",
        "encoder.branches.video.pos_embed",
        "encoder.branches.audio.pos_embed",
        "decoder.modality.video",
        "decoder.modality.audio",
        "decoder.pos_embed_video",
        "decoder.pos_embed_audio",
    }
    assert not any(n.endswith("bias") for n in new)
    assert "the decoder's weights are taken" in start.said
    assert "the class token is left out" in start.said
    assert start.model == TINY


def test_a_decoder_of_another_size_starts_anew():
    other = MAE.resized(**SIZE, **DECODER | {"decoder_depth": 1})
    _, start, changed = started(weights=pictures(other)[1])
    assert not any(n.startswith("decoder.") for n in changed)
    assert "the decoder starts anew: it has depth 1, and the model depth 2" in start.said
    _, start, _ = started(weights=replace(pictures()[1], model=None))
    assert "the decoder starts anew: there is none" in start.said


def test_an_encoder_of_another_shape_is_refused():
    other = MAE.resized(**SIZE | {"depth": 2}, **DECODER)
    with pytest.raises(ValueError, match=r"its encoder has depth 2, .* must have depth 3"):
        started(weights=pictures(other)[1])
