"""From a sample's number to its tensors, and from samples to a batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import Dataset

from smnm_kernels.errors import Unusable

from .entries import Entry, base_of
from .modality import Modality, Record
from .orders import Order, Passes
from .padding import Padding
from .sample_randomness import SampleRandomness

# For one sample, at most so many files may fail that passed the scan. More means the data is gone.
MOST_FAILURES = 32


@dataclass(frozen=True)
class Failure:
    """A file that passed the scan and could not be read."""

    name: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """One sample, or the failures that left none."""

    sample_id: int
    file_number: int  # place in the run's list of files
    inputs: dict[str, Tensor]  # [C, T, H, W] each; none where too many files failed
    failures: list[Failure]


@dataclass(frozen=True)
class Batch:
    """What a step gets."""

    inputs: dict[str, Tensor]  # [B, C, T, H, W] each; none where no sample could be read
    sample_ids: Tensor  # int64 [B]
    file_numbers: Tensor  # int64 [B]
    failures: list[Failure]
    # bool [B, N], the tokens that may be visible, of each input that some file pads.
    valid: dict[str, Tensor] = field(default_factory=dict)
    # int64 [B, 3], how many values along (T, H, W) are no padding, of each input that some pads.
    real: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sample_ids)

    def to(self, device: torch.device) -> Batch:
        """With its inputs there; ids and numbers stay with the host, which names files by them."""
        return self._with_each(lambda x: x.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._with_each(Tensor.pin_memory)

    def _with_each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        def each(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: change(x) for name, x in tensors.items()}

        return replace(self, inputs=each(self.inputs), valid=each(self.valid), real=each(self.real))


class SampleDataset(Dataset):
    """Sample `index` of an endless stream, a pure function of (seed, index) and the files.

    It does not depend on the number of workers or processes, nor on which samples were read before.
    With `padding`, batches say which of their tokens may be visible and which values are real.
    `order` says which file a sample reads; by default each epoch is one shuffled pass over all.
    """

    def __init__(
        self,
        data: Path,
        files: Sequence[Record],
        modality: Modality,
        seed: int,
        padding: Padding | None = None,
        order: Order | None = None,
    ) -> None:
        self.order = Passes(range(len(files))) if order is None else order
        self.folder, self.files, self.modality, self.seed = data, files, modality, seed
        self.base, self.padding = base_of(data), padding

    def name(self, file_number: int) -> str:
        """As skipped.json has it: of a member of a shard, with the shard."""
        return Entry.of(self.files[file_number]).shown

    def read(self, file_number: int, index: int) -> dict[str, Tensor]:
        """Inputs from one file with the random numbers of sample `index`; may raise Unusable."""
        record = self.files[file_number]
        source = Entry.of(record).source(self.base)
        return self.modality.read(source, record, SampleRandomness(self.seed, index))

    def __getitem__(self, index: int) -> Sample:
        return self.sample(index, lambda number: None)

    def sample(self, index: int, begin: Callable[[int], None]) -> Sample:
        """Sample `index`; `begin` is told the number of each file before it is read."""
        failures: list[Failure] = []
        for attempt in range(min(MOST_FAILURES, len(self.order))):
            number = self.order.file_of(self.seed, index, attempt)
            begin(number)
            try:
                return Sample(index, number, self.read(number, index), failures)
            except Unusable as error:
                failures.append(Failure(self.name(number), str(error)))
        return Sample(index, number, {}, failures)


@dataclass(frozen=True)
class BatchNumbers:
    """The sample numbers that one process reads, in the loader's order.

    A step takes batch_size samples over all processes. It comes in `accumulate` equal parts, each
    cut into equal pieces for the processes, so that together they read what one process would,
    in its order.
    """

    start: int  # step
    stop: int
    batch_size: int
    accumulate: int = 1
    rank: int = 0
    world: int = 1

    def __len__(self) -> int:
        return max(0, self.stop - self.start) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        part = self.batch_size // self.accumulate
        share = part // self.world
        for number in range(self.start * self.accumulate, self.stop * self.accumulate):
            first = number * part + self.rank * share
            yield list(range(first, first + share))


def collate(samples: list[Sample], empty: Callable[..., Tensor] = torch.empty) -> Batch:
    """The batch of those of the samples that could be read; `empty(shape, dtype=...)` makes the
    tensors that hold it."""
    there = [sample for sample in samples if sample.inputs]
    inputs = {}
    for name, first in there[0].inputs.items() if there else ():
        out = empty((len(there), *first.shape), dtype=first.dtype)
        inputs[name] = torch.stack([sample.inputs[name] for sample in there], out=out)
    return Batch(
        inputs,
        torch.tensor([sample.sample_id for sample in there], dtype=torch.int64),
        torch.tensor([sample.file_number for sample in there], dtype=torch.int64),
        [failure for sample in samples for failure in sample.failures],
    )
