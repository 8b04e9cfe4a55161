"""The loop of AudioMAE on spectrograms, with regularized blue noise (R-BN) masks.

R-BN spreads the visible patches evenly over time and frequency. It makes K masks together, a bank:
consecutive samples of the stream share one, and their visible patches never meet.

    python examples/audiomae_rbn.py
"""

import torch
from torch import nn

import smnm_kernels as smnm

TIME, MEL, PATCH = 256, 128, 16
GRID = (1, TIME // PATCH, MEL // PATCH)  # H = time, W = frequency band
BATCH, STEPS, RATE = 30, 30, 16_000


def spectrograms(step: int) -> torch.Tensor:
    """Log power of generated tones that slide up or down, float32 [batch, time, band]."""
    random = torch.Generator().manual_seed(step)
    low, high, loud = torch.rand(3, BATCH, 1, generator=random)
    at = torch.linspace(0, 1, TIME * 127)
    frequency = 200 + 7000 * (low + (high - low) * at)
    wave = (0.2 + loud) * torch.sin(2 * torch.pi * torch.cumsum(frequency / RATE, dim=1))
    spectrum = torch.stft(wave, 254, 127, window=torch.hann_window(254), return_complex=True)
    power = (spectrum.abs() ** 2)[:, :MEL, :TIME].transpose(1, 2)
    return (torch.log(power + 1e-3) - 1) / 4


def patches_of(spectrogram: torch.Tensor) -> torch.Tensor:
    """[batch, time, band] -> [batch, N, 256], time-major like AudioMAE's tokens."""
    cut = spectrogram.unfold(1, PATCH, PATCH).unfold(2, PATCH, PATCH)
    return cut.flatten(1, 2).flatten(2)


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
    sampler = smnm.MaskSampler("rbn", GRID, mask_ratio=0.8, seed=0)
    in_a_bank = sampler(5).visible.sum(dim=0)  # K = 5 at ratio 0.8
    print(f"a bank shows {int((in_a_bank == 1).sum())} of {GRID[1] * GRID[2]} patches once each")

    model = MaskedAutoencoder(GRID[1] * GRID[2], PATCH * PATCH)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    losses = []
    for step in range(STEPS):
        loss = model(patches_of(spectrograms(step)), sampler(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    print(f"loss {sum(losses[:5]) / 5:.3f} -> {sum(losses[-5:]) / 5:.3f}")


if __name__ == "__main__":
    main()
