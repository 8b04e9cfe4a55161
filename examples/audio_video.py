"""Audio and video of the same clips: one encoder, masks that hide the same moments in both.

If a moment is hidden in one modality and visible in the other, the second gives it away.
`AudioVideoSampler` with `hidden_time` hides a share of the clip's moments in both, and still shows
exactly as many tokens of each as asked for.

    python examples/audio_video.py
"""

import torch
from torch import nn

import smnm_kernels as smnm

MOMENTS, BATCH, STEPS, DIM = 8, 8, 30, 64
VIDEO_GRID, AUDIO_GRID = (MOMENTS, 6, 6), (1, 4 * MOMENTS, 8)  # audio: H = time, W = mel band


def clips(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Generated tokens, float32 [batch, N, 8]: a bar that moves, and a tone that moves with it."""
    random = torch.Generator().manual_seed(step)
    speed, phase = torch.rand(2, BATCH, 1, generator=random)
    height = torch.sin(6 * (0.5 + speed) * torch.linspace(0, 1, 4 * MOMENTS) + 6 * phase)
    bar = torch.exp(-5 * (torch.linspace(-1, 1, 6) - height[:, ::4, None]) ** 2)
    tone = torch.exp(-5 * (torch.linspace(-1, 1, 8) - height[:, :, None]) ** 2)
    video, audio = bar.repeat_interleave(6, dim=2).flatten(1), tone.flatten(1)
    return video[..., None].expand(-1, -1, 8), audio[..., None].expand(-1, -1, 8)


class Modality(nn.Module):
    """Embeds tokens, and restores the masked ones from what the encoder made of all visible."""

    def __init__(self, grid: tuple[int, int, int]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(8, DIM), nn.Linear(DIM, 8)
        self.positions = nn.Parameter(0.02 * torch.randn(grid[0] * grid[1] * grid[2], DIM))
        self.decoder = nn.TransformerDecoderLayer(DIM, 4, 2 * DIM, 0.0, batch_first=True)

    def visible(self, tokens: torch.Tensor, masks: smnm.Masks) -> torch.Tensor:
        x = self.embed(tokens) + self.positions
        return x.gather(1, masks.ids_keep[..., None].expand(-1, -1, DIM))

    def loss(self, encoded: torch.Tensor, tokens: torch.Tensor, masks: smnm.Masks) -> torch.Tensor:
        ids = masks.ids_masked
        restored = self.head(self.decoder(self.positions[ids], encoded))
        target = tokens.gather(1, ids[..., None].expand_as(restored))
        return nn.functional.mse_loss(restored, target)


def main() -> None:
    torch.manual_seed(0)
    sampler = smnm.AudioVideoSampler(
        video={"kind": "green3d", "grid": VIDEO_GRID, "mask_ratio": 0.8},
        audio={"kind": "rbn", "grid": AUDIO_GRID, "mask_ratio": 0.8},
        hidden_time=0.5,
    )
    video, audio = Modality(VIDEO_GRID), Modality(AUDIO_GRID)
    block = nn.TransformerEncoderLayer(DIM, 4, 2 * DIM, 0.0, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
    optimizer = torch.optim.AdamW(nn.ModuleList([video, audio, encoder]).parameters(), lr=1e-3)
    losses = []
    for step in range(STEPS):
        pictures, sounds = clips(step)
        masks = sampler(BATCH)
        seen = [video.visible(pictures, masks.video), audio.visible(sounds, masks.audio)]
        encoded = encoder(torch.cat(seen, dim=1))
        loss = video.loss(encoded, pictures, masks.video) + audio.loss(encoded, sounds, masks.audio)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    seen_in = [m.visible.unflatten(1, (MOMENTS, -1)).any(dim=2) for m in masks]
    print(f"moments hidden in both, of {MOMENTS}: {(~(seen_in[0] | seen_in[1])).sum(1).tolist()}")
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    main()
