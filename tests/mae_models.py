"""Models that mask in their own method, written from their definitions."""

import torch
from torch import nn

import smnm_kernels as smnm


class Mae(nn.Module):
    """As much of MAE as calls its method and uses what comes back."""

    def __init__(self, n_tokens=16, dim=6):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.predict = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, n_tokens, dim))

    def random_masking(self, x, mask_ratio):
        n, length, dim = x.shape
        len_keep = int(length * (1 - mask_ratio))
        ids_shuffle = torch.argsort(torch.rand(n, length), dim=1)
        ids_restore = torch.argsort(ids_shuffle, dim=1)
        ids_keep = ids_shuffle[:, :len_keep]
        x_masked = torch.gather(x, 1, ids_keep.unsqueeze(-1).repeat(1, 1, dim))
        mask = torch.ones([n, length])
        mask[:, :len_keep] = 0
        return x_masked, torch.gather(mask, 1, ids_restore), ids_restore

    def forward(self, x, mask_ratio=0.75):
        latent, mask, ids_restore = self.random_masking(self.embed(x), mask_ratio)
        n, length, dim = x.shape
        tokens = self.mask_token.expand(n, length - latent.shape[1], dim)
        tokens = torch.cat([latent, tokens], dim=1)
        tokens = torch.gather(tokens, 1, ids_restore.unsqueeze(-1).expand(-1, -1, dim))
        loss = ((self.predict(tokens + self.positions) - x) ** 2).mean(dim=-1)
        return (loss * mask).sum() / mask.sum()


def sampler(**more):
    return smnm.MaskSampler("green2d", (1, 4, 4), 0.75, seed=2, **more)


def m2d_random_mask(shape, mask_ratio, device):
    batch, n_f, n_t = shape
    noise = torch.rand(batch, n_f * n_t, device=device)
    return torch.argsort(noise, dim=1), int(n_f * n_t * (1 - mask_ratio))


class MaeSt(Mae):
    """Facebook's mae_st returns ids_keep, too."""

    def random_masking(self, x, mask_ratio):
        x_masked, removed, ids_restore = super().random_masking(x, mask_ratio)
        return x_masked, removed, ids_restore, ids_restore.argsort(1)[:, : x_masked.shape[1]]


class AudioMae(Mae):
    def random_masking_2d(self, x, mask_t_prob, mask_f_prob):
        raise AssertionError


class CavMae(nn.Module):
    def random_masking_unstructured(self, x, mask_ratio):
        raise AssertionError

    def random_masking_structured(self, x, mask_ratio, t=64, f=8, mode="time"):
        raise AssertionError


class ColorMae(Mae):
    def color_masking(self, x):
        raise AssertionError


class M2d(Mae):
    def __init__(self):
        super().__init__()
        self._random_mask_fn = m2d_random_mask

    def random_masking(self, x, mask_ratio, adjust_short=False):
        return self._random_mask_fn((len(x), 4, 4), mask_ratio, x.device)


class Hiera(nn.Module):
    mask_spatial_shape = [4, 4]  # noqa: RUF012, a list there

    def get_random_mask(self, x, mask_ratio):
        raise AssertionError


class AdaMae(nn.Module):
    visible_patches = 4

    def get_mask(self, x):
        raise AssertionError
