"""A training step in a CUDA graph that draws new masks in every replay.

A sampler's seed and place in the stream are buffers that the graph reads and advances on the
device. So replays are the steps of the stream, and `sampler.reset` starts it again, without another
capture. Needs a CUDA device; without one it says so and ends.

    python examples/cuda_graph.py
"""

import torch
from torch import nn

import smnm_kernels as smnm

GRID, BATCH, STEPS = (8, 14, 14), 32, 20


class Step(nn.Module):
    """Draws masks, encodes the visible tokens and restores all of them: one loss."""

    def __init__(self, dim: int = 128) -> None:
        super().__init__()
        self.sampler = smnm.MaskSampler("green3d", GRID, mask_ratio=0.9, seed=0)
        self.encoder = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        masks = self.sampler(x.shape[0])
        visible = x.gather(1, masks.ids_keep[..., None].expand(-1, -1, x.shape[2]))
        hidden = self.mask_token.expand(x.shape[0], x.shape[1] - masks.n_keep, -1)
        tokens = torch.cat([self.encoder(visible), hidden], dim=1)
        restored = tokens.gather(1, masks.ids_restore[..., None].expand_as(x))
        return nn.functional.mse_loss(restored, x)


def main() -> None:
    if not torch.cuda.is_available():
        print("skipped: a CUDA graph needs a CUDA device, and torch finds none")
        return
    torch.manual_seed(0)
    step = Step().cuda()  # the sampler compiles its kernels here, so the capture need not
    x = torch.randn(BATCH, GRID[0] * GRID[1] * GRID[2], 128, device="cuda")
    optimizer = torch.optim.AdamW(step.parameters(), lr=1e-3, capturable=True)

    def train() -> torch.Tensor:
        optimizer.zero_grad(set_to_none=True)
        loss = step(x)
        loss.backward()
        optimizer.step()
        return loss

    # PyTorch asks for a few steps on another stream before the capture.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            train()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = train()

    step.sampler.reset()
    for i in range(STEPS):
        x.normal_()  # the next batch goes where the graph reads
        graph.replay()
        print(f"step {i}: loss {loss.item():.4f}, samples drawn {int(step.sampler.next_id)}")


if __name__ == "__main__":
    main()
