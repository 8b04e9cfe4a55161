"""Files that passed the scan and cannot be read any more."""

from __future__ import annotations

from smnm_kernels.errors import printable
from smnm_kernels.train.data.loader import Failure

from . import ranks
from .folder import SKIPPED, RunFolder
from .progress import say
from .stalled import bounded


class Failures:
    """Those of a run. The first process, which has the folder, prints and keeps them all."""

    def __init__(
        self, folder: RunFolder | None, skipped: dict[str, str], stall_limit: float
    ) -> None:
        """skipped: name -> reason of the files that skipped.json holds."""
        self._folder, self._skipped, self._stall_limit = folder, skipped, stall_limit
        self._names: set[str] = set()
        self._untold: list[Failure] = []

    @property
    def some_to_tell(self) -> bool:
        """Whether the first process does not know of all."""
        return bool(self._untold)

    def add(self, failure: Failure) -> None:
        """One of this process."""
        if ranks.rank() > 0 and failure.name not in self._names:
            self._untold.append(failure)
        self._note(failure)

    def tell(self) -> None:
        """What any process has to tell; all call it together."""
        for failures in ranks.everyones(self._untold):
            for failure in failures:
                self._note(failure)
        self._untold = []

    def _note(self, failure: Failure) -> None:
        if failure.name in self._names:
            return
        self._names.add(failure.name)
        if self._folder:
            say(f"  failed {printable(failure.name)}: {failure.reason}; another file steps in")
            self._skipped[failure.name] = failure.reason
            with bounded(self._folder.path / SKIPPED, self._stall_limit):
                self._folder.note_skipped(self._skipped)
