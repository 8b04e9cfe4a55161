"""Puts a sampler in place of a model's own masking, however the model is wrapped."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from smnm_kernels.samplers import MaskSampler, MaskStream, ScheduledSampler, check_sampler

from .methods import AdaMaeMasking, HieraMasking, M2dMasking, RandomMasking, Sampler


def _random_masking(method: Callable, *samplers: Sampler) -> RandomMasking:
    return RandomMasking(*samplers, ids_keep=_n_results(method) == 4)


def _random_masking_2d(method: Callable, *samplers: Sampler) -> Callable:
    return RandomMasking(*samplers).random_masking_2d


def _with_one(make: Callable[[Sampler], Any]) -> Callable:
    def replacement(method: Callable, *samplers: Sampler) -> Any:
        if len(samplers) > 1:
            raise ValueError(f"samplers must be one for this model, got {len(samplers)}")
        return make(*samplers)

    return replacement


#: For a method's name, the names of its first arguments, and what makes its replacement. The names
#: tell MAE's ``random_masking(x, mask_ratio)`` from others of its name: transformers' take noise.
_METHODS: dict[str, tuple[tuple[str, ...], Callable]] = {
    "random_masking": (("x", "mask_ratio"), _random_masking),  # MAE, mae_st, AudioMAE, ColorMAE
    "random_masking_2d": (("x", "mask_t_prob", "mask_f_prob"), _random_masking_2d),  # AudioMAE
    "random_masking_unstructured": (("x", "mask_ratio"), _random_masking),  # CAV-MAE
    "random_masking_structured": (("x", "mask_ratio"), _random_masking),  # CAV-MAE
    "color_masking": (("x",), _random_masking),  # ColorMAE
    "get_random_mask": (("x", "mask_ratio"), _with_one(HieraMasking)),  # Hiera
    "get_mask": (("x",), _with_one(AdaMaeMasking)),  # AdaMAE
    "_random_mask_fn": (("shape", "mask_ratio", "device"), _with_one(M2dMasking)),  # M2D
}
#: Where objects that are no modules, such as MMEngine's Runner, keep a model.
_HOLDERS = ("model", "module", "backbone")


@dataclass(eq=False, repr=False)
class Installed(AbstractContextManager):
    """What ``install`` did. ``undo``, or the end of a ``with`` block, gives the model its own
    methods back."""

    #: The module that masks, inside all wrappers.
    module: nn.Module
    #: For each replaced method's name, the model's own.
    replaced: dict[str, Callable]
    #: The names under which the module holds the samplers.
    samplers: list[str]
    #: What stood in the module itself, not in its class, under any of these names.
    _before: dict[str, Any] = field(default_factory=dict)

    def undo(self) -> None:
        """The model masks by its own methods again, and its samplers are taken out."""
        for name in (*self.replaced, *self.samplers):
            delattr(self.module, name)
            if name in self._before:
                setattr(self.module, name, self._before[name])
        self.replaced, self.samplers = {}, []

    def __repr__(self) -> str:
        return f"Installed({', '.join(self.replaced)} of {type(self.module).__name__})"

    def __exit__(self, *error: object) -> None:
        self.undo()


def install(model: Any, sampler: Sampler, *more: Sampler) -> Installed:
    """Makes a model mask with this sampler, in place of its own masking method.

    >>> install(model, smnm.MaskSampler("green2d", (14, 14), 0.75))

    Knows the methods of MAE, mae_st, AudioMAE, CAV-MAE, ColorMAE, M2D, Meta's Hiera and AdaMAE, and
    finds them in the model or in a part of it: through ``DistributedDataParallel``,
    ``DataParallel``, FSDP, accelerate, ``torch.compile`` and MMEngine's ``Runner``. The samplers
    become attributes of the module that masks, ``mask_sampler``, ``mask_sampler_1`` and so on, are
    moved to its device, and are saved and moved with it from then on.

    Install before the optimizer and before ``DistributedDataParallel`` or FSDP wrap the model, if
    you can. A checkpoint from before the change loads, also with ``strict=True``.

    Args:
        model: the model, or what holds it.
        sampler, more: one; for models that mask inputs of several lengths (CAV-MAE: audio and
            video), one for each.

    Returns:
        What was replaced, with ``undo``.

    Raises:
        ValueError: where the model has no method that is known, saying what was looked for; where
            several parts have one.
    """
    samplers = (sampler, *more)
    for one in samplers:
        check_sampler(one, (MaskSampler, ScheduledSampler))
    module = _module_that_masks(model)
    methods = _methods_of(module)
    replacements = {}
    for name, method in methods.items():
        _, make = _METHODS[name]
        replacements[name] = make(method, *samplers)
    names = ["mask_sampler", *(f"mask_sampler_{i}" for i in range(1, len(samplers)))]
    for name in names:
        if hasattr(module, name) and not isinstance(getattr(module, name), MaskStream):
            raise ValueError(f"{type(module).__name__} has an attribute {name!r} already")
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    if device.type != "meta":
        samplers = tuple(one.to(device) for one in samplers)  # before anything is taken out
    own = {**vars(module), **module._modules}
    before = {name: own[name] for name in (*methods, *names) if name in own}
    for name in before:
        delattr(module, name)
    for name, one in zip(names, samplers, strict=True):
        setattr(module, name, one)
    for name, replacement in replacements.items():
        setattr(module, name, replacement)
    return Installed(module, methods, names, before)


def _module_that_masks(model: Any) -> nn.Module:
    root = _root(model)
    found = {name: module for name, module in root.named_modules() if _methods_of(module)}
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        places = ", ".join(f"{name or 'itself'} ({type(m).__name__})" for name, m in found.items())
        raise ValueError(
            f"{len(found)} parts of {type(root).__name__} mask: {places}. Call install with the "
            "one that is meant"
        )
    known = ", ".join(f"{name}({', '.join(given)})" for name, (given, _) in _METHODS.items())
    others = {
        f"{type(module).__name__}.{name}{inspect.signature(method)}"
        for module in root.modules()
        for name in _METHODS
        if callable(method := getattr(type(module), name, None))
    }
    alike = f"; it has {', '.join(sorted(others))}, whose arguments are others" if others else ""
    raise ValueError(
        f"model must have one of the methods {known}; none is in {type(root).__name__} or its "
        f"{sum(1 for _ in root.modules()) - 1} parts{alike}. Models of transformers take masks as "
        "an argument, bool_masked_pos=masks.masked or noise=masks.vitmae_noise: see docs/adapters"
    )


def _root(model: Any) -> nn.Module:
    held, seen = model, [type(model).__name__]
    while not isinstance(held, nn.Module):
        name = next((name for name in _HOLDERS if getattr(held, name, None) is not None), None)
        if name is None:
            raise TypeError(
                "model must be a module, or hold one as .model, .module or .backbone, got "
                f"{'.'.join(seen)}"
            )
        held = getattr(held, name)
        seen.append(name)
    return held


def _methods_of(module: nn.Module) -> dict[str, Callable]:
    """The module's own masking methods that are known, by name: those of its class, and what is
    not of ours among its attributes. (A wrapper passes on the attributes of what it wraps, so it
    is not asked.)"""
    methods = dict(_candidates(module))
    if "_random_mask_fn" in methods:  # M2D's random_masking calls it
        return {"_random_mask_fn": methods["_random_mask_fn"]}
    return methods


def _candidates(module: nn.Module) -> Iterator[tuple[str, Callable]]:
    for name, (wanted, _) in _METHODS.items():
        in_class = getattr(type(module), name, None)
        of_instance = vars(module).get(name)
        if callable(in_class):
            arguments = list(inspect.signature(in_class).parameters)[1:]
            method = of_instance or in_class.__get__(module)
        elif name == "_random_mask_fn" and callable(of_instance):
            arguments, method = [*wanted], of_instance
        else:
            continue
        if tuple(arguments[: len(wanted)]) == wanted and _fits(name, module):
            yield name, method


def _fits(name: str, module: nn.Module) -> bool:
    """get_mask is a name that others have, too."""
    return name != "get_mask" or hasattr(module, "visible_patches")


def _n_results(method: Callable) -> int:
    """How many values MAE's method returns: three, in mae_st four. It is tried on one token."""
    if isinstance(method, RandomMasking):
        return 4 if method.ids_keep else 3
    if getattr(method, "__name__", "") != "random_masking":
        return 3
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        return len(method(torch.zeros(1, 4, 1), 0.5))
