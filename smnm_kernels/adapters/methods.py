"""Replacements for the masking methods of models that mask inside their forward pass.

``install`` puts them into a model. By hand, they are assigned to the model instance under the
method's name. They are no ``nn.Module``: a model registers a module as a child and would go on to
call its own method.

In ``nn.DataParallel`` every copy of the model calls the same object, which then draws from the copy
of the sampler on its device. For that the sampler must be an attribute of the model.

A model that asks for a mask ratio of 0, as at evaluation, gets all tokens in their order. The
sampler then draws nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from smnm_kernels.arguments import parse_flag, parse_n_keep
from smnm_kernels.samplers import MaskSampler, ScheduledSampler, check_sampler
from smnm_kernels.samplers.replicas import copy_of_this_thread

Sampler = MaskSampler | ScheduledSampler


class RandomMasking:
    """``random_masking`` of MAE and AudioMAE, CAV-MAE's two methods, ColorMAE's ``color_masking``.

    >>> model.mask_sampler = smnm.MaskSampler("green2d", (1, 14, 14), 0.75)
    >>> model.random_masking = RandomMasking(model.mask_sampler)

    As an attribute of the model, the sampler is saved and moved with it.

    Args:
        samplers: one; or several with different numbers of tokens, for models such as CAV-MAE that
            mask audio and video with the same method. A call takes the sampler whose grid has as
            many tokens as its input. CAV-MAE's audio tokens are frequency-major: make that sampler
            with ``freq_major=True``.
        ids_keep: whether calls return ids_keep, int64 [B, n_keep], as a fourth value (mae_st).
    """

    def __init__(self, *samplers: Sampler, ids_keep: bool = False) -> None:
        self.samplers = {_n_tokens(sampler): sampler for sampler in samplers}
        if not samplers or len(self.samplers) < len(samplers):
            raise ValueError(
                "samplers must be one, or several of different numbers of tokens, got "
                f"{[_n_tokens(sampler) for sampler in samplers]}"
            )
        self.ids_keep = parse_flag("ids_keep", ids_keep)

    def __call__(
        self,
        x: Tensor,
        mask_ratio: float | None = None,
        t: int | None = None,
        f: int | None = None,
        mode: str | None = None,
    ) -> tuple[Tensor, ...]:
        """x [B, N, D] -> (visible tokens [B, n_keep, D], float32 [B, N] with 1 = removed,
        ids_restore int64 [B, N]), and ids_keep if it was asked for.

        Args:
            mask_ratio: the model's ratio. A MaskSampler's count must agree with it, by our rounding
                or by MAE's ``int(N * (1 - mask_ratio))``. With a ScheduledSampler it is ignored. 0
                keeps everything, whatever the sampler.
            t, f, mode: arguments of CAV-MAE's structured masking. They are ignored: the sampler's
                kind decides the structure.
        """
        if mask_ratio is not None and mask_ratio == 0:
            return self._everything(x)
        sampler = self._sampler_for(x)
        if mask_ratio is not None:
            _check_count(x.shape[1], sampler, mask_ratio)
        return self._mask(x, sampler)

    def random_masking_2d(
        self, x: Tensor, mask_t_prob: float, mask_f_prob: float
    ) -> tuple[Tensor, ...]:
        """AudioMAE's other method, of models made with ``mask_2d=True``. It keeps
        int(T * (1 - mask_t_prob)) * int(F * (1 - mask_f_prob)) tokens, and the sampler must, too.
        """
        if mask_t_prob == mask_f_prob == 0:
            return self._everything(x)
        sampler = self._sampler_for(x)
        _, n_t, n_f = sampler.grid
        n_keep = int(n_t * (1 - mask_t_prob)) * int(n_f * (1 - mask_f_prob))
        if n_keep != sampler.n_keep:
            raise ValueError(
                f"mask_t_prob={mask_t_prob!r} and mask_f_prob={mask_f_prob!r} keep {n_keep} of "
                f"{n_t} x {n_f} tokens, but the sampler {sampler.n_keep}: make it with "
                f"n_keep={n_keep}"
            )
        return self._mask(x, sampler)

    def _sampler_for(self, x: Tensor) -> Sampler:
        if x.shape[1] not in self.samplers:
            raise ValueError(
                f"x must have {' or '.join(map(str, self.samplers))} tokens, as the sampler's "
                f"grid has, got {list(x.shape)}"
            )
        return _sampler_on(x.device, self.samplers[x.shape[1]])

    def _mask(self, x: Tensor, sampler: Sampler) -> tuple[Tensor, ...]:
        ids_keep, removed, ids_restore = sampler(x.shape[0]).mae
        visible = x.gather(1, ids_keep[..., None].expand(-1, -1, x.shape[2]))
        return (visible, removed, ids_restore, *([ids_keep] if self.ids_keep else []))

    def _everything(self, x: Tensor) -> tuple[Tensor, ...]:
        batch, n_tokens, _ = x.shape
        ids = torch.arange(n_tokens, device=x.device).repeat(batch, 1)
        removed = torch.zeros(batch, n_tokens, device=x.device)
        return (x.clone(), removed, ids, *([ids.clone()] if self.ids_keep else []))


class M2dMasking:
    """M2D's and MSM-MAE's ``_random_mask_fn``.

    >>> model.mask_sampler = smnm.MaskSampler("rbn", (1, 38, 5), 0.7, freq_major=True)
    >>> model._random_mask_fn = M2dMasking(model.mask_sampler)

    Args:
        sampler: on a (1, T, F) grid with ``freq_major=True``, the order of M2D's tokens.
    """

    def __init__(self, sampler: Sampler) -> None:
        _n_tokens(sampler)
        self.sampler = sampler

    def __call__(
        self, shape: Sequence[int], mask_ratio: float, device: torch.device | str
    ) -> tuple[Tensor, int]:
        """shape (B, F, T) -> (ids_shuffle int64 [B, F*T]: the visible tokens, then the masked
        ones, each ascending; how many are visible)."""
        batch, n_f, n_t = shape
        if mask_ratio == 0:
            return torch.arange(n_t * n_f, device=device).repeat(batch, 1), n_t * n_f
        sampler = _sampler_on(torch.device(device), self.sampler)
        settings = sampler.settings
        if settings.grid != (1, n_t, n_f) or not (settings.freq_major or 1 in (n_t, n_f)):
            raise ValueError(
                f"M2D masks {n_f} x {n_t} patches (F x T), counted frequency-major: the sampler's "
                f"grid must be (1, {n_t}, {n_f}) with freq_major=True, got {settings.grid} with "
                f"freq_major={settings.freq_major}"
            )
        _check_count(n_t * n_f, sampler, mask_ratio)
        masks = sampler(batch)
        return torch.cat([masks.ids_keep, masks.ids_masked], dim=1), settings.n_keep


class HieraMasking:
    """``get_random_mask`` of Meta's Hiera.

    >>> model.mask_sampler = smnm.MaskSampler("green2d", model.mask_spatial_shape, 0.6)
    >>> model.get_random_mask = HieraMasking(model.mask_sampler)

    Args:
        sampler: on the grid of the mask units, ``model.mask_spatial_shape``.
    """

    def __init__(self, sampler: Sampler) -> None:
        _n_tokens(sampler)
        self.sampler = sampler

    def __call__(self, x: Tensor, mask_ratio: float) -> Tensor:
        """The model's input [B, ...] -> bool [B, units], True = kept."""
        n_units = _n_tokens(self.sampler)
        if mask_ratio == 0:
            return torch.ones(x.shape[0], n_units, dtype=torch.bool, device=x.device)
        sampler = _sampler_on(x.device, self.sampler)
        _check_count(n_units, sampler, mask_ratio)
        return sampler(x.shape[0]).hiera_kept


class AdaMaeMasking:
    """``get_mask`` of AdaMAE's encoder, for comparisons with masks that are not learned.

    >>> encoder.mask_sampler = smnm.MaskSampler("green3d", (8, 14, 14), n_keep=78)
    >>> encoder.get_mask = AdaMaeMasking(encoder.mask_sampler)

    The network that learns where to look then gets no gradient, so
    ``DistributedDataParallel`` needs ``find_unused_parameters=True``.
    """

    def __init__(self, sampler: Sampler) -> None:
        _n_tokens(sampler)
        self.sampler = sampler

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x [B, N, D] -> (equal probabilities [B, N], ids of visible tokens int64 [B, n_keep],
        bool [B, N] with True = masked)."""
        sampler = _sampler_on(x.device, self.sampler)
        if x.shape[1] != _n_tokens(sampler):
            raise ValueError(
                f"x must have {_n_tokens(sampler)} tokens, as the sampler's grid has, got "
                f"{list(x.shape)}"
            )
        masks = sampler(x.shape[0])
        return x.new_full(x.shape[:2], 1 / x.shape[1]), masks.ids_keep, masks.masked


def _n_tokens(sampler: Sampler) -> int:
    check_sampler(sampler, (MaskSampler, ScheduledSampler))
    if sampler.needs_data:
        raise ValueError(
            "sampler must not look at the input, which a model does not give to its masking "
            f"method, got {type(sampler).__name__}({sampler.extra_repr()})"
        )
    t, h, w = sampler.grid
    return t * h * w


def _check_count(n_tokens: int, sampler: Sampler, mask_ratio: float) -> None:
    ours = parse_n_keep(n_tokens, mask_ratio, None)
    theirs = int(n_tokens * (1 - mask_ratio))
    if isinstance(sampler, MaskSampler) and sampler.n_keep not in (ours, theirs):
        raise ValueError(
            f"mask_ratio={mask_ratio!r}, which the model asks for, keeps {theirs} of {n_tokens} "
            f"tokens, but the sampler {sampler.n_keep}: make it with n_keep={theirs}"
        )


def _sampler_on(wanted: torch.device, given: Sampler) -> Sampler:
    """``given``, or in ``nn.DataParallel`` its copy on this device."""
    sampler = copy_of_this_thread(given, wanted)
    made = sampler.next_id.device
    indices = (wanted.index, made.index)
    if made.type != wanted.type or (None not in indices and wanted.index != made.index):
        raise ValueError(
            f"the sampler makes masks on {made}, the model works on {wanted}: keep the sampler as "
            f"an attribute of the model, or call sampler.to({str(wanted)!r})"
        )
    return sampler
