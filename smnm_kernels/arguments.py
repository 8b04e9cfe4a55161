"""Checks of what callers pass. Every message names the argument, what came and what is allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeGuard, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from typing_extensions import TypeIs

Grid = tuple[int, int, int]
P = ParamSpec("P")
Parsed = TypeVar("Parsed")
Value = TypeVar("Value")

#: Token indices fit 32 bits in the kernels, and a grid this large is a mistake anyway.
MAX_TOKENS = 2**30
#: How many results ``parse_once`` keeps for one function.
MAX_CACHED = 256


def constant_in_graphs(function: Callable[P, Parsed]) -> Callable[P, Parsed]:
    """What torch.compiler.assume_constant_result does; that one imports the whole compiler, which
    takes a second. A test holds the two equal."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


class Seed(NamedTuple):
    """A seed as the ops take it: a tensor or an int."""

    #: int64 of one element on the device of the sample ids, read by the kernel; or None.
    tensor: Tensor | None
    #: The seed where ``tensor`` is None; ignored otherwise.
    value: int

    @classmethod
    def beside(cls, sample_ids: Tensor, seed: Tensor) -> Seed:
        """``seed`` as a tensor if it is on the device of ``sample_ids``, else as an int."""
        if seed.device == sample_ids.device:
            return cls(seed, 0)
        return cls(None, int(seed))

    def __xor__(self, other: int) -> Seed:
        """Another seed, so that a second use of the same ids gets other random words."""
        if self.tensor is None:
            return Seed(None, self.value ^ other)
        return Seed(self.tensor ^ other, 0)


def parse_grid(grid: Sequence[int]) -> Grid:
    """(T, H, W) as ints, each at least 1; two numbers (H, W) are (1, H, W)."""
    allowed = (
        "grid must be three positive ints (T, H, W), or two (H, W) for one frame, with "
        f"T*H*W <= {MAX_TOKENS}"
    )
    if not is_sequence(grid):
        raise TypeError(f"{allowed}, got {grid!r}")
    if len(grid) not in (2, 3):
        raise ValueError(f"{allowed}, got {len(grid)} values: {tuple(grid)!r}")
    if not all(is_int(n) for n in grid):
        raise TypeError(f"{allowed}, got {tuple(grid)!r}")
    sides = tuple(int(n) for n in ((1, *grid) if len(grid) == 2 else grid))
    if min(sides) < 1 or math.prod(sides) > MAX_TOKENS:
        raise ValueError(f"{allowed}, got {tuple(grid)!r}")
    return sides  # type: ignore[return-value]


def parse_n_keep(
    n_tokens: int, mask_ratio: float | None, n_keep: int | None, frames: int = 1
) -> int:
    """Visible tokens per sample: floor(N * (1 - ratio)) on the decimal ratio as written.

    1000 tokens at 0.9 keep 100, where binary floating point would keep 99. With ``frames`` > 1
    one mask of N/frames tokens is repeated over the frames. Then the count of one frame is rounded
    down, and the result is a multiple of ``frames``.
    """
    if (mask_ratio is None) == (n_keep is None):
        came = "neither" if n_keep is None else f"mask_ratio={mask_ratio!r} and n_keep={n_keep!r}"
        raise ValueError(f"exactly one of mask_ratio and n_keep must be given, got {came}")
    if n_keep is not None:
        if not is_int(n_keep):
            raise TypeError(f"n_keep must be an int, got {n_keep!r}")
        if not 1 <= n_keep <= n_tokens:
            raise ValueError(f"n_keep must be in [1, {n_tokens}] for this grid, got {n_keep}")
        if n_keep % frames:
            raise ValueError(
                f"n_keep must be a multiple of the {frames} frames that one mask is repeated over, "
                f"got {n_keep}"
            )
        return int(n_keep)
    kept_share, out_of = visible_share(as_constant(mask_ratio))
    kept = frames * (n_tokens // frames * kept_share // out_of)
    if kept == 0:
        of_frame = n_tokens // frames
        raise ValueError(
            f"mask_ratio must be at most {1 - Fraction(1, of_frame)}, so that one of {of_frame} "
            f"tokens is visible, got {mask_ratio!r}"
        )
    return kept


@constant_in_graphs
def visible_share(mask_ratio: float | None) -> tuple[int, int]:
    """(numerator, denominator) of 1 - mask_ratio, for the decimal that the caller wrote.

    torch.compile cannot trace fractions, so the result is a constant to it.
    """
    if isinstance(mask_ratio, bool) or not isinstance(mask_ratio, (numbers.Real, Decimal)):
        raise TypeError(f"mask_ratio must be a real number in [0, 1), got {mask_ratio!r}")
    try:
        exact = decimal_as_written(mask_ratio)
    except ValueError:  # nan, inf
        exact = Fraction(-1)
    if not 0 <= exact < 1:
        raise ValueError(f"mask_ratio must be in [0, 1), got {mask_ratio!r}")
    return exact.denominator - exact.numerator, exact.denominator


@lru_cache(maxsize=256, typed=True)
def decimal_as_written(number: numbers.Real | Decimal) -> Fraction:
    """The number as the caller typed it: exactly the shortest decimal that prints as it."""
    return number if isinstance(number, Fraction) else Fraction(str(number))


@constant_in_graphs
def parse_thousandths(number: float, most: int, allowed: str) -> int:
    """A decimal of at most three places in [0, most / 1000], in thousandths. ``allowed``: the
    beginning of messages."""
    if isinstance(number, bool) or not isinstance(number, (numbers.Real, Decimal)):
        raise TypeError(f"{allowed}, got {number!r}")
    try:
        exact = 1000 * decimal_as_written(number)
    except ValueError:  # nan, inf
        exact = Fraction(-1)
    if not 0 <= exact <= most or exact.denominator != 1:
        raise ValueError(f"{allowed}, got {number!r}")
    return int(exact)


def check_sample_ids(sample_ids: Tensor) -> None:
    """int64 [B]."""
    if not isinstance(sample_ids, Tensor):
        raise TypeError(f"sample_ids must be an int64 tensor [B], got {type(sample_ids).__name__}")
    if sample_ids.dtype != torch.int64:
        raise TypeError(f"sample_ids must have dtype torch.int64, got {sample_ids.dtype}")
    if sample_ids.dim() != 1:
        raise ValueError(f"sample_ids must have shape [B], got {list(sample_ids.shape)}")


def check_rows(name: str, values: Tensor, sample_ids: Tensor) -> None:
    """One for each sample id, on the same device."""
    if values.dim() == 0 or values.shape[0] != sample_ids.shape[0]:
        raise ValueError(
            f"{name} must have a row for each of the {sample_ids.shape[0]} sample_ids, got shape "
            f"{list(values.shape)}"
        )
    if values.device != sample_ids.device:
        raise ValueError(
            f"{name} must be on the device of sample_ids, {sample_ids.device}, got {values.device}"
        )


def parse_seed(seed: int | Tensor, device: torch.device) -> Seed:
    """The seed from an int, or from a one-element int64 tensor on the device of the sample ids."""
    if isinstance(seed, Tensor):
        if seed.dtype != torch.int64 or seed.numel() != 1:
            raise TypeError(
                "seed must be an int or a one-element int64 tensor, "
                f"got {seed.dtype} of shape {list(seed.shape)}"
            )
        if seed.device != device:
            raise ValueError(f"seed must be on the device of the work, {device}, got {seed.device}")
        return Seed(seed, 0)
    if not is_int(seed):
        raise TypeError(f"seed must be an int or a one-element int64 tensor, got {seed!r}")
    if not -(2**63) <= seed < 2**63:
        raise ValueError(f"seed must fit in 64 bits, [-2**63, 2**63), got {seed}")
    return Seed(None, int(seed))


def parse_noise(noise: Tensor, mask_ratio: float | None, n_keep: int | None) -> tuple[Tensor, int]:
    """(noise as float32 or float64 [B, N], n_keep) from the arguments of ``threshold``."""
    if not isinstance(noise, Tensor):
        raise TypeError(f"noise must be a floating-point tensor, got {type(noise).__name__}")
    if not noise.dtype.is_floating_point:
        raise TypeError(f"noise must be floating point, got {noise.dtype}")
    if noise.dim() < 2 or 0 in noise.shape[1:]:
        raise ValueError(f"noise must have shape [B, T, H, W] or [B, N], got {list(noise.shape)}")
    # float32 holds every 16-bit float exactly.
    flat = (noise if noise.dtype == torch.float64 else noise.float()).flatten(1)
    return flat, parse_n_keep(flat.shape[1], mask_ratio, n_keep)


def parse_flag(name: str, value: bool) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return value


def is_sequence(value: object) -> TypeIs[Sequence]:
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes))


def is_int(value: object) -> TypeGuard[int]:
    """True for ints of Python, NumPy and torch.export (symbolic ints); False for bools."""
    if type(value) is int:  # the usual case, and much faster than isinstance with an ABC
        return True
    return isinstance(value, (numbers.Integral, torch.SymInt)) and not isinstance(value, bool)


def parse_once(parse: Callable[P, Parsed]) -> Callable[P, Parsed]:
    """Caches ``parse`` by its arguments, if all of them are plain (None, numbers, strings, tuples
    and lists).

    A training loop passes the same arguments every time, and parsing them costs more than a small
    batch of masks. The key is the text of the arguments, which also tells 1 from 1.0 and from True.
    In compiled code nothing is cached: there the arguments are constants.
    """
    results: dict[str, Parsed] = {}

    @wraps(parse)
    def cached(*arguments: P.args, **named: P.kwargs) -> Parsed:
        if torch.compiler.is_compiling():
            return parse(
                *as_constant(arguments),
                **{name: as_constant(named[name]) for name in named},  # type: ignore[arg-type]
            )
        for value in (*arguments, *named.values()):
            if type(value) not in _PLAIN and not _is_plain_sequence(value):
                return parse(*arguments, **named)
        key = repr((arguments, named))
        result = results.get(key)
        if result is None:
            if len(results) >= MAX_CACHED:
                results.clear()
            result = results[key] = parse(*arguments, **named)
        return result

    return cached


#: Types whose text says everything about a value; subclasses of them are not meant.
_PLAIN = frozenset({type(None), int, float, bool, str})


def _is_plain_sequence(value: Any) -> bool:
    """Whether it is a tuple or list of plain values, or of such sequences."""
    if type(value) not in (tuple, list):
        return False
    return all(type(item) in _PLAIN or _is_plain_sequence(item) for item in value)


def as_constant(value: Value) -> Value:
    """``value``, made a constant to torch.compile.

    Under ``dynamic=True`` torch.compile turns every number from outside the compiled function into
    a symbol, defaults included. Settings of a kind of mask must be constants instead: each value
    gets a graph of its own.
    """
    if torch.compiler.is_compiling():
        if isinstance(value, (tuple, list)):
            return tuple(as_constant(item) for item in value)  # type: ignore[return-value]
        if isinstance(value, (int, float)):
            # Imported here because it takes half a second, and masks need it only in graphs.
            from torch.fx.experimental.symbolic_shapes import guard_scalar

            return guard_scalar(value)  # type: ignore[return-value]
    return value
