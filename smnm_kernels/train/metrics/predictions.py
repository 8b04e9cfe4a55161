"""What was predicted of each file, as a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from smnm_kernels.files import replacing
from smnm_kernels.train.data.labels import Labels

#: Up to so many classes each has a column; of more, the best five are named.
MOST_COLUMNS = 20
BEST = 5


def write_predictions(
    path: Path,
    names: Sequence[str],
    labels: Labels,
    scores: Tensor,
    targets: Tensor | None,
) -> None:
    """A CSV file, whole or not at all, with a row for each file.

    names: of the files [n].
    scores: probabilities [n, classes], or the predicted numbers [n].
    targets: as `Labels.targets` makes them; None where files have no labels: without that column.

    Columns: name, label, predicted. Of classes, then the probability of each ("p NAME"), where
    there are more than 20 the five highest (class_1, p_1, class_2, ...). Several labels of one file
    are a JSON list of their names; predicted is then what is likelier than not.

    UTF-8; a name with a comma, a quote or a line break is quoted, and bytes that are not UTF-8 are
    written as the file system has them.
    """
    with replacing(path) as file:
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        known = None if targets is None else targets.detach().cpu()
        for row in _rows(names, labels, scores.detach().cpu(), known):
            writer.writerow(row)
            file.write(_encoded(text.getvalue()))
            text.seek(0)
            text.truncate()


def _rows(
    names: Sequence[str], labels: Labels, scores: Tensor, targets: Tensor | None
) -> Iterator[list[str]]:
    start = ["name", "predicted"] if targets is None else ["name", "label", "predicted"]
    is_wide = len(labels.names) > MOST_COLUMNS
    if labels.kind == "number":
        yield start
    elif is_wide:
        yield start + [f"{what}_{i}" for i in range(1, BEST + 1) for what in ("class", "p")]
    else:
        yield start + [f"p {name}" for name in labels.names]
    known: Iterable[Tensor | None] = [None] * len(names) if targets is None else targets
    for name, score, target in zip(names, scores, known, strict=True):
        row = [name] if target is None else [name, _named(labels, target)]
        row.append(_predicted(labels, score))
        if is_wide:
            # Of equal ones the first, as where they are measured.
            best = torch.sort(score, descending=True, stable=True).indices[:BEST].tolist()
            for place in best:
                row += [labels.names[place], f"{score[place]:.6g}"]
        elif labels.kind != "number":
            row += [f"{p:.6g}" for p in score.tolist()]
        yield row


def _number(value: np.ndarray) -> str:
    """So many digits that no other number of the type is written so."""
    return str(value[()]).removesuffix(".0")


def _named(labels: Labels, target: Tensor) -> str:
    if labels.kind == "number":
        return _number(target.numpy())
    return labels.names[int(target)] if labels.kind == "class" else _list(labels, target)


def _predicted(labels: Labels, score: Tensor) -> str:
    if labels.kind == "number":
        return _number(score.numpy())
    return labels.names[int(score.argmax())] if labels.kind == "class" else _list(labels, score)


def _list(labels: Labels, shares: Tensor) -> str:
    chosen = (shares > 0.5).nonzero().flatten().tolist()
    return json.dumps([labels.names[i] for i in chosen], ensure_ascii=False)


def _encoded(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte
        return text.encode("utf-8", "backslashreplace")
