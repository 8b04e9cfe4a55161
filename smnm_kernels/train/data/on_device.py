"""Small tensors of the host on their way to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def moved(t: Tensor, device: torch.device) -> Tensor:
    """The same on the device. CUDA copies from pinned memory while the host goes on; a copy from
    other memory would have it wait until all steps before are done."""
    if device.type == "cuda" and t.device.type == "cpu":
        return t.pin_memory().to(device, non_blocking=True)
    return t.to(device)
