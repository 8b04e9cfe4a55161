"""Encoders of one input size, used at another."""

import pytest
import torch
import torch.nn.functional as F
from families import FAMILIES, shaken, small

from smnm_kernels.train.models.positions import position_codes
from smnm_kernels.train.models.resizing import at_size, how_resized
from smnm_kernels.train.models.vit import Encoder


def with_given_positions(family):
    encoder = shaken(small(family).encoder)
    with torch.no_grad():
        encoder.pos_embed.normal_(generator=torch.Generator().manual_seed(0))
    return encoder


@pytest.mark.parametrize("family", FAMILIES)
def test_its_own_size_changes_nothing(family):
    encoder = small(family).encoder
    assert at_size(encoder, encoder.input_size) is encoder
    assert how_resized(encoder, encoder.input_size) is None


@pytest.mark.parametrize(
    ("family", "size", "how"),
    [
        ("videomae", (3, 8, 12, 16), "made for it by the model's rule"),
        ("videomae", (3, 4, 20, 8), "made for it by the model's rule"),
        ("audiomae", (1, 1, 16, 16), "made for it by the model's rule"),
        ("mae", (3, 1, 8, 32), "interpolated"),
    ],
)
def test_all_weights_but_positions_stay_and_the_model_runs(family, size, how):
    encoder = shaken(small(family).encoder)
    said = how_resized(encoder, size)
    assert how in said
    assert str(encoder.grid[1]) in said
    random = torch.get_rng_state()
    resized = at_size(encoder, size)
    assert torch.equal(random, torch.get_rng_state())
    assert resized.input_size == size
    assert not resized.training
    for name, t in encoder.state_dict().items():
        assert name == "pos_embed" or torch.equal(resized.state_dict()[name], t), name
    assert resized(torch.randn(2, *size)).isfinite().all()
    s = resized.settings
    if s.positions == "given":
        return
    fresh = position_codes(s.positions, resized.grid, s.dim, s.class_token)
    assert torch.equal(resized.pos_embed, fresh)


def test_a_shorter_spectrogram_gets_the_first_columns_of_audiomaes_table():
    """Its table is one of 8 rows and 64 columns, and cutting leaves 8 x 32."""
    encoder = Encoder(FAMILIES["audiomae"][0].encoder, (1, 1, 256, 32))
    assert encoder.grid == (1, 64, 8)
    cut = encoder.pos_embed[1:].view(8, 64, -1)[:, :32].flatten(0, 1)
    assert torch.equal(at_size(encoder, (1, 1, 128, 32)).pos_embed[1:], cut)


def test_pictures_are_interpolated_as_maes_code_does():
    encoder = with_given_positions("mae")
    before = encoder.pos_embed
    resized = at_size(encoder, (3, 1, 40, 36)).pos_embed
    assert torch.equal(resized[0], before[0])  # of the class token
    table = before[1:].reshape(1, 4, 6, -1).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=(10, 9), mode="bicubic", align_corners=False)
    assert torch.equal(resized[1:], table.permute(0, 2, 3, 1).flatten(1, 2)[0])


def test_clips_are_interpolated_over_space_and_time():
    encoder = with_given_positions("videomae")  # a grid of 2 x 3 x 4
    before = encoder.pos_embed.view(2, 3, 4, -1)
    longer = at_size(encoder, (3, 6, 12, 16)).pos_embed.view(3, 3, 4, -1)
    middle = (before[0] + before[1]) / 2
    assert torch.allclose(longer, torch.stack([before[0], middle, before[1]]), atol=1e-6)
    wider = at_size(encoder, (3, 4, 24, 16)).pos_embed.view(2, 6, 4, -1)
    for frame in range(2):
        picture = before[frame].permute(2, 0, 1)[None]
        expected = F.interpolate(picture, size=(6, 4), mode="bicubic", align_corners=False)
        assert torch.allclose(wider[frame], expected[0].permute(1, 2, 0), atol=1e-6)


def test_sound_with_positions_of_its_own():
    encoder = with_given_positions("audiomae")  # a grid of 8 x 4
    shorter = at_size(encoder, (1, 1, 20, 16))
    assert torch.equal(shorter.pos_embed, encoder.pos_embed[: 1 + 5 * 4])
    assert shorter.settings.positions == "given"
    assert "first columns" in how_resized(encoder, (1, 1, 20, 16))
    assert "interpolated" in how_resized(encoder, (1, 1, 40, 16))
    assert at_size(encoder, (1, 1, 40, 16)).pos_embed.shape == (41, 24)


def test_other_channels_and_sizes_that_patches_do_not_fill_are_refused():
    encoder = small("mae").encoder
    with pytest.raises(ValueError, match="its input has 3 channels, and 1 were asked for"):
        at_size(encoder, (1, 1, 16, 24))
    with pytest.raises(ValueError, match="18 along H is not a multiple of patch 4"):
        at_size(encoder, (3, 1, 18, 24))
