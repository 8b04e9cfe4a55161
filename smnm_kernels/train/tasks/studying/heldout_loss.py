"""The loss on files that were not trained on, under masks that are the same for every encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL.Image import Image
from torch import Tensor, nn

from smnm_kernels.errors import Unusable, UsageError
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.entries import Entry
from smnm_kernels.train.data.modality import FixedView, Normalisation, Record
from smnm_kernels.train.data.scan import Listing
from smnm_kernels.train.models.guide import guide_of
from smnm_kernels.train.models.objective import Facts
from smnm_kernels.train.run.folder import load_checkpoint
from smnm_kernels.train.tasks.mask_options import parsed_parameters
from smnm_kernels.train.tasks.masking import Masking, MaskSettings, looked_at, masking_of
from smnm_kernels.train.tasks.pretrain_setup import Setup, padding_of
from smnm_kernels.train.tasks.reconstruction import restored_by

#: Of the masks of held-out files, and of what an objective draws: no run's own, and the same for
#: all runs.
SEED = 2**40 + 17


@dataclass(frozen=True)
class HeldOutLoss:
    """What a plan sets of it."""

    common: str = "random"  # the kind of mask that all encoders are measured under, too
    common_options: tuple[str, ...] = ()
    clips: int = 256  # files at most, spread evenly over their names
    masks: int = 4  # of each file
    #: Of clips with sound: so many files, or a few more, are compared with each other.
    compared: int = 16


def own_masks(setup: Setup) -> Masking:
    """As the run draws them at the end of its schedule."""
    preset = setup.preset
    masks = {name: preset.masks[name].at_end() for name in setup.kinds}
    return _masking(setup, masks, preset.hidden_time)


def common_masks(setup: Setup, settings: HeldOutLoss) -> Masking:
    """Of the common kind, of several inputs independently, showing as many patches as the run's
    own; UsageError where it cannot."""
    words = f"common {settings.common} {' '.join(settings.common_options)}".rstrip()
    parameters = parsed_parameters(settings.common_options, "common_options") or {}
    masks = {}
    for name, kind in setup.kinds.items():
        ratio = setup.preset.masks[name].ratio
        masks[name] = MaskSettings(settings.common, ratio, parameters, n_keep=kind.n_keep)
        try:
            common = masks[name].first_kind(kind.grid)
        except (ValueError, TypeError) as error:
            raise UsageError(f"{words} on a grid of {kind.grid}: {error}") from error
        if common.of_features:
            raise UsageError(
                f"{words}: follows the features of each encoder; common masks must be the same "
                "for all"
            )
    return _masking(setup, masks, None)


def _masking(setup: Setup, masks: Mapping[str, MaskSettings], hidden_time: float | None) -> Masking:
    grids = {name: kind.grid for name, kind in setup.kinds.items()}
    return masking_of(masks, grids, hidden_time, SEED, 1, setup.device)


def build(setup: Setup, seed: int, run: Path | None) -> nn.Module:
    """The model of a run, encoder and decoder, at its last checkpoint; None: untrained."""
    preset = setup.preset
    model = preset.objective.build(preset.clip.inputs, seed)
    if run is not None:
        state = load_checkpoint(run)
        if state is None:
            raise UsageError(f"{run}: holds no checkpoint")
        model.load_state_dict(state["model"])
    elif setup.target is not None:
        setup.target.load(model)
    return model.to(setup.device).eval()


@torch.no_grad()
def heldout_loss(
    model: nn.Module,
    setup: Setup,
    masks: Mapping[str, Masking],
    listing: Listing,
    settings: HeldOutLoss,
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """(under each of these masks the mean over files of what the objective reports, its loss as
    "loss" and parts of it by their names, {file: why it could not be read}).

    listing: the held-out files; of more than `settings.clips` as many are taken, evenly. Of each
    the middle is read, and nothing about it is drawn. Mask j of file i, of all that are named, is
    sample i * masks + j of the kind's stream under a fixed seed, so two encoders see the same
    patches of the same files, whichever of the others can be read. A file's loss is its mean over
    its masks, in float32; files that are padded count like others.

    With one input a batch is one file under all of its masks. Objectives of two inputs also compare
    a file's sound with the pictures of other files: there a batch is `settings.compared` files, or
    a few more, each under one of its masks. Of those that cannot be read their batch is short.
    """
    preset, base = setup.preset, listing.found.base
    several = len(preset.clip.inputs) > 1
    numbers = {entry: number for number, entry in enumerate(listing.found.entries)}
    of_files = [numbers[Entry.of(record)] for record in listing.usable]
    wanted = set(_evenly(len(numbers), settings.clips))
    chosen = [place for place, number in enumerate(of_files) if number in wanted]
    batches = _Batches(setup, base, listing.usable, of_files)
    guide = guide_of(model)
    sums: dict[str, dict[str, float]] = {key: {} for key in masks}
    count = 0
    shown = bar("losses of held-out files", len(chosen), delay=1)
    devices = [setup.device] if setup.device.type == "cuda" else []
    with shown, torch.random.fork_rng(devices):
        torch.manual_seed(SEED)
        for group in _spread(chosen, settings.compared if several else 1):
            read = batches.read(group)
            count += len(read)
            for rows in _rows(list(read), settings.masks, several):
                batch = batches.of(read, rows, settings.masks)
                for key, masking in masks.items():
                    data = looked_at(masking, batch.inputs, batch.real, batch.valid, guide)
                    try:
                        drawn = masking.of_ids(batch.ids, data, batch.valid)
                    except TypeError as error:  # a kind that cannot leave out padding
                        raise UsageError(f"{key} masks of padded held-out files: {error}") from None
                    facts = Facts(real=batch.real)
                    found = preset.objective.losses(model, batch.inputs, drawn, batch.valid, facts)
                    share = len(rows) / settings.masks  # of the sum over files
                    for name, loss in found.items():
                        so_far = sums[key].get(name, 0.0)
                        sums[key][name] = so_far + share * loss.double().item()
            shown.update(len(group))
    if not count:
        raise UsageError(f"{base}: of {len(wanted)} held-out files none can be read")
    means = {k: {name: x / count for name, x in of.items()} for k, of in sums.items()}
    return means, batches.failed


def heldout_picture(model: nn.Module, setup: Setup, listing: Listing) -> Image | None:
    """What the model makes of the first of these files under the first of its own masks, as
    `heldout_loss` reads and masks it; None where nothing can be read or is restored."""
    masking, batches = own_masks(setup), _Batches(setup, listing.found.base, listing.usable, [0])
    read = batches.read([0])
    if not read:
        return None
    batch = batches.of(read, [(0, 0)], 1)
    data = looked_at(masking, batch.inputs, batch.real, batch.valid, guide_of(model))
    return restored_by(
        setup.preset.objective,
        model,
        batch.inputs,
        masking.of_ids(batch.ids, data, batch.valid),
        batch.valid,
        setup.preset.clip.inputs,
        batches.normalisations,
        {name: kind.grid for name, kind in setup.kinds.items()},
    )


@dataclass(frozen=True)
class _Batch:
    """Samples, on the device. `ids` name their masks; `real` and `valid` as of `Padding`."""

    inputs: dict[str, Tensor]
    real: dict[str, Tensor]
    valid: dict[str, Tensor]
    ids: Tensor


class _Batches:
    """Reads held-out files and makes batches of them. numbers: of files, by which masks are
    drawn."""

    def __init__(
        self, setup: Setup, base: Path, files: Sequence[Record], numbers: Sequence[int]
    ) -> None:
        self.clip, self.device = setup.preset.clip, setup.device
        self.base, self.files, self.numbers = base, files, numbers
        self.normalisations = {
            name: Normalisation(given, setup.device) for name, given in self.clip.inputs.items()
        }
        self.padding = padding_of(setup, files)
        self.failed: dict[str, str] = {}

    def read(self, places: Sequence[int]) -> dict[int, dict[str, Tensor]]:
        """Of the files at these places those that can be read, normalised, each [1, C, T, H, W]."""
        found = {}
        for place in places:
            entry = Entry.of(self.files[place])
            try:
                raw = self.clip.read_fixed(entry.source(self.base), self.files[place], FixedView())
            except Unusable as error:
                self.failed[entry.shown] = str(error)
                continue
            found[place] = {
                name: self.normalisations[name](x[None].to(self.device)) for name, x in raw.items()
            }
        return found

    def of(
        self,
        read: Mapping[int, Mapping[str, Tensor]],
        rows: Sequence[tuple[int, int]],
        masks: int,
    ) -> _Batch:
        """rows: of each sample the file's place and the mask's number."""
        places = [place for place, _ in rows]
        x = {
            name: torch.cat([read[place][name] for place in places]) for name in self.normalisations
        }
        real, valid = dict[str, Tensor](), dict[str, Tensor]()
        if self.padding is not None:
            of_rows = (self.padding.real(places), self.padding.valid(places))
            real, valid = (
                {name: one.to(self.device) for name, one in found.items()} for found in of_rows
            )
        ids = torch.tensor(
            [self.numbers[place] * masks + number for place, number in rows], device=self.device
        )
        return _Batch(x, real, valid, ids)


def _rows(places: Sequence[int], masks: int, across: bool) -> list[list[tuple[int, int]]]:
    """Batches of (file, mask): across files under one mask at a time, or a file at a time under
    all masks."""
    if not across:
        return [[(place, number) for number in range(masks)] for place in places]
    return [[(place, number) for place in places] for number in range(masks) if places]


def _spread(places: Sequence[int], together: int) -> list[list[int]]:
    """Groups of at least so many, if there are, of sizes that differ by one at most. Files whose
    names are next to each other, which may be alike, are in different ones."""
    groups = max(1, len(places) // together)
    return [list(places[first::groups]) for first in range(groups)]


def _evenly(n: int, most: int) -> list[int]:
    count = min(n, most)
    return [i * n // count for i in range(count)]
