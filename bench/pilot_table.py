"""The rows of label_pilot.py as a table of Markdown.

python bench/pilot_table.py runs/pilot-atari/rows.jsonl
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    for name in sys.argv[1:]:
        rows = [json.loads(line) for line in Path(name).read_text().splitlines()]
        of = {(row["label"], column_of(row)): row for row in rows}
        columns = sorted(dict.fromkeys(map(column_of, rows)), key=order)
        heads = [" ".join(str(part) for part in column if part) for column in columns]
        print(f"| label | test clips | chance | {' | '.join(heads)} |")
        print("|---|---|---|" + "---|" * len(columns))
        for label in dict.fromkeys(row["label"] for row in rows):
            first = next(row for row in rows if row["label"] == label and "chance" in row)
            unit = "" if first["is_class"] else " (R²)"
            cells = [of.get((label, column)) for column in columns]
            shown = " | ".join(f"{row['score']:.3f}" if row else "" for row in cells)
            print(f"| {label}{unit} | {first['n']} | {first['chance']:.2f} | {shown} |")


def column_of(row: dict) -> tuple:
    """How the score came about, encoder, steps of pretraining."""
    if "supervised_steps" in row:
        of = None if row["encoder"] == "supervised" else row["encoder"]
        return f"trained {row['supervised_steps']} steps", of, row.get("steps")
    return row["pooling"], row["encoder"], row.get("steps")


def order(column: tuple) -> tuple:
    ways = ("mean", "place", "all")
    way = ways.index(column[0]) if column[0] in ways else len(ways)
    return way, column[1] not in ("untrained", None), column[2] or 0


if __name__ == "__main__":
    main()
