"""Models in other people's files, and how they are read: of one head of 64 values, which the
methods' code would make at this size."""

import argparse
from dataclasses import replace

import torch
from families import shaken, sized

from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.models.formats import to_mae, to_videomae
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.pretrained import find_encoder
from smnm_kernels.train.models.settings import AUDIOMAE, MAE, VIDEOMAE

PATCH = {"video": (2, 8, 8), "image": (1, 8, 8), "audio": (1, 8, 8)}
SIZE = {"video": (3, 4, 16, 24), "image": (3, 1, 32, 32), "audio": (1, 1, 32, 16)}
FAMILY = {"video": VIDEOMAE, "image": MAE, "audio": AUDIOMAE}


def inputs_of(size):
    return InputFormat(size, (0.5,) * size[0], (1.0,) * size[0], None)


def found(path, modality, size, said=None):
    say = (lambda line: None) if said is None else said.append
    return find_encoder(path, modality, inputs_of(size), None, 0, say)


def ours(modality, **changes):
    """A model of one head of 64 values, as the methods' code would make it at this size."""
    settings = sized(FAMILY[modality], PATCH[modality], 64, 64 if modality == "video" else 32)
    settings = settings.resized(
        dim=64, depth=2, heads=1, decoder_dim=settings.decoder.dim, decoder_depth=2, decoder_heads=1
    )
    encoder = replace(settings.encoder, **changes)
    return shaken(build_model(replace(settings, encoder=encoder), SIZE[modality], seed=0))


def file_of(model, modality, path, wrap="model", options=None, **more):
    to = to_videomae if modality == "video" else to_mae
    state = to(model.state_dict(), model.encoder.settings.patch)
    torch.save(
        {wrap: {**state, **more}, "epoch": 3, "args": options or argparse.Namespace(lr=1)}, path
    )
