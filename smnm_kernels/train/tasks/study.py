"""`smnm study`: many runs, what is measured on each, and a report."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from smnm_kernels.errors import UsageError, printable
from smnm_kernels.files import replacing
from smnm_kernels.train.run.folder import before_any_work
from smnm_kernels.train.run.machine import named_device
from smnm_kernels.train.run.options import Count, need_at_least

from .studying.cells import Cell, cells_of, need_data
from .studying.checking import check_files
from .studying.environment import Machine
from .studying.folders import PLAN, StudyFolder
from .studying.listing import print_list
from .studying.measuring import run_cell
from .studying.plan import StudyPlan
from .studying.plan_file import find_plan, load_plan
from .studying.report import write_report
from .studying.rows import RowsFile, key_of, read_rows
from .studying.running import ENDS_WITH_INPUT, Share, end_with_input, run_all

_REPORT = "report"
_NOWHERE = Path(os.devnull)  # holds no cells


@dataclass(kw_only=True)
class Study:
    """Train an encoder for each mask, seed and data set of a plan, and measure all alike.

    smnm study PLAN --out DIR runs what is not done; smnm study report DIR writes tables of what is
    there. Each encoder with its measures is a cell, in a process of its own. A finished cell is
    never run again, one that was stopped goes on.
    """

    plan: Annotated[Positional[str], arg(metavar="PLAN|report")]
    """A file (docs/studies.md says what it holds), the name of a plan of ours (quick,
    paper-small-video, paper-small-audio, paper-small-music, dwm-small, open-masks, open-rbn,
    open-audio-video, open-images, paper, paper-audio), or the word report."""
    dir: Annotated[Positional[Path | None], arg(metavar="[DIR]", help_behavior_hint="")] = None
    """Of report: the folder of a study."""
    out: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of the study. Of report: where it is written. Default: DIR/report."""
    data: Annotated[
        tuple[str, ...], arg(metavar="NAME=PATH [NAME=PATH ...]", help_behavior_hint="")
    ] = ()
    """Where the plan's data sets are."""
    jobs: int = 1
    """Cells that run at a time; they share the cores."""
    shard: Annotated[str | None, arg(metavar="I/N", help_behavior_hint="")] = None
    """Run the I-th of N parts of the cells, I from 1 to N: for a scheduler's job array."""
    list: bool = False
    """Print the cells with their states, and run none."""
    cell: Annotated[str | None, arg(metavar="ID", help_behavior_hint="")] = None
    """Run this cell alone, in this process."""
    rows: Annotated[tuple[Path, ...], arg(metavar="FILE [FILE ...]", help_behavior_hint="")] = ()
    """Files report.json of the same plan, whose cells count as finished ones. smnm study report
    takes the plan from them, too, where DIR is not given."""
    other_code: bool = False
    """Count cells as done that other code of this package finished."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    threads: Count = None
    """CPU threads of each cell. Default: its share of the cores, less one for reading files."""
    workers: Count = None
    """Processes of each cell that read files. Default: one less than its share of the cores."""


def study(options: Study) -> int:
    """Returns 0; 1 where cells failed; 130 or 143 when a signal stopped them.

    Raises UsageError, before any work, where plan, options or data do not allow it.
    """
    if options.plan == _REPORT:
        return _report(options)
    if options.dir is not None:
        raise UsageError(f"{printable(str(options.dir))}: is one argument too many; --out DIR")
    for name, least in (("jobs", 1), ("threads", 1), ("workers", 0)):
        need_at_least(options, name, least)
    named_device(options.device)
    _check_cell(options)
    plan = load_plan(find_plan(options.plan))
    files = [read_rows(path) for path in options.rows]
    every = cells_of(plan, _paths(options.data, plan))
    cells = _shard(every, options.shard)
    if options.out is None and not options.list:
        raise UsageError("--out must be given: the folder of the study")
    elsewhere = tuple(one for file in files for one in file.results)
    folder = StudyFolder(options.out or _NOWHERE, elsewhere)
    _say_what_counts(files, every, options.other_code)
    if options.list:
        print_list(plan, folder, cells, options.other_code)
        return 0
    if options.cell is not None:
        return _one(options, plan, folder, cells)
    code = _all(options, plan, folder, cells)
    if code == 0:
        _say_what_is_left(options, folder, every)
    return code


def _check_cell(options: Study) -> None:
    """That --cell stands without what is for many cells."""
    given = {"--list": options.list, "--shard": options.shard, "--jobs": options.jobs > 1}
    for option, there in given.items():
        if options.cell is not None and there:
            raise UsageError(f"--cell {options.cell}: is one cell, and {option} is for many")


def _begin(
    options: Study, plan: StudyPlan, folder: StudyFolder, cells: Sequence[Cell]
) -> list[Cell]:
    """The cells that are not done, once all is checked that can be before any work."""
    need_data(plan, cells)
    _check_out(folder.path, cells)
    todo = [cell for cell in cells if folder.result_of(cell, options.other_code) is None]
    check_files(plan, todo)
    with before_any_work(folder.path):
        folder.path.mkdir(parents=True, exist_ok=True)
        path = folder.path / PLAN
        if path.exists() and path.read_bytes() != plan.text:
            where = printable(str(folder.path))
            print(f"--out {where}: held another plan, or this one before a change; its cells stay")
        with replacing(path) as file:
            file.write(plan.text)
    return todo


def _all(options: Study, plan: StudyPlan, folder: StudyFolder, cells: Sequence[Cell]) -> int:
    todo = _begin(options, plan, folder, cells)
    seconds = folder.seconds(cells, options.other_code)
    about = f", about {len(todo) * seconds / options.jobs / 3600:.1f} hours" if seconds else ""
    print(f"{plan.name}: {len(cells)} cells, {len(cells) - len(todo)} done{about}", flush=True)
    assert options.out is not None
    given, share = options, Share.of(options.jobs, options.threads, options.workers)
    words = [sys.executable, "-m", "smnm_kernels.cli", "study", given.plan, "--out"]
    words += [str(given.out), "--device", given.device, "--threads", str(share.threads)]
    words += ["--workers", str(share.workers), *(["--data", *given.data] if given.data else [])]
    return run_all(
        [folder.cell(cell) for cell in todo],
        options.jobs,
        share,
        lambda one: [*words, "--cell", one.cell.id],
    )


def _say_what_is_left(options: Study, folder: StudyFolder, every: Sequence[Cell]) -> None:
    """Of the whole study: other shards and processes may have cells to do."""
    now = StudyFolder(folder.path, folder.elsewhere)
    left = sum(now.result_of(cell, options.other_code) is None for cell in every)
    rows = f" --rows {' '.join(map(str, options.rows))}" if options.rows else ""
    done = f"{left} of {len(every)} cells are not done yet" if left else "all cells are done"
    print(f"{done}; smnm study report {options.out}{rows} writes the tables")


def _say_what_counts(files: Sequence[RowsFile], cells: Sequence[Cell], other_code: bool) -> None:
    """Of rows from elsewhere those that do not."""
    ids, of_any_code = {cell.id for cell in cells}, {cell.id_of_any_code for cell in cells}
    for file in files:
        of_plan = [one for one in file.results if one["id_of_any_code"] in of_any_code]
        _say_left_out(file, len(of_plan), "the plan's cells and data")
        other = sum(one["id"] not in ids for one in of_plan)
        if other and not other_code:
            shown = printable(str(file.path))
            print(f"--rows {shown}: {other} rows are of other code; --other-code counts them")


def _say_left_out(file: RowsFile, used: int, of: str) -> None:
    left = len(file.results) - used
    if left:
        shown = printable(str(file.path))
        print(f"--rows {shown}: {left} of {len(file.results)} rows are not of {of}: left out")


def _check_out(out: Path, cells: Sequence[Cell]) -> None:
    """What cells write must not change what their data is."""
    for path in {path for cell in cells for path in cell.paths.values()}:
        if out.resolve().is_relative_to(path.resolve()):
            raise UsageError(
                f"--out {printable(str(out))}: lies in the data {printable(str(path))}; give a "
                "folder outside of it"
            )


def _one(options: Study, plan: StudyPlan, folder: StudyFolder, cells: Sequence[Cell]) -> int:
    cell = next((cell for cell in cells if cell.id == options.cell), None)
    if cell is None:
        raise UsageError(
            f"--cell {options.cell}: there is none such; --list prints them. Where the study began "
            "it, its plan, its data or the package has changed since: give the command again"
        )
    if os.environ.get(ENDS_WITH_INPUT):  # of a study, which has begun all of its cells
        need_data(plan, [cell])
        end_with_input()
    elif not _begin(options, plan, folder, [cell]):
        print(f"{cell.name}: is done")
        return 0
    machine = Machine(options.device, options.threads, options.workers)
    return run_cell(plan, folder.cell(cell), machine)


def _report(options: Study) -> int:
    for field in fields(options):
        of_report = field.name in ("plan", "dir", "out", "rows")
        if not of_report and getattr(options, field.name) != field.default:
            option = field.name.replace("_", "-")
            raise UsageError(f"--{option}: is for running a study, not for its report")
    files = [read_rows(path) for path in options.rows]
    folder = None
    if options.dir is not None:
        path, folder = options.dir / PLAN, StudyFolder(options.dir)
        if not path.is_file():
            raise UsageError(f"{printable(str(options.dir))}: is no study, it has no {PLAN}")
        plan = load_plan(path)
    elif not files:
        raise UsageError("smnm study report DIR: DIR is missing, the folder of a study")
    elif options.out is None:
        raise UsageError("--out must be given where DIR is not: the folder of the report")
    else:
        plan = files[0].plan()
    wanted = {key_of(cell.settings) for cell in cells_of(plan, {})}
    for file in files:
        used = sum(key_of(one["settings"]) in wanted for one in file.results)
        _say_left_out(file, used, "the plan's cells")
    results = [one for file in files for one in file.results]
    results = [*(folder.results if folder else ()), *results]
    out = options.out
    if out is None:
        assert options.dir is not None
        out = options.dir / _REPORT
    write_report(plan, results, folder, out)
    return 0


def _paths(given: Sequence[str], plan: StudyPlan) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for word in given:
        name, equals, path = word.partition("=")
        if not (equals and path) or name not in plan.data:
            names = ", ".join(plan.data)
            raise UsageError(f"--data {printable(word)}: must be NAME=PATH, NAME one of {names}")
        if name in found:
            raise UsageError(f"--data {printable(word)}: {name} has a path already, {found[name]}")
        if not Path(path).exists():
            raise UsageError(f"--data {printable(word)}: is not there")
        found[name] = Path(path)
    return found


def _shard(cells: Sequence[Cell], given: str | None) -> list[Cell]:
    if given is None:
        return list(cells)
    part, slash, parts = given.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"--shard {given}: must be I/N, I from 1 to N")
    # What is compared, runs of the same seed on the same data, goes to the same machine as far as
    # the number of parts allows.
    order = sorted(
        range(len(cells)),
        key=lambda at: (cells[at].run.seeds.index(cells[at].seed), cells[at].data),
    )
    begin, end = (len(cells) * number // int(parts) for number in (int(part) - 1, int(part)))
    return [cells[at] for at in sorted(order[begin:end])]
