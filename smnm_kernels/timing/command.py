"""The command `smnm bench`."""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from tqdm import tqdm
from tyro.conf import Positional

from smnm_kernels.errors import UsageError
from smnm_kernels.files import replacing

from .compare import compare_runs, read_rows
from .facts import facts
from .tables import markdown

#: Repeats of the masks section. With five, all repeats of one run lie below all of another by
#: chance in 1 of 126 rows.
REPEATS = 5
ROWS, TABLES = "bench.json", "bench.md"
Progress = Callable[[str], None]
SectionName = Literal["masks", "load", "quality", "growth", "bank", "training"]


@dataclass(kw_only=True)
class Bench:
    """Measure how long masks take beside those of other code, also while every core is busy, how
    good they are, how time grows, what banks of noise cost, and how much time masks add to a
    training step.

    Writes OUT/bench.json (a JSON row in each line), OUT/bench.md (tables) and plots. Before
    anything is timed, masks of noise and R-BN are compared with their definition. Let nothing else
    run on the machine meanwhile.

    Examples: smnm bench --quick; smnm bench masks growth --threads 2 --out here;
    smnm bench --compare old/bench.json new/bench.json
    """

    sections: Positional[tuple[SectionName, ...]] = ()
    """What to measure. Default: all."""
    out: Path = Path("smnm-bench")
    """Folder for rows, tables and plots; made where it is missing. Written after each section."""
    overwrite: bool = False
    """Replace the results of an earlier run in OUT."""
    quick: bool = False
    """Two to three minutes on two cores, instead of ten: one batch size, a small model, no
    compiler."""
    batches: tuple[int, ...] = ()
    """Batch sizes of the masks section. Default: 64, and without --quick also 1, 16, 256, 1024."""
    device: str = "auto"
    """cpu, cuda or cuda:N; auto takes the GPU where there is one."""
    threads: int | None = None
    """CPU threads of torch. Default: its own choice."""
    compare: tuple[Path, Path] | None = None
    """Two bench.json of earlier runs: print what changed from the first to the second, and call it
    faster or slower only if it is outside the noise of repeated measurements. Measures nothing."""

    def run(self) -> None:
        if self.compare is not None:
            print(compare_runs(*(read_rows(path) for path in self.compare)))
            return
        device = _device(self.device)
        if self.threads is not None:
            cores = os.cpu_count() or 1
            if not 1 <= self.threads <= cores:
                raise UsageError(f"--threads must be in [1, {cores}], got {self.threads}")
            torch.set_num_threads(self.threads)
        if any(batch < 1 for batch in self.batches):
            raise UsageError(f"--batches must be at least 1, got {self.batches}")
        self._prepare_out()
        from .mask_making import check_ops
        from .plots import write_plots

        for module in ("matplotlib", "scipy"):
            importlib.import_module(module)  # a missing package fails now, not after minutes
        if device.type == "cuda":
            torch.cuda.set_device(device)
        about = facts(device)
        _warn_if_busy(about["busy_cores"])
        with tqdm(desc="bench", bar_format="{desc} [{elapsed}]", disable=None) as bar:

            def progress(text: str) -> None:
                bar.set_description_str(text)
                if bar.disable:
                    print(text, file=sys.stderr, flush=True)

            progress("comparing masks with their definition")
            check_ops(device)
            rows: list[dict] = []
            for name in self.sections or SECTIONS:
                section = SECTIONS[name]
                seconds = section.quick_seconds if self.quick else section.full_seconds
                rows += section.measure(self, seconds, device, progress)
                # After every section, so that nothing is lost if a later one is stopped.
                self._write(rows, about)
        for path in write_plots(rows, self.out):
            print(path)
        print(markdown(rows, about))
        print(f"{self.out / ROWS}\n{self.out / TABLES}")

    def _prepare_out(self) -> None:
        """Makes OUT, checks that it can be written, and removes earlier results if allowed."""
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=self.out).close()
            plots = (f"{section}.png" for section in SECTIONS)
            earlier = [
                self.out / name for name in (ROWS, TABLES, *plots) if (self.out / name).exists()
            ]
            if earlier and not self.overwrite:
                raise UsageError(
                    f"--out {self.out} has results of an earlier run: name another folder, or "
                    "--overwrite them"
                )
            for path in earlier:
                path.unlink()
        except OSError as error:
            raise UsageError(f"--out {self.out}: {error.strerror}") from error

    def _write(self, rows: list[dict], about: dict[str, object]) -> None:
        lines = "".join(json.dumps(about | row) + "\n" for row in rows)
        for name, text in ((ROWS, lines), (TABLES, markdown(rows, about))):
            with replacing(self.out / name) as file:
                file.write(text.encode())


def _masks(bench: Bench, seconds: float, device: torch.device, progress: Progress) -> list[dict]:
    from .mask_making import mask_making

    batches = bench.batches or ((64,) if bench.quick else (64, 1, 16, 256, 1024))
    return mask_making(batches, seconds, REPEATS, device, progress)


def _load(bench: Bench, seconds: float, device: torch.device, progress: Progress) -> list[dict]:
    from .under_load import under_load

    return under_load((64,) if bench.quick else (1, 8, 64), seconds, device, progress)


def _quality(bench: Bench, _: float, device: torch.device, progress: Progress) -> list[dict]:
    from .quality_table import quality

    return quality(1_000 if bench.quick else 10_000, device, progress)


def _growth(_: Bench, seconds: float, device: torch.device, progress: Progress) -> list[dict]:
    from .growth import growth

    return growth(seconds, device, progress)


def _bank(bench: Bench, _: float, device: torch.device, progress: Progress) -> list[dict]:
    from .bank_costs import bank_costs

    return bank_costs(bench.quick, progress)


def _training(bench: Bench, seconds: float, device: torch.device, progress: Progress) -> list[dict]:
    from .training import training

    return training(bench.quick, seconds, device, progress)


class Section(NamedTuple):
    """A section of the benchmark, and for how many seconds it measures in the quick and in the full
    run. Sections that decide this themselves have 0."""

    measure: Callable[[Bench, float, torch.device, Progress], list[dict]]
    quick_seconds: float
    full_seconds: float


SECTIONS: dict[SectionName, Section] = {
    "masks": Section(_masks, 40, 150),
    "load": Section(_load, 20, 90),
    "quality": Section(_quality, 0, 0),
    "growth": Section(_growth, 20, 60),
    "bank": Section(_bank, 0, 0),
    "training": Section(_training, 20, 120),
}


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    there = ["cpu", *["cuda"] * bool(n_gpus), *(f"cuda:{i}" for i in range(n_gpus))]
    if name not in there:
        raise UsageError(f"--device {name}: not there; there are auto, {', '.join(there)}")
    # torch.cuda.set_device takes no "cuda" without a number.
    return torch.device("cuda:0" if name == "cuda" else name)


def _warn_if_busy(busy_cores: float | None) -> None:
    if busy_cores is not None and busy_cores > 0.3:
        print(
            f"warning: other processes keep {busy_cores:.1f} cores busy, which changes the times",
            file=sys.stderr,
        )
