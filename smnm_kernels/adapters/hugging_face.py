"""For Hugging Face's transformers: a sampler that fits a model, and epochs for its Trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from smnm_kernels.arguments import Grid
from smnm_kernels.samplers import MaskSampler, ScheduledSampler

if TYPE_CHECKING:
    from transformers import TrainerCallback

#: The mask ratio of VideoMAE's pretraining, which is not in its config.
_VIDEOMAE_RATIO = 0.9


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[-2], size[-1])


def _patches(size: Any, patch: Any) -> tuple[int, int]:
    (height, width), (ph, pw) = _pair(size), _pair(patch)
    return height // ph, width // pw


def _of_image(config: Any) -> Grid:
    return 1, *_patches(config.image_size, config.patch_size)


def _of_videomae(config: Any) -> Grid:
    return config.num_frames // config.tubelet_size, *_of_image(config)[1:]


def _of_vjepa2(config: Any) -> Grid:
    frames = config.frames_per_clip // config.tubelet_size
    return frames, *_patches(config.crop_size, config.patch_size)


def _of_hiera(config: Any) -> Grid:
    tokens = _patches(config.image_size, config.patch_stride)
    return 1, *_patches(tokens, config.masked_unit_size)


def _of_ast(config: Any) -> Grid:
    """Its patches overlap."""
    time = (config.max_length - config.patch_size) // config.time_stride + 1
    mel = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
    return 1, time, mel


_AST = "audio-spectrogram-transformer"
#: Those that put a mask token in place of the patches in ``bool_masked_pos``.
_IMAGE_MODELS = (
    *("vit", "deit", "beit", "data2vec-vision", "swin", "swinv2", "focalnet", "ijepa"),
    *("dinov2", "dinov2_with_registers", "dinov3_vit", "vit_msn"),
)
#: For each ``config.model_type``, the grid.
_GRIDS: dict[str, Callable[[Any], Grid]] = {
    "videomae": _of_videomae,
    "vit_mae": _of_image,
    "hiera": _of_hiera,
    "vjepa2": _of_vjepa2,
    _AST: _of_ast,
    **dict.fromkeys(_IMAGE_MODELS, _of_image),
}


def hf_sampler(
    config: Any,
    kind: str,
    mask_ratio: float | None = None,
    *,
    n_keep: int | None = None,
    seed: int = 0,
    **parameters: Any,
) -> MaskSampler:
    """A ``MaskSampler`` on the grid of a transformers config, with the count its model expects.

    >>> sampler = hf_sampler(model.config, "green3d")

    ======================================= ==================================================
    model                                   masks go in as
    ======================================= ==================================================
    VideoMAE                                ``bool_masked_pos=masks.masked``
    ViT, DeiT, BEiT, Data2Vec, Swin,        ``bool_masked_pos=masks.masked``
    Swin V2, FocalNet, I-JEPA, DINOv2 and
    v3, ViT-MSN
    ViTMAE, Hiera                           ``noise=masks.vitmae_noise``
    VJEPA2                                  ``context_mask, target_mask = masks.jepa``
    AST                                     it takes none: gather ``masks.with_prefix(2).ids_keep``
    ======================================= ==================================================

    The grid is (T, H, W) patches, as the model counts them: T of VideoMAE and VJEPA2 are frames /
    tubelet size; Hiera's are mask units; AST's are (1, time, mel band), counted ``freq_major``.

    Args:
        config: of one of these models.
        mask_ratio, n_keep: ViTMAE and Hiera always keep ``int(N * (1 - config.mask_ratio))``
            tokens, so this is the default and no other count is allowed. The default of VideoMAE is
            a ratio of 0.9; the others have no default.
        kind, seed, parameters: as for ``MaskSampler``.
    """
    model_type = getattr(config, "model_type", None)
    if model_type not in _GRIDS:
        raise ValueError(
            f"config must be of a model of type {', '.join(_GRIDS)}, got {type(config).__name__}"
            + (f" ({model_type})" if isinstance(model_type, str) else "")
        )
    grid = _GRIDS[model_type](config)
    if model_type == "videomae" and mask_ratio is None and n_keep is None:
        mask_ratio = _VIDEOMAE_RATIO
    if model_type == _AST:
        parameters = {"freq_major": True, **parameters}
    kept = None
    if model_type in ("vit_mae", "hiera"):
        kept = int(grid[1] * grid[2] * (1 - config.mask_ratio))
        if kept == 0:
            raise ValueError(
                f"config's mask_ratio={config.mask_ratio!r} keeps no token of {grid[1] * grid[2]}"
            )
        if mask_ratio is None and n_keep is None:
            n_keep = kept
    sampler = MaskSampler(kind, grid, mask_ratio, n_keep=n_keep, seed=seed, **parameters)
    if kept is not None and sampler.n_keep != kept:
        raise ValueError(
            f"a model of this {type(config).__name__} keeps {kept} of {grid[1] * grid[2]} tokens "
            f"by its own mask_ratio={config.mask_ratio!r}, got {sampler.n_keep}: change the config"
        )
    return sampler


def epoch_callback() -> TrainerCallback:
    """A callback for ``Trainer(..., callbacks=[...])`` that calls ``set_epoch`` of a
    ``WithSampleIds`` dataset, and sets the epoch of a ``MaskCollator``'s ``ScheduledSampler``.

    The Trainer leaves this to accelerate, whose ``DataLoaderShard.set_epoch`` does not reach the
    dataset in two cases: with several processes, and while batches are skipped in a run that was
    resumed within an epoch. Masks would then repeat.
    """
    from transformers import TrainerCallback

    class SetEpoch(TrainerCallback):
        def on_epoch_begin(self, args, state, control, train_dataloader, **more) -> None:  # type: ignore[override]  # noqa: ANN001, ANN003
            epoch = int(state.epoch)
            if not hasattr(train_dataloader.dataset, "set_epoch"):
                raise TypeError(
                    "train_dataset must be a WithSampleIds, got "
                    f"{type(train_dataloader.dataset).__name__}"
                )
            train_dataloader.dataset.set_epoch(epoch)
            sampler = getattr(train_dataloader.collate_fn, "sampler", None)
            if isinstance(sampler, ScheduledSampler):
                sampler.reset(int(sampler.next_id), step=epoch)

    return SetEpoch()
