"""What fine-tuning settles before it begins: encoder, inputs, and what decides the losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.labels import Labels, in_split
from smnm_kernels.train.data.modality import InputFormat, Modality
from smnm_kernels.train.data.padding import Padding, TokenGrid
from smnm_kernels.train.data.scan import Listing
from smnm_kernels.train.models.formats.state import digest_of
from smnm_kernels.train.models.pretrained import Pretrained, find_encoder
from smnm_kernels.train.run import ranks
from smnm_kernels.train.run.machine import find_device
from smnm_kernels.train.run.plan import Recipe

from .finetune_options import Finetune, clip_of, of_the_encoder
from .finetune_presets import FinetunePreset, InputMask
from .label_options import finder_of
from .measuring import Measuring, measures, with_measured


@dataclass(frozen=True)
class Setup:
    """What follows from the options and the encoder alone."""

    preset: FinetunePreset
    clip: Modality
    input_name: str
    inputs: InputFormat  # normalised as the encoder, or the preset, wants it
    pretrained: Pretrained
    digest: str  # of the encoder's weights
    device: torch.device
    seed: int

    @property
    def hides_padding(self) -> bool:
        return getattr(self.clip, "padding", "see") == "hide"

    @property
    def measures(self) -> bool:
        """Whether what inputs are normalised by is to be measured in the training files."""
        return self.preset.measured or (self.pretrained.untrained and measures(self.clip))

    def with_measured(self, measured: dict[str, Any] | None) -> Setup:
        if measured is None:
            return self
        clip = with_measured(self.clip, measured)
        return replace(self, clip=clip, inputs=clip.inputs[self.input_name])


def set_up(options: Finetune, preset: FinetunePreset) -> Setup:
    """Everything that can be refused without looking at a file or at RUN."""
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
    digest = digest_of(pretrained.encoder.state_dict())
    return Setup(preset, clip, name, inputs, pretrained, digest, device, options.seed)


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
            "encoder_settings": setup.pretrained.encoder.settings.to_dict(),
            "pool": preset.pool,
            "layer_decay": preset.layer_decay,
            "drop_path": preset.drop_path,
            "head_std": preset.head_std,
            "label_smoothing": preset.label_smoothing,
            "mix": asdict(preset.mix),
            "mask": preset.mask and preset.mask.n_keep(setup.pretrained.encoder.grid),
            "bands": preset.bands and asdict(preset.bands),
            "repeats": optimisation.repeats,
            "balanced": optimisation.most_per_epoch,
            # None before they are measured.
            "mean": None if setup.measures else setup.inputs.mean,
            "scale": None if setup.measures else setup.inputs.scale,
            # None where it is time_frequency, as runs have it that were begun before.
            "mask_kind": mask.kind if mask and mask.kind != InputMask.kind else None,
        },
        check_found=partial(_check_labels, options, setup),
        finder=finder_of(options, options.data),
        trained_on=lambda files: in_split(files, "train"),
        measure=partial(_measured, options, setup) if setup.measures else None,
    )


def _measured(options: Finetune, setup: Setup, listing: Listing, workers: int) -> dict[str, Any]:
    clip, files = setup.clip, listing.usable
    assert isinstance(clip, Audio)
    grid = setup.pretrained.encoder.grid
    tokens = TokenGrid(setup.inputs.size[1:], grid, n_keep=None)
    padding = Padding(clip, {setup.input_name: tokens}, files)
    measuring = Measuring(clip, options.data, options.seed, options.stall_limit)
    trained_on = in_split(files, "train")
    return measuring(files, trained_on, padding if padding.padded else None, workers)


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
