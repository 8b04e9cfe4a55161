"""A masked autoencoder for images (Hugging Face's ViTMAE) with green noise masks.

ViTMAE draws its masks from an argument named `noise`, of which the smallest values stay visible.
`masks.vitmae_noise` is such a noise, so the model itself needs no change.

    pip install transformers
    python examples/mae_images.py
"""

import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from smnm_kernels.adapters import hf_sampler

SIZE, BATCH, STEPS = 64, 32, 40


def pictures(step: int) -> torch.Tensor:
    """Generated pictures, float32 [batch, 3, height, width]: a disk before a gradient."""
    random = torch.Generator().manual_seed(step)
    place = torch.linspace(0, 1, SIZE)
    y, x = place[:, None], place[None, :]
    cy, cx, radius = torch.rand(3, BATCH, 1, 1, generator=random)
    inside = (y - cy) ** 2 + (x - cx) ** 2 < (0.1 + 0.2 * radius) ** 2
    disk, slope = torch.rand(2, BATCH, 3, 1, 1, generator=random)
    background = slope * x + (1 - slope) * y
    return torch.where(inside[:, None], disk, background) * 2 - 1


def main() -> None:
    torch.manual_seed(0)
    config = ViTMAEConfig(
        image_size=SIZE, patch_size=8, mask_ratio=0.75,
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        decoder_hidden_size=64, decoder_intermediate_size=128,
        decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
        initializer_range=0.1,  # wide, because so small a model trains for so few steps
    )  # fmt: skip
    model = ViTMAEForPreTraining(config)
    for positions in (model.vit.embeddings.position_embeddings, model.decoder.decoder_pos_embed):
        if not positions.any():  # transformers 5.24 leaves them at zero in a model of a config
            torch.nn.init.normal_(positions, std=0.5)
    sampler = hf_sampler(config, "green2d", seed=0)  # grid and count are the config's
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(STEPS):
        loss = model(pictures(step), noise=sampler(BATCH).vitmae_noise).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    print(f"{sampler.n_keep} of {(SIZE // 8) ** 2} patches visible in every picture")
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    main()
