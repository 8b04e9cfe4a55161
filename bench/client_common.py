"""What the clients of bench/clients.py share."""

import sys
import types
from unittest import mock

import numpy as np
import torch

#: Name: (repository, version of timm, function that runs it in a checkout's folder).
CLIENTS = {}


def client(repository, timm="0.4.12"):
    """Registers a function that runs a client of this repository."""

    def register(run):
        CLIENTS[run.__name__] = (repository, timm, run)
        return run

    return register


class Stub(types.ModuleType):
    """A module that is imported but not needed: whatever is asked of it is a class that does
    nothing."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *a, **k: None, "__call__": lambda *a: a[1]})


def stub(*names):
    for name in names:
        parts = name.split(".")
        for i in range(len(parts)):
            here = ".".join(parts[: i + 1])
            if here not in sys.modules:
                sys.modules[here] = Stub(here)
                sys.modules[here].__path__ = []


def package(name, folder):
    """The package without what its __init__ imports."""
    module = sys.modules[name] = types.ModuleType(name)
    module.__path__ = [str(folder)]
    return module


def step(model, loss):
    """A step of gradient descent; the loss."""
    loss.backward()
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.data -= 1e-3 * parameter.grad
            parameter.grad = None
    return round(float(loss), 4)


def trained(model, loss_of, steps=3):
    """The losses of some steps, all finite."""
    losses = [step(model, loss_of(model)) for _ in range(steps)]
    assert np.isfinite(losses).all()
    return losses


TINY = {"embed_dim": 48, "depth": 1, "num_heads": 2}
TINY_DECODER = {"decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 2}


def no_cuda():
    """Training code that calls CUDA on its way runs on the CPU."""
    torch.cuda.synchronize = lambda: None
    torch.Tensor.cuda = lambda tensor, *arguments, **more: tensor
    torch.cuda.amp.autocast = mock.MagicMock()
