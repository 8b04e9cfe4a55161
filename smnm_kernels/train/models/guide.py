"""What self-guided masks look at: features of every patch, by the encoder as it is at that time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .mae import MaskedAutoencoder


class Guide:
    """guide(x [B, C, T, H, W], valid bool [B, N] or None) -> float32 [B, dim, *grid].

    The features of the encoder that trains, after its last block and final norm: it sees every
    patch, or every valid one, with today's weights, without gradients, as in evaluation. Nothing is
    kept from one call to the next, so a run that goes on from a checkpoint is guided as before.

    precision: of the encoder's matrix products, None for float32.
    """

    def __init__(self, model: MaskedAutoencoder, precision: torch.dtype | None = None) -> None:
        # The module itself: neither what compiles it, nor what shares it among processes.
        self.encoder, self.precision = model.encoder, precision

    @torch.no_grad()
    def __call__(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        encoder, was_training = self.encoder, self.encoder.training
        seen = valid
        if valid is not None and encoder.class_tokens:
            seen = torch.cat([torch.ones_like(valid[:, :1]), valid], dim=1)
        encoder.eval()
        try:
            with torch.autocast(x.device.type, self.precision, enabled=self.precision is not None):
                tokens = encoder.encode(encoder.patchify(x), None, seen)[:, encoder.class_tokens :]
        finally:
            encoder.train(was_training)
        return tokens.float().mT.unflatten(2, encoder.grid)

    def nothing(self, x: Tensor) -> Tensor:
        """Zeros in place of features, for masks that do not depend on them."""
        return x.new_zeros(1).expand(len(x), 1, *self.encoder.grid)


def guide_of(model: nn.Module, precision: torch.dtype | None = None) -> Guide | None:
    """None where the model has no such encoder."""
    return Guide(model, precision) if isinstance(model, MaskedAutoencoder) else None
