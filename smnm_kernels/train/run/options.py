"""Options of every training run, whatever is trained, and their checks."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from tyro.conf import arg

from smnm_kernels.arguments import is_int
from smnm_kernels.errors import UsageError, printable
from smnm_kernels.train.data.waiting import DEFAULT_STALL_LIMIT_S

from . import ranks

# None stands for the preset's own value; help says in words what that is.
Count = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Number = Annotated[float | None, arg(metavar="X", help_behavior_hint="")]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(kw_only=True)
class RunOptions:
    """Length, optimisation, machine and checkpoints of a run."""

    seed: int = 0
    """Decides weights, masks, order of files, crops and all that is drawn."""
    steps: Count = None
    """Train until N steps are done. Raise it to go on with a finished run. Default: the preset's
    steps or passes over the files."""
    schedule_steps: Count = None
    """Length of the learning rate's cosine. Fixed when a run begins, by default to its --steps;
    steps beyond it keep the lowest rate."""
    warmup_steps: Count = None
    """Steps of linear warmup. Default: the preset's steps or share of the schedule."""
    batch_size: Count = None
    """Samples per step, over all processes together. Default: the preset's."""
    accumulate: Count = None
    """Cut each step's batch into N equal parts that go through the model one after the other: the
    same losses up to rounding in about an N-th of the memory for activations. (Dropout of
    AudioMAE's local decoder and dropped paths are drawn for each part.) Default: 1; on resume the
    run's."""
    lr: Number = None
    """Peak learning rate. Default: the preset's base rate times batch size / 256 (of tiny the base
    rate itself). The lowest rate is the preset's, but never above the peak."""
    weight_decay: Number = None
    """AdamW's, of weight matrices. Default: the preset's."""
    precision: Precision = "auto"
    """Of matrix products. auto is bfloat16 on CUDA and float32 on the CPU; weights, optimiser and
    losses are float32 in any case."""
    compile: bool = False
    """Run the model through torch.compile."""
    checkpoint_activations: bool = False
    """Keep only what goes into each block and compute the rest again for the gradients: less
    memory, more time, the same losses."""
    workers: Count = None
    """Processes that read files; 0 reads in the trainer itself. Never changes a result.
    Default: one less than there are cores, at least 1, at most 8."""
    stall_limit: int = DEFAULT_STALL_LIMIT_S
    """Save and end with an error after so many seconds in which what reads a file shows no sign of
    life (no CPU time, no byte), or ten times as many on one file."""
    scan_of: Path | None = None
    """Folder of another run of the same DATA: files that have not changed since are not looked at
    again."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Count = None
    """CPU threads of the model. Default: torch's own number, but at most one less than there are
    cores; on resume the run's."""
    checkpoint_every: Count = None
    """Steps between two checkpoints. Default: the preset's."""
    keep_every: Count = None
    """Also keep the encoder of every N-th step, as OUT/encoders/step-00001000.safetensors."""


def check_run_options(options: RunOptions) -> None:
    """Refuse values outside their range, before any work."""
    at_least_one = (
        "steps",
        "schedule_steps",
        "batch_size",
        "accumulate",
        "threads",
        "checkpoint_every",
        "keep_every",
        "stall_limit",
    )
    for name in at_least_one:
        need_at_least(options, name, 1)
    for name in ("warmup_steps", "workers"):
        need_at_least(options, name, 0)
    # From the command line types and choices are right; from Python they need not be.
    if options.precision not in get_args(Precision):
        allowed = ", ".join(get_args(Precision))
        raise UsageError(f"--precision must be one of {allowed}, got {options.precision!r}")
    for name in ("lr", "weight_decay"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise UsageError(f"{flag(name)} must be a finite number >= 0, got {value}")
    if not 0 <= options.seed < 2**63:
        raise UsageError(f"--seed must be in [0, 2**63), got {options.seed}")


def check_batch_size(batch_size: int, accumulate: int | None) -> None:
    """It must fall into equal pieces."""
    pieces = (accumulate or 1) * ranks.world_size()
    if batch_size % pieces:
        of = [f"{accumulate} parts (--accumulate)"] if accumulate else []
        of += [f"{ranks.world_size()} processes"] if ranks.world_size() > 1 else []
        raise UsageError(
            f"--batch-size must be a multiple of {pieces}, for {' and '.join(of)}, got {batch_size}"
        )


def check_data(data: Path, modality: str) -> None:
    """Refuse a DATA that holds no files at all, before any work."""
    needed = f"a folder of {modality} files, a list of them or a tar is needed"
    shown = printable(str(data))
    try:
        mode = data.stat().st_mode
    except OSError as error:
        there = "does not exist" if error.errno == errno.ENOENT else f"is {error.strerror}"
        raise UsageError(f"DATA {shown}: {there}; {needed}") from error
    except ValueError as error:  # a NUL
        raise UsageError(f"DATA {shown!r}: is no path; {needed}") from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise UsageError(f"DATA {shown}: is neither a folder nor a file; {needed}")


def check_apart(out: Path, data: Path) -> None:
    """Refuse DATA itself as the folder for results."""
    if os.path.realpath(out) == os.path.realpath(data):
        raise UsageError(
            f"--out {printable(str(out))}: is DATA itself; give a folder of its own, also one "
            "below DATA"
        )


def need_at_least(options: Any, name: str, least: int) -> None:
    value = getattr(options, name)
    if value is None:
        return
    if not is_int(value):
        raise UsageError(f"{flag(name)} must be an int, got {value!r}")
    if value < least:
        raise UsageError(f"{flag(name)} must be at least {least}, got {value}")


def flag(name: str) -> str:
    """A field as it is written on the command line."""
    return f"--{name.replace('_', '-')}"
