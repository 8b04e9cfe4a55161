"""What fine-tuning settles before it begins: encoder, inputs, and what decides the losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.labels import Labels, in_split
from smnm_kernels.train.data.modality import of_inputs
from smnm_kernels.train.data.padding import Padding
from smnm_kernels.train.data.scan import Listing
from smnm_kernels.train.models.formats.state import digest_of
from smnm_kernels.train.models.pretrained import find_encoder
from smnm_kernels.train.models.settings import ModelSettings
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.machine import find_device
from smnm_kernels.train.run.plan import Recipe

from .finetune_forms import OneInput
from .finetune_joint import NAME, set_up_joint
from .finetune_options import Finetune, clip_of, of_the_encoder
from .finetune_presets.preset import FinetunePreset, InputMask
from .finetune_settled import Setup
from .label_options import finder_of
from .measuring import Measuring


def set_up(options: Finetune, preset: FinetunePreset) -> Setup:
    """Everything that can be refused without looking at a file or at RUN."""
    if options.modality == NAME:
        return set_up_joint(options, preset)
    assert isinstance(preset.model, ModelSettings)
    device = find_device(options.device)
    asked = f"--encoder {options.encoder}"
    first = clip_of(options, preset, None)
    ((name, inputs),) = first.inputs.items()
    say: Callable[[str], None] = print if ranks.rank() == 0 else lambda text: None
    try:
        pretrained = find_encoder(
            options.encoder, options.modality, inputs, preset.model, options.seed, say
        )
    except ValueError as error:  # sizes that patches do not fill, of an untrained encoder
        raise UsageError(f"{asked}: {error}") from error
    clip = clip_of(options, preset, pretrained)
    ((name, inputs),) = clip.inputs.items()
    pretrained = pretrained.at_size(inputs.size, asked, say)
    others = of_the_encoder(options, preset, clip)
    if others:
        say(
            f"--preset {options.preset}: inputs are as the encoder was trained, "
            f"{', '.join(others)}; options of these names ask for the preset's"
        )
    if preset.statistics is not None:
        mean, deviation = preset.statistics
        inputs = replace(inputs, mean=(mean,), scale=(2 * deviation,))
    else:
        inputs = replace(inputs, mean=pretrained.mean, scale=pretrained.scale)
    settings = pretrained.encoder.settings
    if preset.pool == "class" and not settings.class_token:
        raise UsageError(f"--pool class: {asked} has no class token; --pool mean takes all patches")
    if preset.pool == "class" and not settings.final_norm:
        raise UsageError(f"--pool class: {asked} has no final norm; --pool mean has one of its own")
    if preset.mask is not None:
        try:
            preset.mask.sampler(pretrained.encoder.grid, options.seed)
        except (ValueError, TypeError) as error:
            raise UsageError(f"--mask-ratio {preset.mask.share}: {error}") from error
    return Setup(
        preset,
        clip,
        {name: inputs},
        OneInput(name, pretrained.encoder),
        {name: pretrained.encoder.grid},
        pretrained.origin,
        digest_of(pretrained.encoder.state_dict()),
        device,
        options.seed,
        untrained=pretrained.untrained,
    )


def recipe_of(options: Finetune, setup: Setup) -> Recipe:
    """What decides the losses beside seed and files."""
    preset, mask = setup.preset, setup.preset.mask
    optimisation = preset.optimisation
    return Recipe(
        modality=setup.clip,
        optimisation=optimisation,
        lr=optimisation.lr if options.lr is None else options.lr,
        settings={
            "task": "finetune",
            "preset": options.preset,
            "encoder": setup.digest,
            **setup.form.settings,
            "pool": preset.pool,
            "layer_decay": preset.layer_decay,
            "drop_path": preset.drop_path,
            "head_std": preset.head_std,
            "label_smoothing": preset.label_smoothing,
            "mix": asdict(preset.mix),
            "mask": preset.mask and preset.mask.n_keep(of_inputs(setup.grids)),
            "bands": preset.bands and asdict(preset.bands),
            "repeats": optimisation.repeats,
            "balanced": optimisation.most_per_epoch,
            # None before they are measured.
            "mean": None if setup.measures else setup.of_formats("mean"),
            "scale": None if setup.measures else setup.of_formats("scale"),
            # None where it is time_frequency, as runs have it that were begun before.
            "mask_kind": mask.kind if mask and mask.kind != InputMask.kind else None,
            **_unusual(preset),
        },
        check_found=partial(_check_labels, options, setup),
        finder=finder_of(options, options.data),
        trained_on=lambda files: in_split(files, "train"),
        measure=partial(_measured, options, setup) if setup.measures else None,
    )


def _measured(options: Finetune, setup: Setup, listing: Listing, workers: int) -> dict[str, Any]:
    clip, files = setup.clip, listing.usable
    assert isinstance(clip, Audio)
    padding = Padding(clip, setup.form.tokens(setup.sizes), files)
    measuring = Measuring(clip, options.data, options.seed, options.stall_limit)
    trained_on = in_split(files, "train")
    return measuring(files, trained_on, padding if padding.padded else None, workers)


_USUAL = {"head_rate": 1.0, "jitter": None, "with_replacement": False}


def _unusual(preset: FinetunePreset) -> dict[str, Any]:
    """What few presets have: runs that were begun before there was such a thing have none."""
    found = {name: getattr(preset, name) for name in _USUAL}
    found["jitter"] = preset.jitter and asdict(preset.jitter)
    return {name: value for name, value in found.items() if value != _USUAL[name]}


def _check_labels(options: Finetune, setup: Setup, listing: Listing) -> None:
    labels, files = listing.labels, listing.usable
    assert labels is not None
    there = {record["split"] for record in files}
    if options.label_smoothing and labels.kind != "class":
        raise UsageError(
            f"--label-smoothing {options.label_smoothing}: is for one class a file, and labels are "
            f"of kind {labels.kind!r}"
        )
    if labels.kind == "number":
        if options.cutmix:
            raise UsageError(f"--cutmix {options.cutmix}: is for classes, and labels are numbers")
        if options.balanced:
            raise UsageError(
                f"--balanced {options.balanced}: is for classes, and labels are numbers"
            )
    if there == {"train"}:
        print("  no file is in val or test: nothing is evaluated", flush=True)
    elif "val" not in there:
        print("  no file is in val: the last model counts, not the best", flush=True)
    unused = _unused(setup.preset, labels)
    if unused:
        print(f"  of the preset, not used for labels of this kind: {unused}", flush=True)


def _unused(preset: FinetunePreset, labels: Labels) -> str:
    """What of the preset has no meaning for labels of this kind."""
    found = {
        "label smoothing": preset.label_smoothing > 0 and labels.kind != "class",
        "cutmix": preset.mix.cutmix > 0 and labels.kind == "number",
        "the weights of its draws": preset.optimisation.most_per_epoch is not None
        and labels.kind == "number",
    }
    return ", ".join(name for name, there in found.items() if there)
