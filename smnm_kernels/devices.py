"""What is asked of a device before something is launched there."""

from __future__ import annotations

import torch


def is_cuda(device: torch.device) -> bool:
    """Whether kernels must be loaded there, and allocations may belong to CUDA graphs. Also ROCm's
    devices."""
    return device.type == "cuda"


def is_capturing(device: torch.device) -> bool:
    """Whether what is launched there now goes into a CUDA graph."""
    if not is_cuda(device):
        return False
    with torch.cuda.device(device):
        return torch.cuda.is_current_stream_capturing()
