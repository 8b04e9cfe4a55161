"""In a process that has made no mask: one sampler of each kind goes to the GPU, and its first call
is captured in a CUDA graph, or compiled into one. Counts those whose masks equal the CPU's."""

import json
import sys

import torch
from testing import assert_same
from torch.utils._pytree import tree_leaves

import smnm_kernels as smnm
from smnm_kernels.kinds import KINDS, make_kind

VIDEO = {"kind": "green3d", "grid": (8, 14, 14), "mask_ratio": 0.9}
AUDIO = {"kind": "rbn", "grid": (1, 64, 8), "mask_ratio": 0.8}


#: Kinds that look at an input load their kernels with it, at the first call.
WITHOUT_DATA = [kind for kind in KINDS if not make_kind(kind, (1, 8, 8), 0.75).needs_data]


def samplers():
    """The first of a kind is for the GPU, the second for the CPU."""
    for kind in WITHOUT_DATA:
        grid = (1, 16, 8) if kind in ("rbn", "time_frequency", "bands") else (4, 8, 8)
        yield [smnm.MaskSampler(kind, grid, 0.75, seed=5) for _ in range(2)]
    for hidden_time in (None, 0.5):
        yield [smnm.AudioVideoSampler(VIDEO, AUDIO, hidden_time=hidden_time) for _ in range(2)]


def captured(sampler):
    """Copies of the masks of three calls, the first of them captured."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        masks = sampler(16)
    for _ in range(3):
        graph.replay()
        yield [form.clone() for form in tree_leaves(masks)]


def compiled(sampler):
    torch._dynamo.reset()
    call = torch.compile(sampler, mode="reduce-overhead", fullgraph=True)
    for _ in range(3):
        torch.compiler.cudagraph_mark_step_begin()
        yield [form.clone() for form in tree_leaves(call(16))]


def main():
    steps = {"capture": captured, "compile": compiled}[sys.argv[1]]
    equal = 0
    for ours, theirs in samplers():
        for made in steps(ours.cuda()):
            assert_same(made, tree_leaves(theirs(16)))
        equal += 1
    print(json.dumps({"equal": equal}))


if __name__ == "__main__":
    main()
