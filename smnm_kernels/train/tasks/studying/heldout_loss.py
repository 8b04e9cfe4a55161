"""The loss on files that were not trained on, under masks that are the same for every encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from smnm_kernels.errors import Unusable, UsageError
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.entries import Entry
from smnm_kernels.train.data.modality import FixedView, Normalisation, Record
from smnm_kernels.train.data.padding import with_quiet_padding
from smnm_kernels.train.run.folder import load_checkpoint
from smnm_kernels.train.tasks.mask_options import parsed_parameters
from smnm_kernels.train.tasks.masking import MaskSettings
from smnm_kernels.train.tasks.pretrain_setup import Setup, padding_of

#: Of the masks of held-out files: no run's own, and the same for all runs.
SEED = 2**40 + 17


@dataclass(frozen=True)
class HeldOutLoss:
    """What a plan sets of it."""

    common: str = "random"  # the kind of mask that all encoders are measured under, too
    common_options: tuple[str, ...] = ()
    clips: int = 256  # files at most, spread evenly over their names
    masks: int = 4  # of each file


def common_masks(setup: Setup, settings: HeldOutLoss) -> MaskSettings:
    """Of the common kind, showing as many patches as the run's own; UsageError where it cannot."""
    ((name, kind),) = setup.kinds.items()
    words = f"common {settings.common} {' '.join(settings.common_options)}".rstrip()
    masks = MaskSettings(
        settings.common,
        setup.preset.masks[name].ratio,
        parsed_parameters(settings.common_options, "common_options") or {},
        n_keep=kind.n_keep,
    )
    try:
        masks.sampler(kind.grid, SEED, schedule_steps=1)
    except (ValueError, TypeError) as error:
        raise UsageError(f"{words} on a grid of {kind.grid}: {error}") from error
    return masks


def build(setup: Setup, seed: int, run: Path | None) -> nn.Module:
    """The model of a run, encoder and decoder, at its last checkpoint; None: untrained."""
    preset = setup.preset
    model = preset.objective.build(preset.clip.inputs, seed)
    if run is not None:
        state = load_checkpoint(run)
        if state is None:
            raise UsageError(f"{run}: holds no checkpoint")
        model.load_state_dict(state["model"])
    return model.to(setup.device).eval()


@torch.no_grad()
def heldout_loss(
    model: nn.Module,
    setup: Setup,
    masks: Mapping[str, MaskSettings],
    base: Path,
    files: Sequence[Record],
    settings: HeldOutLoss,
) -> tuple[dict[str, float], dict[str, str]]:
    """(under each of these masks the mean over files of the objective's loss,
    {file: why it could not be read}).

    masks: by name; they show as many patches as the run's own.
    files: relative to `base`; of more than `settings.clips` as many are taken, evenly. Of each the
    middle is read, and nothing about it is drawn. Mask j of file i is sample i * masks + j of the
    kind's stream under a fixed seed, so two encoders see the same patches of the same files. A
    file's loss is its mean over its masks, in float32; files that are padded count like others.
    """
    preset = setup.preset
    ((name, given),) = preset.clip.inputs.items()
    kind = setup.kinds[name]
    # Without a schedule of hints: as at its end.
    samplers = {
        key: replace(one, hint=None).sampler(kind.grid, SEED, schedule_steps=1).to(setup.device)
        for key, one in masks.items()
    }
    normalise = Normalisation(given, setup.device)
    padding = padding_of(setup, files)
    chosen = _evenly(len(files), settings.clips)
    losses: dict[str, list[float]] = {key: [] for key in masks}
    failed: dict[str, str] = {}
    for place in bar("losses of held-out files", over=chosen, delay=1):
        entry = Entry.of(files[place])
        try:
            read = preset.clip.read_fixed(entry.source(base), files[place], FixedView())[name]
        except Unusable as error:
            failed[entry.shown] = str(error)
            continue
        x = normalise(read[None].to(setup.device)).expand(settings.masks, -1, -1, -1, -1)
        valid, looked_at = {}, x
        if padding is not None:
            numbers = [place] * settings.masks
            valid = {k: v.to(setup.device) for k, v in padding.valid(numbers).items()}
            real = padding.real(numbers)[name].to(setup.device)
            looked_at = with_quiet_padding(x, real)
        ids = torch.arange(settings.masks, device=setup.device) + place * settings.masks
        for key, sampler in samplers.items():
            drawn = sampler.masks(ids, looked_at if sampler.needs_data else None, valid.get(name))
            found = preset.objective.losses(model, {name: x}, {name: drawn}, valid)
            losses[key].append(found["loss"].double().item())
    if len(failed) == len(chosen):
        raise UsageError(f"{base}: of {len(chosen)} held-out files none can be read")
    return {key: sum(of_files) / len(of_files) for key, of_files in losses.items()}, failed


def _evenly(n: int, most: int) -> list[int]:
    count = min(n, most)
    return [i * n // count for i in range(count)]
