"""What an evaluation reads: the same views of every file, once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from smnm_kernels.errors import Unusable

from .entries import Entry
from .loader import Failure, Sample, SampleDataset
from .modality import FixedView, Modality, Record
from .padding import Padding


def views_of(clips: int = 1, crops: int = 1) -> list[FixedView]:
    """All of them: clips x crops, crops of one clip side by side."""
    return [FixedView(i, clips, j, crops) for i in range(clips) for j in range(crops)]


class Views(SampleDataset):
    """Sample `index` is view `index % len(views)` of file `numbers[index // len(views)]`.

    A file that cannot be read leaves no sample, only a Failure: none steps in for it.
    """

    def __init__(
        self,
        data: Path,
        files: Sequence[Record],
        modality: Modality,
        numbers: Sequence[int],
        views: Sequence[FixedView],
        padding: Padding | None = None,
    ) -> None:
        super().__init__(data, files, modality, seed=0, padding=padding)
        self.numbers, self.views = numbers, views

    def __len__(self) -> int:
        return len(self.numbers) * len(self.views)

    def read_view(self, file_number: int, view: FixedView) -> dict[str, Tensor]:
        """May raise Unusable."""
        record = self.files[file_number]
        return self.modality.read_fixed(Entry.of(record).source(self.base), record, view)

    def sample(self, index: int, begin: Callable[[int], None]) -> Sample:
        place, view = divmod(index, len(self.views))
        number = self.numbers[place]
        begin(number)
        try:
            return Sample(index, number, self.read_view(number, self.views[view]), [])
        except Unusable as error:
            return Sample(index, number, {}, [Failure(self.name(number), str(error))])


@dataclass(frozen=True)
class OnePass:
    """The sample numbers of one pass over `count` samples, in batches, the last one shorter; each
    process takes every `world`-th batch."""

    count: int
    batch_size: int
    rank: int = 0
    world: int = 1

    def __iter__(self) -> Iterator[list[int]]:
        step = self.batch_size * self.world
        for start in range(self.rank * self.batch_size, self.count, step):
            yield list(range(start, min(start + self.batch_size, self.count)))
