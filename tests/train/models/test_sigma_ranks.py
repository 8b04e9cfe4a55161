"""SIGMA on two processes that share a batch: its gradients are those of one that has it all."""

from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from families import FAMILIES, shaken

from smnm_kernels import Masks, MaskSampler
from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.data.picture_rows import film_strips
from smnm_kernels.train.models.sigma import Sigma
from smnm_kernels.train.models.sigma_target import FrozenSettings

VIDEO, SIZE = FAMILIES["videomae"]
PROJECTION = Sigma(VIDEO, projection=(20, 16), dim=8, prototypes=6)
PICTURES = FrozenSettings(
    FAMILIES["mae"][0].encoder, (3, 1, *SIZE[2:]), scale=(1.0,) * 3, shift=(0.0,) * 3
)
SETTINGS = (PROJECTION, replace(PROJECTION, frozen=PICTURES))


def built(settings):
    model = settings.build({"video": InputFormat(SIZE, (0.5,) * 3, (0.2,) * 3, film_strips)}, 0)
    torch.manual_seed(1)
    shaken(model).normalise_prototypes()
    x = torch.randn(4, *SIZE)
    return model.train(), x, MaskSampler("random", model.encoder.grid, 0.75).masks(torch.arange(4))


def step(model, forward, x, masks):
    """Losses and gradients."""
    losses = forward(x, masks)
    losses["loss"].backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in losses.items()}, gradients


def process(rank, folder, expected):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    for settings, (losses, gradients) in zip(SETTINGS, expected, strict=True):
        model, x, masks = built(settings)
        half = slice(2 * rank, 2 * rank + 2)
        own = Masks(*(of_all[half] for of_all in masks))
        over_ranks = torch.nn.parallel.DistributedDataParallel(model)
        our_losses, ours = step(model, over_ranks, x[half], own)
        for name, value in our_losses.items():
            dist.all_reduce(value)
            assert torch.allclose(value / 2, losses[name], atol=1e-5), name
        assert ours.keys() == gradients.keys()
        for name, gradient in ours.items():
            assert torch.allclose(gradient, gradients[name], rtol=1e-4, atol=1e-5), name
    dist.destroy_process_group()


@pytest.mark.exhaustive
def test_losses_and_gradients_are_those_of_one_process(tmp_path):
    expected = []
    for settings in SETTINGS:
        model, x, masks = built(settings)
        expected.append(step(model, model, x, masks))
    mp.spawn(process, (tmp_path, expected), nprocs=2)
