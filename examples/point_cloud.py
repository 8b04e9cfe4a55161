"""Point clouds: masks from a noise field that is read where the points are.

Points lie on no grid of tokens. So a field of green noise is made on a grid of voxels, each point
takes the value of its voxel, and `smnm.threshold` keeps the largest values of each cloud visible:
exactly as many points in every cloud, in clumps as wide as sigma says. A small model then restores
the colors of the masked points.

    python examples/point_cloud.py
"""

import torch
from torch import nn

import smnm_kernels as smnm

VOXELS, POINTS, RATIO = (16, 16, 16), 256, 0.75
BATCH, STEPS = 16, 25


def clouds(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on generated ellipsoids, float32 [batch, n, 3] in [0, 1), and colors of them."""
    random = torch.Generator().manual_seed(step)
    direction = nn.functional.normalize(torch.randn(BATCH, POINTS, 3, generator=random), dim=2)
    axes = 0.2 + 0.29 * torch.rand(BATCH, 1, 3, generator=random)
    tint = torch.rand(BATCH, 1, 3, generator=random)
    return 0.5 + axes * direction, tint + 0.5 * torch.sin(4 * direction)


def point_masks(points: torch.Tensor, sample_ids: torch.Tensor) -> smnm.Masks:
    """Masks of [batch, n] points, from green noise read at each point's voxel."""
    noise = smnm.noise(sample_ids, VOXELS, "green", sigma=(1.0, 2.0))
    size = torch.tensor(VOXELS)
    z, y, x = (points * size).long().clamp(min=0).minimum(size - 1).unbind(dim=2)
    voxel = (z * size[1] + y) * size[2] + x
    return smnm.threshold(noise.flatten(1).gather(1, voxel), RATIO)


def clumping(points: torch.Tensor, masks: smnm.Masks) -> float:
    """Share of the visible points whose nearest neighbor is visible, too."""
    distance = torch.cdist(points, points) + 9 * torch.eye(POINTS)
    nearest = distance.argmin(dim=2)
    return masks.visible.gather(1, nearest)[masks.visible].float().mean().item()


def main() -> None:
    torch.manual_seed(0)
    dim = 64
    block = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(block, 3, enable_nested_tensor=False)
    place, paint, head = nn.Linear(3, dim), nn.Linear(3, dim), nn.Linear(dim, 3)
    model = nn.ModuleList([encoder, place, paint, head])
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(STEPS):
        points, colors = clouds(step)
        masks = point_masks(points, step * BATCH + torch.arange(BATCH))  # an id for each cloud
        # All places are known; colors only where a point is visible.
        tokens = place(points) + paint(colors) * masks.visible[..., None]
        masked = masks.ids_masked[..., None].expand(-1, -1, 3)
        restored = head(encoder(tokens)).gather(1, masked)
        loss = nn.functional.mse_loss(restored, colors.gather(1, masked))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    random = smnm.threshold(torch.rand(BATCH, POINTS), RATIO)
    print(f"{masks.n_keep} of {POINTS} points visible in every cloud")
    ours, by_chance = clumping(points, masks), clumping(points, random)
    print(f"nearest neighbor visible, too: {ours:.2f}; of random masks {by_chance:.2f}")
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    main()
