"""A masked autoencoder for 3D volumes, such as CT or MR scans, with green noise masks.

The grid is (T, H, W) for video and just as well (D, H, W) for a volume: noise is the same along
all three axes. Here the volumes are generated, bright organs in a dark body.

    python examples/volume_3d.py
"""

import torch
from torch import nn

import smnm_kernels as smnm

SIZE, PATCH = 48, 8
GRID = (SIZE // PATCH,) * 3  # depth, height, width in patches
BATCH, STEPS = 8, 30


def volumes(step: int) -> torch.Tensor:
    """float32 [batch, depth, height, width]: an ellipsoid with two smaller ones in it."""
    random = torch.Generator().manual_seed(step)
    place = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, SIZE)] * 3, indexing="ij"))
    volume = torch.zeros(BATCH, SIZE, SIZE, SIZE)
    for radius, spread, brightness in ((0.8, 0.1, 0.3), (0.35, 0.4, 0.8), (0.25, 0.4, 1.0)):
        center = spread * (2 * torch.rand(BATCH, 3, 1, 1, 1, generator=random) - 1)
        axes = radius * (0.7 + 0.3 * torch.rand(BATCH, 3, 1, 1, 1, generator=random))
        inside = (((place - center) / axes) ** 2).sum(dim=1) < 1
        volume[inside] = brightness
    return volume


def patches_of(volume: torch.Tensor) -> torch.Tensor:
    """[batch, D, H, W] -> [batch, N, 512], in the order of the mask's tokens."""
    cut = volume.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    return cut.flatten(1, 3).flatten(2)


class MaskedAutoencoder(nn.Module):
    def __init__(self, n_tokens: int, values: int, dim: int = 64) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(values, dim), nn.Linear(dim, values)
        self.positions = nn.Parameter(0.02 * torch.randn(n_tokens, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        block = nn.TransformerEncoderLayer(dim, 4, 2 * dim, 0.0, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.decoder = nn.TransformerEncoder(block, 1, enable_nested_tensor=False)

    def forward(self, patches: torch.Tensor, masks: smnm.Masks) -> torch.Tensor:
        x = self.embed(patches) + self.positions
        visible = x.gather(1, masks.ids_keep[..., None].expand(-1, -1, x.shape[2]))
        encoded = self.encoder(visible)
        hidden = self.mask_token.expand(len(x), x.shape[1] - masks.n_keep, -1)
        tokens = torch.cat([encoded, hidden], 1).gather(
            1, masks.ids_restore[..., None].expand_as(x)
        )
        restored = self.head(self.decoder(tokens + self.positions))
        masked = masks.ids_masked[..., None].expand(-1, -1, patches.shape[2])
        return nn.functional.mse_loss(restored.gather(1, masked), patches.gather(1, masked))


def main() -> None:
    torch.manual_seed(0)
    sampler = smnm.MaskSampler("green3d", GRID, mask_ratio=0.8, sigma=(0.6, 1.5), seed=0)
    n_tokens = GRID[0] * GRID[1] * GRID[2]
    model = MaskedAutoencoder(n_tokens, PATCH**3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(STEPS):
        loss = model(patches_of(volumes(step)), sampler(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"{sampler.n_keep} of {n_tokens} patches visible in every volume")
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    main()
