"""The result types of the mask functions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree

from .arguments import is_int, parse_grid


class Masks(NamedTuple):
    """Which tokens of each sample are visible, in the three forms training code asks for.

    A NamedTuple, and so a pytree: ``torch.compile``, collate functions and tree maps such as those
    of ``.to()`` take it as they take any tuple. Token indices are row-major over the grid,
    ``(t*H + y)*W + x``. Every row has exactly the same number of visible tokens.
    """

    #: bool [B, N], True = visible (goes to the encoder).
    visible: Tensor
    #: int64 [B, n_keep], indices of the visible tokens, ascending.
    ids_keep: Tensor
    #: int64 [B, N], the inverse of the order [visible ascending, masked ascending]:
    #: ``cat([x_visible, mask_tokens], 1).gather(1, ids_restore)`` puts tokens back.
    ids_restore: Tensor

    @property
    def masked(self) -> Tensor:
        """bool [B, N], True = masked (VideoMAE's and Hugging Face's ``bool_masked_pos``)."""
        return ~self.visible

    @property
    def n_keep(self) -> int:
        """Visible tokens in every row."""
        return self.ids_keep.shape[1]

    @property
    def ids_masked(self) -> Tensor:
        """int64 [B, N - n_keep], indices of the masked tokens, ascending."""
        tokens = torch.arange(self.visible.shape[1], device=self.visible.device)
        in_order = torch.empty_like(self.ids_restore)
        in_order.scatter_(1, self.ids_restore, tokens.expand_as(self.ids_restore))
        return in_order[:, self.n_keep :]

    # Views: the same masks in the form and polarity that one codebase wants.

    @property
    def mae(self) -> tuple[Tensor, Tensor, Tensor]:
        """(ids_keep, float32 [B, N] with 1 = removed, ids_restore): what ``random_masking`` of
        MAE, AudioMAE and CAV-MAE computes from its noise."""
        return self.ids_keep, self.masked.float(), self.ids_restore

    @property
    def vitmae_noise(self) -> Tensor:
        """float32 [B, N], smallest kept: the ``noise`` argument of Hugging Face's ViTMAE. The model
        sorts it and gets the same ids_keep and ids_restore, if it keeps ``n_keep`` tokens."""
        return self.ids_restore.float()

    @property
    def hiera_kept(self) -> Tensor:
        """bool [B, N], True = kept: Meta Hiera's ``mask``."""
        return self.visible

    @property
    def jepa(self) -> tuple[list[Tensor], list[Tensor]]:
        """([context], [target]), int64 [B, n_keep] and [B, N - n_keep]: I-JEPA's and V-JEPA's lists
        of index tensors."""
        return [self.ids_keep], [self.ids_masked]

    @property
    def data2vec_masked(self) -> Tensor:
        """uint8 [B, N], 1 = masked: data2vec 2's and EAT's ``precomputed_mask``."""
        return self.masked.to(torch.uint8)

    def with_prefix(self, n: int = 1) -> Masks:
        """The same masks over [n tokens that are always visible, the N of the grid], N + n in all.

        For models that count a class token, register tokens or the like with the patches (lightly,
        timm's ``num_prefix_tokens``): ``ids_keep`` begins with 0 to n - 1, and every other index is
        n larger.
        """
        if not is_int(n) or n < 0:
            raise ValueError(f"n must be a non-negative int, got {n!r}")
        pad = torch.nn.functional.pad
        visible = pad(self.visible, (n, 0), value=True)
        first = torch.arange(n, device=self.visible.device).expand(len(self.visible), n)
        ids = (torch.cat([first, ids + n], dim=1) for ids in (self.ids_keep, self.ids_restore))
        return Masks(visible, *ids)

    @classmethod
    def from_visible(cls, visible: Tensor, n_keep: int | None = None) -> Masks:
        """Masks made elsewhere, from bool ``visible`` [B, N], True = visible.

        Checks that every row shows as many tokens as the first, because models that take a batch of
        masks silently mix up samples otherwise. The check makes the host wait for the device.

        Args:
            n_keep: how many tokens every row must show; by default as many as row 0 shows.

        Raises:
            TypeError, ValueError: naming what is wrong. Where the masked tokens of ``visible`` are
                ``n_keep``, the message says that the polarity looks wrong.
        """
        return masks_of_visible(visible, _count("visible", visible, n_keep, visible_is=True))

    @classmethod
    def from_masked(cls, masked: Tensor, n_keep: int | None = None) -> Masks:
        """As ``from_visible``, from bool ``masked`` [B, N], True = masked (VideoMAE's and Hugging
        Face's ``bool_masked_pos``). ``n_keep`` counts the visible tokens here, too."""
        n_keep = _count("masked", masked, n_keep, visible_is=False)
        return masks_of_visible(~masked, n_keep)

    def freq_major(self, grid: Sequence[int]) -> Masks:
        """The same masks with tokens counted mel band first, ``(t*W + x)*H + y``.

        For audio models that flatten the spectrogram frequency-major (CAV-MAE, M2D, Hugging
        Face AST). ``grid`` is the time-major (T, H = time, W = mel) grid the masks were made on, or
        (H, W).
        """
        visible = self.visible.unflatten(1, parse_grid(grid)).transpose(2, 3).flatten(1)
        return masks_of_visible(visible, self.n_keep)


class ActivityMasks(NamedTuple):
    """What ``activity_masks`` returns: masks, and the sounds that they were made from. The first
    three fields are those of ``Masks``."""

    #: bool [B, N], True = visible.
    visible: Tensor
    #: int64 [B, n_keep], indices of the visible tokens, ascending.
    ids_keep: Tensor
    #: int64 [B, N], the inverse of the order [visible ascending, masked ascending].
    ids_restore: Tensor
    #: int64 [B, H], for each row of patches, from the first to the last in time: 0 where it is
    #: quiet, k in the k-th segment.
    segments: Tensor

    @property
    def masks(self) -> Masks:
        """The same masks as all other functions return."""
        return Masks(*self[:3])


def masks_of_visible(visible: Tensor, n_keep: int) -> Masks:
    """Masks of bool ``visible`` [B, N], every row of which must show exactly ``n_keep`` tokens.

    This is not checked, so the host does not wait for the device.
    """
    tokens = torch.arange(visible.shape[1], device=visible.device).expand_as(visible)
    visible_before = visible.cumsum(1) - visible.long()
    ids_restore = torch.where(visible, visible_before, n_keep + tokens - visible_before)
    in_order = torch.empty_like(ids_restore).scatter_(1, ids_restore, tokens)
    return Masks(visible, in_order[:, :n_keep].contiguous(), ids_restore)


def _count(name: str, given: Tensor, n_keep: int | None, visible_is: bool) -> int:
    """Checks the bool mask ``given``; returns how many tokens each of its rows shows.

    Args:
        name: what messages call it.
        visible_is: the value that marks visible tokens.
    """
    wanted = f"{name} must be a bool tensor [B, N], True = {name}"
    if not isinstance(given, Tensor):
        raise TypeError(f"{wanted}, got {type(given).__name__}")
    if given.dtype != torch.bool:
        raise TypeError(
            f"{wanted}, got {given.dtype}: where a model indexes with a mask, numbers pick rows "
            "instead of tokens; use .bool()"
        )
    if n_keep is not None and not is_int(n_keep):
        raise TypeError(f"n_keep must be an int, got {n_keep!r}")
    if given.dim() != 2:
        raise ValueError(f"{wanted}, got shape {list(given.shape)}")
    shown: list[int] = (given if visible_is else ~given).sum(1).tolist()
    if shown:
        count = shown[0]
    elif n_keep is None:
        raise ValueError(f"n_keep must be given where {name} has no rows")
    else:
        count = n_keep
    if len(set(shown)) > 1:
        row = next(i for i, count in enumerate(shown) if count != shown[0])
        raise ValueError(
            f"{name} must leave the same number of tokens visible in every row, got {shown[0]} in "
            f"row 0 and {shown[row]} in row {row}"
        )
    if n_keep is not None and count != n_keep:
        other = "from_masked" if visible_is else "from_visible"
        hint = f": this looks like its complement, for which there is Masks.{other}"
        raise ValueError(
            f"{name} must leave n_keep={n_keep} tokens visible in every row, got {count} of "
            f"{given.shape[1]}{hint if given.shape[1] - count == n_keep else ''}"
        )
    if count == 0:
        raise ValueError(f"{name} must leave at least one token visible, got 0")
    return count


# torch.export can save a model that returns masks only if their type is registered.
_pytree._register_namedtuple(Masks, serialized_type_name="smnm_kernels.Masks")
_pytree._register_namedtuple(ActivityMasks, serialized_type_name="smnm_kernels.ActivityMasks")
