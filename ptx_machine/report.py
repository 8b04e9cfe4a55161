"""What the machine found wrong, and what it counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class Kind(Enum):
    """A run goes on after each of these."""

    RACE = "race"
    UNINITIALISED = "uninitialised read"
    OUT_OF_BOUNDS = "out of bounds"
    MISALIGNED = "misaligned"
    INEXACT_SUM = "inexact sum"
    INEXACT_CONVERSION = "inexact conversion"
    INACTIVE_LANE = "inactive lane"
    IN_FLIGHT = "asynchronous result before its wait"
    MISSING_FENCE = "missing fence"


class Finding(NamedTuple):
    """``statement`` is the one that was executed, ``other`` the earlier one of a race, or ""."""

    kind: Kind
    statement: str
    detail: str = ""
    other: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{self.kind.value}{detail}: {self.statement}" + (
            f", after {self.other}" if self.other else ""
        )


@dataclass
class Report:
    """Of one block, or of many that were added up."""

    #: Each finding and how often (threads, or bytes' cells, that it was seen at).
    findings: Counter[Finding] = field(default_factory=Counter)
    blocks: int = 0
    #: Statements executed, each once for all the threads that took it together.
    steps: int = 0
    #: Upper bound of the magnitude of any partial sum of a tensor core product.
    largest_sum: float = 0.0

    def add(self, other: Report) -> None:
        self.findings.update(other.findings)
        self.blocks += other.blocks
        self.steps += other.steps
        self.largest_sum = max(self.largest_sum, other.largest_sum)

    def kinds(self) -> set[Kind]:
        return {finding.kind for finding in self.findings}

    def lines(self) -> list[str]:
        """The findings, one a line, the most frequent first."""
        return [f"{n} times {finding}" for finding, n in self.findings.most_common()]
