"""Masks of all inputs of a run: their settings, and what draws them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from smnm_kernels import (
    AudioVideoSampler,
    BankSampler,
    CurriculumSampler,
    Masks,
    MaskSampler,
    NoiseBank,
    ScheduledSampler,
    schedules,
)
from smnm_kernels.kinds import Kind, NoiseKind, make_kind
from smnm_kernels.train.data.bars import bar
from smnm_kernels.train.data.padding import with_quiet_padding
from smnm_kernels.train.models.guide import Guide
from smnm_kernels.train.run import ranks

Grid = tuple[int, int, int]
Tensors = Mapping[str, Tensor]  # by the names of inputs
Sampler = MaskSampler | ScheduledSampler | BankSampler

#: Of a volume of a bank, on each axis: the structured-noise paper's.
BANK_SIDE = 64


@dataclass(frozen=True)
class HintSettings:
    """Arguments of `smnm_kernels.schedules.hint`."""

    start: float = 1 / 6
    power: float = 2.0


@dataclass(frozen=True)
class EasierMasks:
    kind: str
    parameters: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class BankSettings:
    """Noise is made before training, as `smnm_kernels.NoiseBank` does it, and put on the grid by
    one of the paper's two rules."""

    place: Literal["crop", "resize"]
    #: How many volumes of 64 x 64 x 64 (of one frame where masks repeat over time). No paper has
    #: their number; ours takes 256 MiB.
    volumes: int = 256

    def check(self, kind: NoiseKind) -> None:
        """ValueError where no bank can be made for this kind's masks."""
        if max(kind.noise.grid) > BANK_SIDE:
            raise ValueError(
                f"a bank's volumes have {BANK_SIDE} values on each axis, and the grid has more"
            )
        n_bytes = 4 * self.volumes * math.prod(_shape_of(kind))
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if n_bytes > memory:
            raise ValueError(
                f"a bank of {self.volumes} volumes takes {n_bytes / 1e9:,.0f} GB, and this machine "
                f"has {memory / 1e9:,.0f} GB of memory"
            )

    def sampler(self, kind: NoiseKind, seed: int) -> BankSampler:
        """Of masks like this kind's. Makes the bank, which follows from the seed, on the CPU."""
        noise, shape = kind.noise, _shape_of(kind)
        shown = partial(bar, "bank of noise", None, " volumes", delay=1)
        bank = NoiseBank.precompute(
            self.volumes,
            shape,
            noise.color,
            sigma=noise.given_sigma,
            time_scale=noise.time_scale,
            seed=seed,
            progress=iter if ranks.rank() else lambda numbers: shown(over=numbers),
        )
        if self.place == "resize":
            bank = bank.resized(noise.grid)
        return BankSampler(bank, kind.grid, n_keep=kind.n_keep, tube=kind.tube, seed=seed)


def _shape_of(kind: NoiseKind) -> tuple[int, int, int]:
    """Of a volume."""
    return (1 if kind.tube else BANK_SIDE, BANK_SIDE, BANK_SIDE)


@dataclass(frozen=True)
class MaskSettings:
    """Masks of one input: a kind of MaskSampler's, the share of patches that is masked (or, in its
    place, how many patches are visible), and the kind's own parameters."""

    kind: str
    ratio: float
    parameters: dict[str, Any] = field(default_factory=dict)
    #: Of kinds with a hint: when the share of chance falls.
    hint: HintSettings | None = None
    n_keep: int | None = None
    #: Of noise: it is cut from a bank.
    bank: BankSettings | None = None
    #: The kind that masks begin as, for a share of the samples that falls from 1 to 0 over the
    #: steps of a schedule. It shows as many patches.
    easier: EasierMasks | None = None

    @property
    def from_kind(self) -> str | None:
        """What they begin as, if it is another kind or the same with other parameters."""
        return None if self.easier is None else self.easier.kind

    @property
    def count(self) -> dict[str, Any]:
        """How many patches are visible, as arguments of a sampler."""
        if self.n_keep is not None:
            return {"n_keep": self.n_keep}
        return {"mask_ratio": self.ratio}

    def first_kind(self, grid: Grid) -> Kind:
        """The kind of the first step's masks. Raises what `sampler` raises; no bank is made."""
        if self.bank is None:
            return self.sampler(grid, 0, schedule_steps=1).settings
        kind = make_kind(self.kind, grid, **self.count, **self.parameters)
        if not isinstance(kind, NoiseKind):
            raise ValueError(f"a bank is of noise, and {self.kind} masks are not")
        self.bank.check(kind)
        return kind

    def at_end(self) -> MaskSettings:
        """Without schedules: as they leave the masks."""
        return replace(self, hint=None, easier=None)

    def sampler(self, grid: Grid, seed: int, schedule_steps: int) -> Sampler:
        """A schedule goes by the steps of the run, over the length of its learning-rate schedule.
        `set_epoch` tells the sampler each step."""
        if self.bank is not None:
            kind = self.first_kind(grid)
            assert isinstance(kind, NoiseKind)
            return self.bank.sampler(kind, seed)
        if self.easier is not None:
            return CurriculumSampler(
                {"kind": self.easier.kind, **self.easier.parameters},
                {"kind": self.kind, **self.parameters},
                grid,
                **self.count,
                share=schedules.linear(0.0, 1.0, schedule_steps, places=6),
                every="epoch",
                seed=seed,
            )
        if self.hint is None:
            return MaskSampler(self.kind, grid, **self.count, seed=seed, **self.parameters)
        hint_ratio = schedules.hint(schedule_steps, start=self.hint.start, power=self.hint.power)
        return ScheduledSampler(
            self.kind,
            grid,
            every="epoch",
            seed=seed,
            hint_ratio=hint_ratio,
            **self.count,
            **self.parameters,
        )

    def arguments(self, grid: Grid) -> dict[str, Any]:
        """Of one modality of an AudioVideoSampler."""
        return {"kind": self.kind, "grid": grid, **self.count, **self.parameters}


def are_paired(names: Iterable[str]) -> bool:
    """Whether inputs of these names are masked by an AudioVideoSampler."""
    return set(names) == {"video", "audio"}


class Masking(Protocol):
    """What draws the masks of each input of a batch.

    `data` has the inputs of those kinds that look at them, or their features, `valid` (bool [B, N])
    the tokens that may be visible of those inputs that are padded.
    """

    @property
    def needs_data(self) -> frozenset[str]:
        """The inputs that are looked at."""

    @property
    def needs_features(self) -> frozenset[str]:
        """Those of them whose features are looked at."""

    @property
    def ignores_features(self) -> frozenset[str]:
        """Those of them of which nothing depends on the features now, by the schedule."""

    def draw(self, batch_size: int, data: Tensors, valid: Tensors) -> dict[str, Masks]:
        """The next masks of the run's stream."""

    def of_ids(self, sample_ids: Tensor, data: Tensors, valid: Tensors) -> dict[str, Masks]:
        """Those of these sample ids; the stream does not move on."""

    def set_step(self, step: int) -> None: ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class SeparateMasks:
    """A Masking by one sampler for each input."""

    def __init__(self, samplers: Mapping[str, Sampler], device: torch.device) -> None:
        self.samplers = {name: sampler.to(device) for name, sampler in samplers.items()}

    @property
    def needs_data(self) -> frozenset[str]:
        return frozenset(name for name, sampler in self.samplers.items() if sampler.needs_data)

    @property
    def needs_features(self) -> frozenset[str]:
        return frozenset(n for n, sampler in self.samplers.items() if sampler.settings.of_features)

    @property
    def ignores_features(self) -> frozenset[str]:
        return frozenset(n for n in self.needs_features if self.samplers[n].settings.ignores_data)

    def draw(self, batch_size: int, data: Tensors, valid: Tensors) -> dict[str, Masks]:
        return {
            name: sampler(batch_size, data.get(name), valid.get(name))
            for name, sampler in self.samplers.items()
        }

    def of_ids(self, sample_ids: Tensor, data: Tensors, valid: Tensors) -> dict[str, Masks]:
        return {
            name: sampler.masks(sample_ids, data.get(name), valid.get(name))
            for name, sampler in self.samplers.items()
        }

    def set_step(self, step: int) -> None:
        for sampler in self.samplers.values():
            if isinstance(sampler, ScheduledSampler):
                sampler.set_epoch(step)

    def state(self) -> dict[str, Any]:
        return {name: sampler.state_dict() for name, sampler in self.samplers.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, sampler in self.samplers.items():
            sampler.load_state_dict(state[name])


class PairedMasks:
    """A Masking of "video" and "audio" by one AudioVideoSampler."""

    def __init__(self, sampler: AudioVideoSampler, device: torch.device) -> None:
        self.sampler = sampler.to(device)

    @property
    def needs_data(self) -> frozenset[str]:
        kinds: dict[str, Kind] = {"video": self.sampler.video, "audio": self.sampler.audio}
        return frozenset(name for name, kind in kinds.items() if kind.needs_data)

    @property
    def needs_features(self) -> frozenset[str]:
        return frozenset()  # `set_up` refuses such kinds of two inputs

    @property
    def ignores_features(self) -> frozenset[str]:
        return frozenset()

    def draw(self, batch_size: int, data: Tensors, valid: Tensors) -> dict[str, Masks]:
        return self.sampler(batch_size, data or None, valid or None)._asdict()

    def of_ids(self, sample_ids: Tensor, data: Tensors, valid: Tensors) -> dict[str, Masks]:
        return self.sampler.masks(sample_ids, data or None, valid or None)._asdict()

    def set_step(self, step: int) -> None:
        """Nothing in them changes with the steps."""

    def state(self) -> dict[str, Any]:
        return {"audio-video": self.sampler.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.sampler.load_state_dict(state["audio-video"])


def masking_of(
    masks: Mapping[str, MaskSettings],
    grids: Mapping[str, Grid],
    hidden_time: float | None,
    seed: int,
    schedule_steps: int,
    device: torch.device,
) -> Masking:
    """Of the inputs that have a grid. Raises what the samplers raise."""
    if are_paired(grids):
        arguments = {name: masks[name].arguments(grid) for name, grid in grids.items()}
        sampler = AudioVideoSampler(**arguments, hidden_time=hidden_time, seed=seed)
        return PairedMasks(sampler, device)
    samplers = {
        name: masks[name].sampler(grid, seed, schedule_steps) for name, grid in grids.items()
    }
    return SeparateMasks(samplers, device)


def looked_at(
    masking: Masking, inputs: Tensors, real: Tensors, valid: Tensors, guide: Guide | None
) -> dict[str, Tensor]:
    """What these masks look at: inputs whose padding is quiet, or features of what is valid."""
    found = {}
    for name in masking.needs_data:
        x = inputs[name]
        if name in masking.needs_features:
            assert guide is not None  # `set_up` refuses other objectives
            ignored = name in masking.ignores_features
            found[name] = guide.nothing(x) if ignored else guide(x, valid.get(name))
        else:
            found[name] = with_quiet_padding(x, real[name]) if name in real else x
    return found
