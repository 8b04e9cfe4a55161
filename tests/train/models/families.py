"""Small models of each family, and inputs for them."""

from dataclasses import replace

import torch

from smnm_kernels import MaskSampler
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import AUDIOMAE, MAE, VIDEOMAE


def sized(settings, patch, dim=24, decoder_dim=12, decoder_depth=2, heads=2):
    settings = settings.resized(
        dim=dim,
        depth=2,
        heads=heads,
        decoder_dim=decoder_dim,
        decoder_depth=decoder_depth,
        decoder_heads=heads,
    )
    return replace(settings, encoder=replace(settings.encoder, patch=patch))


# settings and input size (C, T, H, W) of each; grids (2, 3, 4), (1, 4, 6) and (1, 8, 4).
FAMILIES = {
    "videomae": (sized(VIDEOMAE, (2, 4, 4)), (3, 4, 12, 16)),
    "mae": (sized(MAE, (1, 4, 4)), (3, 1, 16, 24)),
    "audiomae": (sized(AUDIOMAE, (1, 4, 4)), (1, 1, 32, 16)),
}


def shaken(module):
    """Weights with nothing at zero or one, so that no bias or norm can be mixed up unseen."""
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn_like(p))
    return module.eval()


def small(family="videomae", **changes):
    settings, input_size = FAMILIES[family]
    return build_model(replace(settings, **changes), input_size, seed=0)


def input_and_masks(model, batch=2, ratio=0.75):
    x = torch.randn(batch, *model.encoder.input_size)
    return x, MaskSampler("random", model.encoder.grid, ratio)(batch)
