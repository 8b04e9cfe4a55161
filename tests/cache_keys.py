"""Prints how many kernels Triton would compile for calls that must share theirs: what
test_specialization.py runs in a process of its own, which does not interpret kernels."""

import itertools
import json
import sys
from collections import defaultdict
from unittest import mock

import torch
from op_calls import noise_call, noise_masks_call, rbn_bank_call, rbn_masks_call
from triton.runtime.jit import JITFunction
from triton_report import compiling_for

from smnm_kernels import triton_kernels as gpu
from smnm_kernels.arguments import parse_seed
from smnm_kernels.kinds import make_kind
from smnm_kernels.triton_kernels import draw_ops, noise_ops, rbn_ops, structure_ops

#: What Triton compiles anew for, where it may: 1, multiples of 16, 64 bits. And one of none.
COUNTS = (17, 1, 16)
SEEDS = {"int": (17, 1, 16, -5, 2**40), "tensor": torch.zeros(3, dtype=torch.int64).unbind()}
RULE = ((3, 5), (0.4, 0.4, 0.1, 0.1))
GRIDS = ((8, 14, 14), (1, 64, 8), (1, 14, 14), (3, 5, 7))


def one_by_one(*axes):
    """The first value of every axis, then every other value of each."""
    first = [axis[0] for axis in axes]
    yield first
    for i, axis in enumerate(axes):
        for value in axis[1:]:
            yield [*first[:i], value, *first[i + 1 :]]


def parts_of(tensor):
    """Batches that start on 16 bytes and elsewhere, and lie in strides."""
    assert tensor.data_ptr() % 16 == 0
    return [view[:n] for n in COUNTS for view in (tensor, tensor[1:], tensor[1::2])]


IDS = parts_of(torch.arange(40))


def calls():
    """(what its kernels are compiled for, op, arguments)."""
    for form, seeds in SEEDS.items():
        for grid, color in itertools.product(GRIDS, ("white", "red", "green")):
            for ids, seed in one_by_one(IDS, seeds):
                name = f"noise, {color} {grid}, seed {form}"
                yield name, gpu.noise_kernel, noise_call(ids, grid, color, None, seed)
            for tube, (ids, seed, count) in itertools.product(
                (False, True), one_by_one(IDS, seeds, COUNTS)
            ):
                n_keep = count * grid[0] if tube else count
                call = noise_masks_call(ids, grid, color, None, n_keep, None, tube, False, seed)
                name = f"masks, {color} {grid}, tube {tube}, seed {form}"
                yield name, gpu.noise_masks_kernel, call
        for ties in ("first", "random"):
            for ids, seed, n_keep in one_by_one(IDS, seeds, COUNTS):
                call = rbn_masks_call(ids, (1, 9, 5), None, n_keep, 3, *RULE, ties, False, seed)
                yield f"R-BN, {ties} of ties, seed {form}", gpu.rbn_masks_kernel, call
                valid = torch.ones(len(ids), 45, dtype=torch.bool)
                name = f"padded R-BN, {ties} of ties, seed {form}"
                yield name, gpu.rbn_masks_kernel, (*call, valid)
            orders = parts_of(torch.arange(45).repeat(40, 1))
            for order, seed, n_keep in one_by_one(orders, seeds, COUNTS):
                call = rbn_bank_call(order, 3, n_keep, (1, 9, 5), *RULE, ties, seed)
                yield f"banks, {ties} of ties, seed {form}", gpu.rbn_bank_kernel, call
        for ids, seed, n_keep, n_swapped in one_by_one(IDS, seeds, COUNTS, (2, 1, 16)):
            for rule, invert in (("weights", False), ("scores", True)):
                values = torch.zeros(40, 45)[: len(ids)]
                call = (*parse_seed(seed, ids.device), values, rule, n_keep, invert)
                swapped = min(n_swapped, n_keep)
                name = f"draw masks by {rule}, inverted {invert}, seed {form}"
                yield name, gpu.draw_masks_kernel, (ids, *call, swapped)
                valid = torch.ones(len(ids), 45, dtype=torch.bool)
                yield f"{name}, padded", gpu.draw_masks_kernel, (ids, *call, swapped, valid)
        # Settings that change parameters and counts; rows of valid that begin anywhere.
        grid = (3, 9, 5)
        for kind, settings, has_valid in (
            ("inverse_block", [{"block_size": size} for size in (5, 1, 2)], False),
            ("frames", [{}], True),
            ("multi_block", [{"n_blocks": n, "aspect": n} for n in (4, 1, 16)], True),
        ):
            for ids, seed, count, more in one_by_one(IDS, seeds, COUNTS, settings):
                made = make_kind(kind, grid, n_keep=3 * min(count, 45), **more)
                valid = torch.ones(41, 135, dtype=torch.bool)[1 : len(ids) + 1]
                call = (*parse_seed(seed, ids.device), valid if has_valid else None)
                name = f"{kind} masks, valid {has_valid}, seed {form}"
                yield name, gpu.structure_masks_kernel, (ids, *call, *made.op_arguments)
    for data in (
        torch.zeros(40, 1, 1, 16, 16)[part] for part in (slice(17), slice(1, 2), slice(16))
    ):
        yield "dispersion", gpu.dispersion_kernel, (data, (1, 4, 4), "mad")
    for dtype in (torch.float32, torch.float64):
        for noise, n_keep in one_by_one(parts_of(torch.zeros(40, 45, dtype=dtype)), COUNTS):
            yield f"threshold, {dtype}", gpu.threshold_kernel, (noise, n_keep)


def parts_of_three(batch, *_):
    return (slice(start, min(start + 3, batch)) for start in range(0, batch, 3))


def main():
    """A line of JSON for each (launched for, kernel) with the number of its cache keys."""
    keys = defaultdict(set)

    def note(kernel, key, *_):
        keys[launched_for, kernel.__name__].add(key)

    in_passes = mock.patch.multiple(noise_ops, tile_of=lambda *_: None, parts=parts_of_three)
    draws_off_chip = mock.patch.object(draw_ops, "MAX_TOKENS_ON_CHIP", 0)
    structures_off_chip = mock.patch.object(structure_ops, "MAX_TOKENS_ON_CHIP", 0)
    with (
        compiling_for(sys.argv[1]),
        mock.patch.object(JITFunction, "_do_compile", note),
        mock.patch.object(rbn_ops, "parts", parts_of_three),
    ):
        for name, op, call in calls():
            launched_for = name
            op(*call)
            if "noise" in name or "masks" in name:
                launched_for = f"{name}, in passes"
                with in_passes, draws_off_chip, structures_off_chip:
                    op(*call)
    for (launched_for, kernel), found in keys.items():
        print(json.dumps({"for": launched_for, "kernel": kernel, "keys": len(found)}))


if __name__ == "__main__":
    main()
