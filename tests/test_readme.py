"""README's lines of Python run, with stand-ins for what the reader has already."""

import re
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.utils.data import DataLoader

import smnm_kernels as smnm
from smnm_kernels.kinds import KINDS

README = (Path(__file__).parent.parent / "README.md").read_text()


class Anything:
    """Takes any call and any attribute, and gives itself."""

    def __call__(self, *arguments, **more):
        return self

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self


class Model(Anything):
    config = SimpleNamespace(
        model_type="videomae", image_size=224, patch_size=16, num_frames=16, tubelet_size=2
    )


def stand_ins():
    clips = [{"pixel_values": torch.zeros(2)}] * 4
    size = {"window_size": (8, 14, 14), "mask_ratio": 0.9, "decoder_mask_ratio": 0.5}
    dataset = SimpleNamespace(epoch=3, clone_batch=2)
    return {
        **{"smnm": smnm, "torch": torch, "DataLoader": DataLoader, "Trainer": Anything()},
        **{"device": "cpu", "batch_size": 4, "x": torch.zeros(4, 1568, 3), "clips": clips},
        **{"my_noise": torch.rand(4, 1568), "order": torch.arange(512).repeat(2, 1)},
        **{"model": Model(), "pixel_values": torch.zeros(4, 1), "args": SimpleNamespace(**size)},
        **{"self": dataset, "v": {}, "index": 1, "len": lambda o: 9 if o is dataset else len(o)},
        **{"dataset": clips},
    }


def test_every_block_of_python_but_the_definitions_runs():
    text = README[: README.index("## Definitions, a line of PyTorch each")]
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len(blocks) > 8
    names = stand_ins()
    for block in blocks:
        # The bank of noise in a size that does not take seconds.
        exec(block.replace("(256, (64, 64, 64)", "(2, (16, 16, 16)"), names)
    assert (names["v"]["precomputed_mask"].shape, names["video"].n_keep) == ((2, 512), 156)


def test_every_kind_is_in_the_table():
    table = README[README.index("| kind |") : README.index("The functions below the sampler")]
    assert set(re.findall(r"`(\w+)`", table)) == KINDS.keys()


def test_every_public_name_is_there():
    for name in smnm.__all__:
        assert name in README or name == "AudioVideoMasks", name
