"""torch.ops.smnm.*: the schema of each op, its fake implementation, and a function that calls it.

The ops take arguments that are already checked and canonical (``kinds``); users call the functions
of ``smnm_kernels``. ``dispatch`` names the kernels of each op for each device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

MaskTensors = tuple[Tensor, Tensor, Tensor]

_MASKS = "(Tensor visible, Tensor ids_keep, Tensor ids_restore)"
_NOISE = "Tensor sample_ids, Tensor? seed_tensor, int seed, SymInt[] grid, str color, float[] sigma"
_RBN = (
    "Tensor? seed_tensor, int seed, SymInt[] grid, SymInt n_keep, int n_candidates, "
    "int[] windows, int[] weights, bool random_ties"
)
library = torch.library.Library("smnm", "DEF")
library.define(f"noise({_NOISE}, float time_scale=1.0) -> Tensor")
library.define(f"noise_masks({_NOISE}, SymInt n_keep, bool tube, float time_scale=1.0) -> {_MASKS}")
library.define(f"threshold(Tensor noise, SymInt n_keep) -> {_MASKS}")
library.define(
    "draw_masks(Tensor sample_ids, Tensor? seed_tensor, int seed, Tensor values, str rule, "
    f"SymInt n_keep, bool invert, SymInt n_swapped, Tensor? valid=None) -> {_MASKS}"
)
library.define(
    "structure_masks(Tensor sample_ids, Tensor? seed_tensor, int seed, Tensor? valid, "
    f"SymInt[] grid, str structure, int[] parameters, SymInt n_keep) -> {_MASKS}"
)
library.define("dispersion(Tensor data, SymInt[] patch, str metric) -> Tensor")
library.define(f"rbn_masks(Tensor sample_ids, {_RBN}, Tensor? valid=None) -> {_MASKS}")
library.define(f"rbn_bank(Tensor order, {_RBN}) -> Tensor")
library.define("advance(Tensor(a!) next_id, SymInt n, SymInt before, SymInt by_all) -> Tensor")


# Looked up once: to look an overload up by its name takes a tenth of a small batch's time.
_noise = torch.ops.smnm.noise.default
_noise_masks = torch.ops.smnm.noise_masks.default
_threshold = torch.ops.smnm.threshold.default
_dispersion = torch.ops.smnm.dispersion.default
_draw_masks = torch.ops.smnm.draw_masks.default
_structure_masks = torch.ops.smnm.structure_masks.default
_rbn_masks = torch.ops.smnm.rbn_masks.default
_rbn_bank = torch.ops.smnm.rbn_bank.default


#: What makes noise masks of CPU tensors, where ``dispatch`` has put it here: Python code that calls
#: another op. To hand the arguments to it through the op takes as long as a small mask.
noise_masks_on_cpu: Callable[..., MaskTensors] | None = None


def is_plain(tensor: Tensor) -> bool:
    """Whether it is a CPU tensor in eager code: no graph, mode or transform wants to see the op."""
    return (
        type(tensor) is Tensor
        and tensor.is_cpu
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._len_torch_dispatch_stack() == 0
        and torch._C._len_torch_function_stack() == 0
        and torch._C._functorch.peek_interpreter_stack() is None
    )


def noise(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: str,
    sigma: Sequence[float],
    time_scale: float = 1.0,
) -> Tensor:
    """float32 [B, T, H, W] of unit variance."""
    return _noise(sample_ids, seed_tensor, seed, grid, color, sigma, time_scale)


def noise_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    color: str,
    sigma: Sequence[float],
    n_keep: int,
    tube: bool,
    time_scale: float = 1.0,
) -> MaskTensors:
    """The threshold of the noise. With ``tube``, one (1, H, W) mask is repeated over T."""
    arguments = (sample_ids, seed_tensor, seed, grid, color, sigma, n_keep, tube, time_scale)
    if noise_masks_on_cpu is not None and is_plain(sample_ids):
        return noise_masks_on_cpu(*arguments)
    return _noise_masks(*arguments)


def threshold(noise: Tensor, n_keep: int) -> MaskTensors:
    """``noise`` float32 or float64 [B, N]: the n_keep largest, ties to the lower token."""
    return _threshold(noise, n_keep)


def dispersion(data: Tensor, patch: Sequence[int], metric: str) -> Tensor:
    """float32 [B, N] from ``data`` float32 [B, C, T, H, W]: for each patch of (t, h, w) values, in
    all channels, how much its values differ."""
    return _dispersion(data, patch, metric)


def draw_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    values: Tensor,
    rule: str,
    n_keep: int,
    invert: bool,
    n_swapped: int,
    valid: Tensor | None = None,
) -> MaskTensors:
    """All tokens but n_keep are drawn and masked; with ``invert``, n_keep are drawn and visible.
    ``rule``, one of DRAW_RULES, says what ``values`` float32 [B, N] are. Then n_swapped of the
    drawn tokens are put back, and as many are drawn from all that are left: both evenly.

    Tokens that are not ``valid``, bool [B, N], are masked before all others, and never put back.
    Of d drawn tokens that are valid in a row, n_swapped * d // (all drawn) are swapped, so that
    what is masked evenly without ``valid`` is masked evenly with it."""
    return _draw_masks(
        sample_ids, seed_tensor, seed, values, rule, n_keep, invert, n_swapped, valid
    )


def structure_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    valid: Tensor | None,
    grid: Sequence[int],
    structure: str,
    parameters: Sequence[int],
    n_keep: int,
) -> MaskTensors:
    """The tokens of the largest marks, as ``structure``, one of STRUCTURES, gives them. Tokens that
    are not ``valid``, bool [B, N], come last. What the parameters are is the ``parameters`` of each
    ``kinds.StructureKind``."""
    return _structure_masks(
        sample_ids, seed_tensor, seed, valid, grid, structure, parameters, n_keep
    )


def rbn_masks(
    sample_ids: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    n_keep: int,
    n_candidates: int,
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
    valid: Tensor | None = None,
) -> MaskTensors:
    """Sample s is mask s mod K of bank s div K. With ``valid`` bool [B, N], which must be True for
    n_keep tokens of every row, each row's bank visits its valid positions alone."""
    rule = (n_candidates, windows, weights, random_ties)
    return _rbn_masks(sample_ids, seed_tensor, seed, grid, n_keep, *rule, valid)


def rbn_bank(
    order: Tensor,
    seed_tensor: Tensor | None,
    seed: int,
    grid: Sequence[int],
    n_keep: int,
    n_candidates: int,
    windows: Sequence[int],
    weights: Sequence[int],
    random_ties: bool,
) -> Tensor:
    """bool [G, K, N] from orders int64 [G, N]; row g is bank g."""
    return _rbn_bank(
        order, seed_tensor, seed, grid, n_keep, n_candidates, windows, weights, random_ties
    )


def empty_masks(like: Tensor, n_tokens: int, n_keep: int) -> MaskTensors:
    """(visible, ids_keep, ids_restore) for the rows of ``like``, not filled."""
    batch = like.shape[0]
    return (
        like.new_empty((batch, n_tokens), dtype=torch.bool),
        like.new_empty((batch, n_keep), dtype=torch.int64),
        like.new_empty((batch, n_tokens), dtype=torch.int64),
    )


@torch.library.register_fake("smnm::noise", lib=library)
def fake_noise(sample_ids: Tensor, seed_tensor, seed, grid, *field) -> Tensor:  # noqa: ANN001, ANN002
    return sample_ids.new_empty((sample_ids.shape[0], *grid), dtype=torch.float32)


@torch.library.register_fake("smnm::noise_masks", lib=library)
def _(sample_ids, seed_tensor, seed, grid, color, sigma, n_keep, *how) -> MaskTensors:  # noqa: ANN001, ANN002
    return empty_masks(sample_ids, math.prod(grid), n_keep)


@torch.library.register_fake("smnm::threshold", lib=library)
def _(noise: Tensor, n_keep: int) -> MaskTensors:
    return empty_masks(noise, noise.shape[1], n_keep)


@torch.library.register_fake("smnm::dispersion", lib=library)
def _(data: Tensor, patch, metric: str) -> Tensor:  # noqa: ANN001
    sides = zip(data.shape[2:], patch, strict=True)
    return data.new_empty((data.shape[0], math.prod(side // length for side, length in sides)))


@torch.library.register_fake("smnm::draw_masks", lib=library)
def _(sample_ids, seed_tensor, seed, values, rule, n_keep: int, *how) -> MaskTensors:  # noqa: ANN001, ANN002
    return empty_masks(sample_ids, values.shape[1], n_keep)


@torch.library.register_fake("smnm::structure_masks", lib=library)
def _(sample_ids, seed_tensor, seed, valid, grid, structure, parameters, n_keep) -> MaskTensors:  # noqa: ANN001
    return empty_masks(sample_ids, math.prod(grid), n_keep)


@torch.library.register_fake("smnm::rbn_masks", lib=library)
def _(sample_ids: Tensor, seed_tensor, seed, grid, n_keep: int, *rule) -> MaskTensors:  # noqa: ANN001, ANN002
    return empty_masks(sample_ids, math.prod(grid), n_keep)


@torch.library.register_fake("smnm::rbn_bank", lib=library)
def _(order: Tensor, seed_tensor, seed, grid, n_keep, n_candidates: int, *rule) -> Tensor:  # noqa: ANN001, ANN002
    return order.new_empty((order.shape[0], n_candidates, math.prod(grid)), dtype=torch.bool)


@torch.library.register_fake("smnm::advance", lib=library)
def _(next_id: Tensor, n: int, before: int, by_all: int) -> Tensor:
    return next_id.new_empty(n)


def fake_draw_masks_from_table(sample_ids, seed_tensor, seed, values, *rest) -> MaskTensors:  # noqa: ANN001, ANN002
    _table, _rule, n_keep, *_how = rest
    return empty_masks(sample_ids, values.shape[1], n_keep)


def fake_masks_from_table(sample_ids: Tensor, seed_tensor, seed, grid, *rest) -> MaskTensors:  # noqa: ANN001, ANN002
    *_table, n_keep, frames = rest
    return empty_masks(sample_ids, math.prod(grid) * frames, n_keep)
