"""What training code does without smnm, restated from its definitions: random masks, and masks of a
precomputed bank of noise."""

import torch
from torch import Tensor

MaeMasks = tuple[Tensor, Tensor, Tensor]


def mae_random_masking(
    batch: int, n_tokens: int, ratio: float, device: torch.device | str = "cpu"
) -> MaeMasks:
    """MAE: two argsorts of uniform noise and a gather (Masked Autoencoders, 2021)."""
    return _kept_first(torch.rand(batch, n_tokens, device=device).argsort(dim=1), ratio)


def rand_topk(
    batch: int, n_tokens: int, ratio: float, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """The cheapest random mask without ids_restore: topk and a boolean scatter."""
    n_keep = int(n_tokens * (1 - ratio))
    noise = torch.rand(batch, n_tokens, device=device)
    ids_keep = noise.topk(n_keep, dim=1, sorted=False).indices
    visible = torch.zeros(batch, n_tokens, dtype=torch.bool, device=device)
    return visible.scatter_(1, ids_keep, True), ids_keep


def bank_masking(volumes: Tensor, batch: int, grid: tuple[int, int, int], ratio: float) -> MaeMasks:
    """A random crop and flips of a noise bank per sample, as a data loader takes them, then MAE's
    argsorts of the noise."""
    crops = []
    for _ in range(batch):
        volume = volumes[int(torch.randint(len(volumes), ()))]
        start = [int(torch.randint(s - n + 1, ())) for s, n in zip(volume.shape, grid, strict=True)]
        crop = volume[tuple(slice(at, at + n) for at, n in zip(start, grid, strict=True))]
        crops.append(crop.flip([axis for axis in range(3) if torch.rand(()) < 0.5]))
    noise = torch.stack(crops).flatten(1)
    return _kept_first(noise.argsort(dim=1, descending=True), ratio)


def resident_bank_masking(
    volumes: Tensor, batch: int, grid: tuple[int, int, int], ratio: float
) -> MaeMasks:
    """``bank_masking`` where the bank lies on the device, without waiting for the host: volumes,
    starts and flips are drawn there, and one indexing takes all crops."""
    noise = resident_crops(volumes, batch, grid).flatten(1)
    return _kept_first(noise.argsort(dim=1, descending=True), ratio)


def resident_crops(volumes: Tensor, batch: int, grid: tuple[int, int, int]) -> Tensor:
    device = volumes.device
    index = [torch.randint(len(volumes), (batch, 1, 1, 1), device=device)]
    for axis, (side, longest) in enumerate(zip(grid, volumes.shape[1:], strict=True)):
        start = torch.randint(longest - side + 1, (batch, 1), device=device)
        flipped = torch.rand(batch, 1, device=device) < 0.5
        step = torch.arange(side, device=device)
        shape = [batch, 1, 1, 1]
        shape[1 + axis] = side
        index.append((start + torch.where(flipped, side - 1 - step, step)).reshape(shape))
    return volumes[tuple(index)]


def _kept_first(ids_shuffle: Tensor, ratio: float) -> MaeMasks:
    """(ids_keep, ids_restore, masked) as in MAE: the first of the shuffled tokens are kept."""
    ids_restore = ids_shuffle.argsort(dim=1)
    n_keep = int(ids_shuffle.shape[1] * (1 - ratio))
    masked = torch.ones(ids_shuffle.shape, device=ids_shuffle.device)
    masked[:, :n_keep] = 0
    return ids_shuffle[:, :n_keep], ids_restore, masked.gather(1, ids_restore)
