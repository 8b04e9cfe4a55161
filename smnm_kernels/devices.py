"""Questions about a device that are asked before a launch."""

from __future__ import annotations

import torch


def is_cuda(device: torch.device) -> bool:
    """Whether it is a GPU: kernels must be loaded there, and allocations may belong to CUDA graphs.
    ROCm's devices count, too."""
    return device.type == "cuda"


def is_capturing(device: torch.device) -> bool:
    """Whether a CUDA graph is being captured on the device's current stream."""
    if not is_cuda(device):
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()
