"""For Hugging Face's transformers: a sampler that fits a model, and epochs for its Trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from smnm_kernels.samplers import MaskSampler, ScheduledSampler

if TYPE_CHECKING:
    from transformers import TrainerCallback

#: The mask ratio of VideoMAE's pretraining, which is not in its config.
_VIDEOMAE_RATIO = 0.9


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

    ========== ================================== ==============================================
    model      grid                               masks go in as
    ========== ================================== ==============================================
    VideoMAE   (frames / tubelet, H, W) patches   ``bool_masked_pos=masks.masked``
    ViTMAE     (1, H, W) patches                  ``noise=masks.vitmae_noise``
    Hiera      (1, H, W) mask units               ``noise=masks.vitmae_noise``
    VJEPA2     (frames / tubelet, H, W) patches   ``context_mask, target_mask = masks.jepa``
    ========== ================================== ==============================================

    Args:
        config: a ``VideoMAEConfig``, ``ViTMAEConfig``, ``HieraConfig`` or ``VJEPA2Config``.
        mask_ratio, n_keep: ViTMAE and Hiera always keep ``int(N * (1 - config.mask_ratio))``
            tokens, so this is the default and no other count is allowed. The default of VideoMAE is
            a ratio of 0.9; V-JEPA 2 has no default.
        kind, seed, parameters: as for ``MaskSampler``.
    """
    model_type = getattr(config, "model_type", None)
    if model_type not in ("videomae", "vit_mae", "hiera", "vjepa2"):
        raise ValueError(
            "config must be of a VideoMAE, ViTMAE, Hiera or VJEPA2 model, got "
            f"{type(config).__name__}"
        )
    if model_type == "videomae":
        frames = config.num_frames // config.tubelet_size
        grid = (frames, *_patches(config.image_size, config.patch_size))
        if mask_ratio is None and n_keep is None:
            mask_ratio = _VIDEOMAE_RATIO
    elif model_type == "vjepa2":
        frames = config.frames_per_clip // config.tubelet_size
        grid = (frames, *_patches(config.crop_size, config.patch_size))
    elif model_type == "vit_mae":
        grid = (1, *_patches(config.image_size, config.patch_size))
    else:
        tokens = _patches(config.image_size, config.patch_stride)
        grid = (1, *_patches(tokens, config.masked_unit_size))
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


def _pair(size: int | list[int] | tuple[int, ...]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[-2], size[-1])


def _patches(size: Any, patch: Any) -> tuple[int, int]:
    (height, width), (ph, pw) = _pair(size), _pair(patch)
    return height // ph, width // pw
