"""encoder.safetensors: written, read, and read from the format before."""

from pathlib import Path

import pytest
import torch
from families import FAMILIES, input_and_masks, shaken, small
from safetensors.torch import load_file, save_file

from smnm_kernels.train.models.encoder_file import encoder_metadata, load_encoder

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_encoder_is_the_same_function(family, tmp_path):
    model = shaken(small(family))
    encoder, path = model.encoder, tmp_path / "encoder.safetensors"
    save_file(encoder.state_dict(), path, encoder_metadata(encoder, modality="any"))
    loaded = load_encoder(path)
    assert not loaded.training
    assert loaded.settings == encoder.settings
    x, masks = input_and_masks(model)
    n = masks.visible.shape[1]
    assert loaded(x).shape == (2, n, 24)  # of the patches: a class token is left out
    assert torch.equal(loaded(x), encoder(x))
    assert torch.equal(loaded(x, masks.ids_keep), encoder(x, masks.ids_keep))


@pytest.mark.parametrize("modality", ["video", "audio"])
@torch.no_grad()
def test_files_of_the_format_before_are_read(modality):
    """Written by smnm_kernels 0.1.0, with what its own encoder gave for these inputs."""
    encoder = load_encoder(DATA / f"encoder-1-{modality}.safetensors")
    expected = load_file(DATA / f"encoder-1-{modality}-output.safetensors")
    size = encoder.input_size
    x = torch.linspace(-2, 2, 2 * size[0] * size[1] * size[2] * size[3]).view(2, *size)
    ids = torch.tensor([[0, 3, 5], [1, 2, 6]])
    assert torch.allclose(encoder(x), expected["all"], atol=1e-5)
    assert torch.allclose(encoder(x, ids), expected["some"], atol=1e-5)


def test_other_files_are_refused_by_name(tmp_path):
    encoder = small().encoder
    path = tmp_path / "other.safetensors"
    save_file(encoder.state_dict(), path)
    with pytest.raises(ValueError, match=r"smnm-encoder-2.*other\.safetensors of format None"):
        load_encoder(path)
    save_file(encoder.state_dict(), path, encoder_metadata(encoder) | {"format": "smnm-encoder-9"})
    with pytest.raises(ValueError, match="of format 'smnm-encoder-9'"):
        load_encoder(path)
    for broken in (
        {"encoder": "{}"},
        {"encoder": "no JSON"},
        encoder_metadata(small("mae").encoder),
    ):
        save_file(encoder.state_dict(), path, encoder_metadata(encoder) | broken)
        with pytest.raises(
            ValueError, match=r"other\.safetensors: its tensors do not fit its meta"
        ):
            load_encoder(path)
    path.write_bytes(b"no tensors here")
    with pytest.raises(ValueError, match=r"other\.safetensors: not a safetensors file"):
        load_encoder(path)
    with pytest.raises(FileNotFoundError, match=r"missing\.safetensors"):
        load_encoder(tmp_path / "missing.safetensors")
