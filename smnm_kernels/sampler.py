"""The module a training loop holds: an endless stream of masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from .arguments import check_sample_ids, is_int, parse_seed
from .calls import noise_masks_call, rbn_masks_call
from .functional import noise_masks, rbn_masks
from .masks import Masks

#: Each kind as the op that draws it and what it fixes of its parameters. A two-dimensional kind
#: draws one (1, H, W) mask and repeats it over T.
KINDS: dict[str, tuple[str, dict[str, object]]] = {
    "random": ("noise_masks", {"color": "white"}),
    "tube": ("noise_masks", {"color": "white", "tube": True}),
    "rbn": ("rbn_masks", {}),
    **{
        f"{color}{dims}": ("noise_masks", {"color": color, "tube": dims == "2d"})
        for color in ("red", "blue", "green")
        for dims in ("2d", "3d")
    },
}
#: The public function of an op, for its defaults, and what makes the op's arguments of them.
_FUNCTIONS: dict[str, tuple[Callable, Callable]] = {
    "noise_masks": (noise_masks, noise_masks_call),
    "rbn_masks": (rbn_masks, rbn_masks_call),
}


class MaskSampler(nn.Module):
    """Draws the next masks of one seed's endless stream.

    Sample number i of the stream is the mask with sample id i, whatever the batch sizes. In an
    initialized ``torch.distributed`` group, each call takes one batch per rank, in rank order, so
    the ranks together draw what one process with the whole batch would. All ranks must ask for the
    same batch size.

    The state is two int64 buffers, ``seed`` and ``next_id`` (samples drawn so far by all ranks):
    ``.to()``, ``state_dict()`` and CUDA graphs work as for any module, and a sampler resumed from
    a state dict goes on where the stream stopped.

    Args:
        kind: "random", "tube", "red2d", "red3d", "blue2d", "blue3d", "green2d", "green3d", "rbn".
        grid: (T, H, W) patches.
        mask_ratio: share masked, in [0, 1); or give ``n_keep``.
        seed: names the stream.
        parameters: what ``noise_masks`` (``sigma``) or ``rbn_masks`` (``n_candidates``,
            ``windows``, ``weights``, ``tie_break``) take beyond that, and ``freq_major``.
    """

    seed: Tensor
    next_id: Tensor

    def __init__(
        self,
        kind: str,
        grid: Sequence[int],
        mask_ratio: float | None = None,
        *,
        n_keep: int | None = None,
        seed: int | Tensor = 0,
        **parameters: object,
    ) -> None:
        super().__init__()
        if not isinstance(kind, str) or kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
        self._op, fixed = KINDS[kind]
        function, to_call = _FUNCTIONS[self._op]
        defaults = function.__kwdefaults__
        allowed = {name for name in defaults if name not in ("n_keep", "seed", *fixed)}
        if unknown := sorted(parameters.keys() - allowed):
            raise TypeError(
                f"{kind} masks have no parameter {', '.join(unknown)}; allowed: "
                f"{', '.join(sorted(allowed))}"
            )
        self.kind = kind
        self.options = parameters
        seed_tensor, seed_value = parse_seed(seed, getattr(seed, "device", torch.device("cpu")))
        if seed_tensor is not None:
            seed_value = int(seed_tensor)
        self.register_buffer("seed", torch.tensor(seed_value, dtype=torch.int64))
        self.register_buffer("next_id", torch.zeros((), dtype=torch.int64))
        # Checked once, here: a step then calls the op with what torch.compile sees as constants.
        chosen = {**defaults, **fixed, **parameters, "n_keep": n_keep, "seed": 0}
        nothing = torch.empty(0, dtype=torch.int64)
        _, _, _, *self._arguments = to_call(nothing, grid, mask_ratio=mask_ratio, **chosen)
        self.grid = self._arguments[0]
        self.n_keep = self.masks(nothing).n_keep

    def forward(self, batch_size: int) -> Masks:
        """The next ``batch_size`` masks of this rank; advances the stream of all ranks."""
        if not is_int(batch_size) or batch_size < 0:
            raise ValueError(f"batch_size must be a non-negative int, got {batch_size!r}")
        rank, world_size = _rank_and_world_size()
        first = self.next_id + rank * batch_size
        sample_ids = first + torch.arange(batch_size, device=self.next_id.device)
        masks = self.masks(sample_ids)
        self.next_id += world_size * batch_size
        return masks

    def masks(self, sample_ids: Tensor) -> Masks:
        """The masks with these ids (int64 [B]), without advancing: for evaluation, or where a
        dataset's index names the mask."""
        check_sample_ids(sample_ids)
        beside = self.seed.device == sample_ids.device
        seed = (self.seed, 0) if beside else (None, int(self.seed))
        op = getattr(torch.ops.smnm, self._op)
        masks = Masks(*op(sample_ids, *seed, *self._arguments))
        return masks.freq_major(self.grid) if self.options.get("freq_major") else masks

    def reset(self, next_id: int = 0) -> None:
        """Go back (or forward) to a place in the stream."""
        if not is_int(next_id) or not -(2**63) <= next_id < 2**63:
            raise ValueError(f"next_id must be an int of 64 bits, got {next_id!r}")
        self.next_id.fill_(next_id)

    def extra_repr(self) -> str:
        parameters = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"{self.kind!r}, grid={self.grid}, n_keep={self.n_keep}{parameters}"


def _rank_and_world_size() -> tuple[int, int]:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return torch.distributed.get_rank(), torch.distributed.get_world_size()
    return 0, 1
