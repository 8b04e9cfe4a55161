"""`smnm study --list`: the cells, what each is, and how far it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from smnm_kernels.train.tasks.mask_options import asked_of
from smnm_kernels.train.tasks.probing.results import table

from .cells import Cell
from .folders import StudyFolder
from .plan import StudyPlan


def print_list(plan: StudyPlan, folder: StudyFolder, cells: Sequence[Cell], any_code: bool) -> None:
    rows, states = [], Counter[str]()
    for cell in cells:
        finished = folder.result_of(cell, any_code) is not None
        state = "done" if finished else folder.cell(cell).state()
        states[state] += 1
        shown: str = state
        if state in ("running", "begun"):
            doing, step, steps = folder.cell(cell).doing()
            words = f"{doing}, step {step} of {steps}" if steps else doing
            shown = words if state == "running" else f"begun: {words}"
        rows.append(
            [cell.id if cell.has_data else "-", cell.name, masks_in_words(plan, cell), shown]
        )

    print(table(["id", "cell", "masks", "state"], rows))
    counts = ", ".join(f"{count} {state}" for state, count in states.items())
    print(f"{len(cells)} cells: {counts}")
    undone = len(cells) - states["done"]
    if not undone:
        return
    seconds = folder.seconds(cells, any_code)
    if seconds:
        print(
            f"a finished cell took {seconds:.0f} s on average; the others would take about "
            f"{undone * seconds / 3600:.1f} hours one after the other"
        )
    elif plan.hours_a_cell:
        print(
            f"by the plan's estimate a cell takes {plan.hours_a_cell:g} hours, and {undone} take "
            f"{undone * plan.hours_a_cell:,.1f}"
        )
    missing = [name for name, data in plan.data.items() if data.make and states["no data"]]
    for name in missing:
        print(f"data {name}: --data {name}=PATH; made by: {plan.data[name].make}")


def masks_in_words(plan: StudyPlan, cell: Cell) -> str:
    """The cell's masks."""
    if cell.run.untrained:
        return "untrained"
    preset = plan.setups[cell.run.name].preset
    options = cell.run.pretrain(plan.modality, Path("DATA"), Path("OUT"))
    visible, words = plan.visible(cell.run.name), []
    for name, of in visible.items():
        kind, given = preset.masks[name].kind, asked_of(options, name)[2]
        words.append(" ".join([*([name] if len(preset.clip.inputs) > 1 else []), kind, *given]))
        words[-1] += f", {of} visible"
    if options.hint_schedule is not None:
        words.append(f"hints {options.hint_schedule}")
    if options.mask_bank is not None:
        words.append(f"from a bank, {options.mask_bank}")
    if options.mask_from is not None:
        words.append(" ".join(["from", options.mask_from, *options.mask_from_options, "on"]))
    if preset.hidden_time is not None:
        words.append(f"{preset.hidden_time:g} of the time hidden")
    return "; ".join(words) or "no masks"
