"""What all samplers share: the endless stream of sample ids, shared out among the ranks."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from smnm_kernels import devices
from smnm_kernels.arguments import is_int, is_sequence, parse_seed
from smnm_kernels.masks import Masks

from .replay import COMPILED, NoteIds, RepeatIds, Replay, advance, check_may_draw
from .replicas import Replica, count_in

if TYPE_CHECKING:
    from typing_extensions import Self

_COMPILED_REPLICA = (
    "a copy of a sampler that nn.DataParallel made cannot draw in compiled code: use "
    "DistributedDataParallel"
)
#: What ``_prepare`` has drawn, in any sampler of the process: (device, key of ``_first_draws``).
_prepared: set[tuple[torch.device, Hashable]] = set()


class MaskStream(nn.Module):
    """The base class of samplers: a call takes the next sample ids of the stream, and the
    subclass's ``masks`` makes the masks of these ids.

    Sample number i of the stream has sample id i, whatever the batch sizes. In an initialized
    ``torch.distributed`` group, each call takes one batch per rank, in rank order, so the ranks
    together draw what one process with the whole batch would. This takes every rank for a data
    parallel one. Where several ranks work on the same samples (tensor parallelism), call ``masks``
    with the ids of these samples instead.

    The state is two int64 buffers, ``seed`` and ``next_id`` (samples drawn so far by all ranks).
    ``.to()``, ``state_dict()`` and CUDA graphs work as for any module. A sampler that loads a state
    dict goes on where the saved one stopped, on any number of ranks. A state dict of a model from
    before it had a sampler loads, also with ``strict=True``: the sampler then stays as it is.

    Threads may share a sampler: no id is drawn twice. The copies that ``nn.DataParallel`` makes of
    a model draw together what the model would draw for the whole batch.

    A sampler that is made on a CUDA device or moved to one draws a mask of each of its kinds and
    drops it. This compiles and loads the kernels, so that CUDA graphs can capture the first call.
    Kinds that look at the input are left out, because there is no input yet.
    """

    #: What a call returns.
    result: ClassVar[type] = Masks
    #: In a copy that nn.DataParallel made.
    _replica: Replica | None = None
    seed: Tensor
    next_id: Tensor

    def __init__(self, seed: int | Tensor) -> None:
        super().__init__()
        device = seed.device if isinstance(seed, Tensor) else torch.device("cpu")
        seed_tensor, value = parse_seed(seed, device)
        value = value if seed_tensor is None else int(seed_tensor)
        self._seed_given = value
        self.register_buffer("seed", torch.tensor(value, dtype=torch.int64))
        self.register_buffer("next_id", torch.zeros((), dtype=torch.int64))
        self._replay = Replay()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MaskStream:
        moved = super()._apply(fn, recurse)
        self._prepare()
        return moved

    def _load_from_state_dict(
        self, state_dict: Mapping[str, object], prefix: str, *arguments: object
    ) -> None:
        # A model from before it had a sampler. (A state dict of a sampler itself has no prefix.)
        if prefix and not any(name.startswith(prefix) for name in state_dict):
            return
        super()._load_from_state_dict(state_dict, prefix, *arguments)
        self._prepare()  # assign=True may have brought buffers of another device

    def __setstate__(self, state: dict[str, object]) -> None:
        super().__setstate__(state)
        self._prepare()

    def _prepare(self) -> None:
        """Draws the first masks on a CUDA device, once for each device and kind. Subclasses call it
        at the end of their ``__init__``."""
        device = self.next_id.device
        # Fake tensors and the like claim to be on the device, but have no memory there.
        if not devices.is_cuda(device) or type(self.next_id) is not Tensor:
            return
        if torch.compiler.is_compiling() or devices.is_capturing(device):
            return
        for key, draw in self._first_draws().items():
            if (device, key) not in _prepared:
                draw(torch.arange(1, device=device).add_(self.next_id))  # as ``advance`` does
                _prepared.add((device, key))

    def _first_draws(self) -> Mapping[Any, Callable[[Tensor], object]]:
        """Functions of sample ids that draw the masks which calls may draw, one for each kind. The
        key says what is drawn: functions with equal keys are called once."""
        raise NotImplementedError

    @property
    def needs_data(self) -> bool:
        """Whether a call must be given the input."""
        raise NotImplementedError

    def masks(self, sample_ids: Tensor, data: Any = None, valid: Any = None) -> Any:
        """The masks with these ids (int64 [B]), without advancing: for evaluation, or where a
        dataset's index names the mask. ``data`` and ``valid`` as for a call."""
        raise NotImplementedError

    def forward(self, batch_size: int | Sequence[int], data: Any = None, valid: Any = None) -> Any:
        """The next masks of this rank; advances the stream of all ranks.

        Args:
            batch_size: of every rank alike; or, where the last batches are uneven, the batch size
                of each rank in rank order.
            data: the input of this rank's samples, for kinds of masks that look at it.
            valid: where tokens of this rank's samples may be visible, if their inputs are padded;
                see ``noise_masks``.

        Raises:
            RuntimeError: in a data loader worker, because every worker would draw the same masks;
                and in a backward pass, because a checkpointed region would get other masks than in
                the forward pass (see ``checkpoint_contexts``).
        """
        replay, replica = self._replay, self._replica
        if torch.compiler.is_compiling():
            if replay.noted_in or replay.repeated is not None:
                raise RuntimeError(COMPILED)
            if replica is not None:
                raise RuntimeError(_COMPILED_REPLICA)
            n, before, by_all = _shares(batch_size, *rank_and_world_size())
            sample_ids = torch.ops.smnm.advance(self.next_id, n, before, by_all)
        elif replay.repeated is not None:
            sample_ids = next(replay.repeated)
        elif replica is not None:
            sample_ids = self._draw_beside(replica, batch_size)
        else:  # the same function as the op's, called directly: the dispatcher doubles its time
            n, before, by_all = _shares(batch_size, *rank_and_world_size())
            sample_ids = advance(self.next_id, n, before, by_all)
        for noted in replay.noted_in:
            noted.append(sample_ids)
        return self.masks(sample_ids, data, valid)

    def _draw_beside(self, replica: Replica, batch_size: int | Sequence[int]) -> Tensor:
        """The next ids of a copy that nn.DataParallel made: behind those of the copies before."""
        check_may_draw()
        if not is_int(batch_size):
            raise ValueError(f"batch_size must be an int in nn.DataParallel, got {batch_size!r}")
        n, _, _ = _shares(batch_size, 0, 1)
        before_here, by_all_here = replica.share(n)
        _, before, by_all = _shares(by_all_here, *rank_and_world_size())
        return advance(self.next_id, n, before + before_here, by_all)

    def _replicate_for_data_parallel(self) -> Self:
        copy = super()._replicate_for_data_parallel()
        copy._replay = Replay()
        copy._replica = count_in(self, copy)
        return copy

    def reset_parameters(self) -> None:
        """Sets the seed and the place in the stream to those of a new sampler. PyTorch calls it for
        modules that were made on the meta device and got memory later (``to_empty``)."""
        self.seed.fill_(self._seed_given)
        self.next_id.zero_()

    def reset(self, next_id: int = 0) -> None:
        """Go back (or forward) to a place in the stream."""
        if not is_int(next_id) or not -(2**63) <= next_id < 2**63:
            raise ValueError(f"next_id must be an int of 64 bits, got {next_id!r}")
        self.next_id.fill_(next_id)

    def checkpoint_contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        """Lets a region of activation checkpointing call the sampler: when the backward pass
        computes the region again, calls return the masks of the forward pass.

        >>> checkpoint(block, x, use_reentrant=False, context_fn=sampler.checkpoint_contexts)

        It serves this sampler alone, in eager code. In compiled code, draw the masks before the
        region and pass them in; then these contexts are not needed.
        """
        noted: list[Tensor] = []
        return NoteIds(self._replay, noted), RepeatIds(self._replay, noted)


def check_sampler(sampler: object, kind: type | tuple[type, ...]) -> None:
    """Raises TypeError if ``sampler`` is no instance of ``kind``."""
    if not isinstance(sampler, kind):
        raise TypeError(f"sampler must be a MaskSampler, got {type(sampler).__name__}")


def _shares(batch_size: int | Sequence[int], rank: int, world_size: int) -> tuple[int, int, int]:
    """(samples of this rank, of the ranks before it, of all ranks)."""
    if is_int(batch_size) and batch_size >= 0:
        return batch_size, rank * batch_size, world_size * batch_size
    if isinstance(batch_size, Tensor):
        raise TypeError(
            "batch_size must be a non-negative int, got a tensor of shape "
            f"{list(batch_size.shape)}: call sampler(len(x))"
        )
    if not is_sequence(batch_size):
        raise ValueError(f"batch_size must be a non-negative int, got {batch_size!r}")
    if len(batch_size) != world_size or not all(is_int(n) and n >= 0 for n in batch_size):
        raise ValueError(
            f"batch_size as a sequence must have a non-negative int for each of the "
            f"{world_size} ranks, got {batch_size!r}"
        )
    return batch_size[rank], sum(batch_size[:rank]), sum(batch_size)


def rank_and_world_size() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
