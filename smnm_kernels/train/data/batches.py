"""Batches one after the other, from any step on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import torch

from smnm_kernels.errors import RunError, printable

from .loader import Batch, SampleDataset, collate
from .waiting import DEFAULT_STALL_LIMIT_S, TICK_S, Background, Diary, Reader, Watch
from .workers import Workers


class Here:
    """Reads in the process itself, when it is asked: one batch, in a thread."""

    depth = 1

    def __init__(self, dataset: SampleDataset) -> None:
        self._dataset = dataset
        self._work: Background[Batch] | None = None

    def reader_of(self, number: int) -> Reader:
        assert self._work
        return self._work

    def ask(self, number: int, indices: list[int]) -> None:
        def read(diary: Diary) -> Batch:
            try:
                return collate([self._dataset.sample(index, diary.begin) for index in indices])
            except MemoryError as error:
                assert diary.file_number is not None
                name = printable(self._dataset.name(diary.file_number))
                raise RunError(
                    f"no more memory at {name}; a smaller --batch-size needs less"
                ) from error

        self._number, self._work = number, Background("the reading of files", read)

    def arrived(self, timeout: float) -> Iterable[tuple[int, Batch]]:
        if self._work is None or not self._work.finished(timeout):
            return []
        work, self._work = self._work, None
        return [(self._number, work.result())]

    def close(self) -> None:
        if self._work:
            self._work.abandon()
            self._work = None


class Batches:
    """Iterates over the batches of `numbers`.

    workers: processes that read; 0 reads in this process. It changes no batch.
    device: where it is a CUDA device, batches come in pinned memory.
    watch: what is done while a batch does not come.
    """

    def __init__(
        self,
        dataset: SampleDataset,
        numbers: Iterable[list[int]],
        workers: int,
        device: torch.device | str = "cpu",
        watch: Watch | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self._watch = watch or watch_over(dataset, say)
        self._reading = Workers(workers, dataset, say) if workers else Here(dataset)
        self._ahead, self._padding = workers > 0, dataset.padding
        self._numbers = iter(enumerate(numbers))
        self._asked = self._next = 0
        self._came: dict[int, Batch | Future[Batch]] = {}
        device = torch.device(device)
        self._pinning = (
            ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(device,))
            if device.type == "cuda"
            else None
        )

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        self._ask()
        if self._next == self._asked:
            self.close()
            raise StopIteration
        self._take(0)
        self._watch.begin()
        while self._next not in self._came:
            self._watch.tick(self._reading.reader_of(self._next))
            self._take(TICK_S)
        batch = self._came.pop(self._next)
        self._next += 1
        if self._ahead:
            self._ask()
        return batch.result() if isinstance(batch, Future) else batch

    def _ask(self) -> None:
        while self._asked - self._next < self._reading.depth:
            number, indices = next(self._numbers, (None, []))
            if number is None:
                return
            self._reading.ask(number, indices)
            self._asked = number + 1

    def _take(self, timeout: float) -> None:
        for number, batch in self._reading.arrived(timeout):
            if self._padding is not None and len(batch):
                numbers = batch.file_numbers.tolist()
                valid, real = self._padding.valid(numbers), self._padding.real(numbers)
                batch = replace(batch, valid=valid, real=real)
            self._came[number] = self._pinning.submit(batch.pin_memory) if self._pinning else batch

    def __del__(self) -> None:
        if hasattr(self, "_pinning"):
            self.close()

    def close(self) -> None:
        """End what reads, now."""
        self._reading.close()
        if self._pinning:
            self._pinning.shutdown(cancel_futures=True)


def watch_over(
    dataset: SampleDataset,
    say: Callable[[str], None],
    limit: float = DEFAULT_STALL_LIMIT_S,
    stop: Callable[[], bool] = lambda: False,
) -> Watch:
    return Watch(limit, lambda number: printable(dataset.name(number)), say, stop)
