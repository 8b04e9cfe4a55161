"""One rank of a group: ``torchrun ... ranks.py FOLDER`` saves its masks and its training there.
World size 2, which has to come first, saves a state that all go on from. ``ranks.py FOLDER --fork 1
4`` starts groups itself."""

import argparse
import os
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

import smnm_kernels as smnm

SAMPLERS = {
    "green3d": ("green3d", (4, 6, 6), 0.9),
    "tube": ("tube", (4, 6, 6), 0.75),
    "rbn": ("rbn", (1, 16, 8), 0.8),
}
SEED = 5
GRID = (2, 4, 4)
ALL_WAYS = ("DDP", "compiled inside DDP", "compiled DDP", "FSDP2")
#: Those that are run in every tier, by world size: each rank takes seconds to compile.
WAYS = {
    1: ("DDP", "compiled inside DDP"),
    2: ALL_WAYS,
    4: ("DDP", "FSDP2"),
}
# Samples of all ranks together, call by call: every optimiser step accumulates over two calls. The
# last batch of an epoch is uneven, and the epoch after it goes on.
STEPS = ((8, 8), (8, 8), (8, 7), (8, 8))
SAVED_AFTER = 2
UNEVEN = {1: [7], 2: [5, 2], 4: [3, 2, 0, 2]}


def given(n, world_size):
    """What every rank gives its sampler for n samples of all ranks."""
    return UNEVEN[world_size] if n == 7 else n // world_size


def draw(sampler, steps, world_size):
    """This rank's masks of each call."""
    return [list(sampler(given(n, world_size))) for step in steps for n in step]


class Model(nn.Module):
    """Its losses depend on the masks; nothing in it is random but the sampler."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.sampler = smnm.MaskSampler("green3d", GRID, 0.75, seed=SEED)
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()

    def forward(self, x, batch_size):
        masks = self.sampler(batch_size)
        tokens = x.gather(1, masks.ids_keep[..., None].expand(-1, -1, x.shape[2]))
        return self.layers(tokens).square().mean((1, 2)), masks


def train(model, rank, world_size, syncing=lambda last: nullcontext()):
    """Masks of each call, losses of its examples, gradients of each optimiser step."""
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), 0.5)
    masks, losses, gradients = [], [], []
    for step in STEPS:
        for i, n in enumerate(step):
            batch = torch.randn(n, 32, 3, dtype=torch.float64, generator=generator)
            batch_size = given(n, world_size)
            shares = batch_size if isinstance(batch_size, list) else [batch_size] * world_size
            with syncing(i == len(step) - 1):
                loss, drawn = model(batch.split(shares)[rank], batch_size)
                # The mean over ranks of these is the mean over all examples.
                (loss.sum() * world_size / n).backward()
            masks.append(list(drawn))
            losses.append(loss.detach())
        gradients.append([whole(p.grad) for p in model.parameters()])
        optimizer.step()
        optimizer.zero_grad()
    (next_id,) = (v for name, v in model.state_dict().items() if name.endswith("sampler.next_id"))
    return {"masks": masks, "losses": losses, "gradients": gradients, "next_id": int(next_id)}


def whole(gradient):
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient.clone()


def train_together(way, rank, world_size):
    model = Model()
    if way == "FSDP2":
        model = fully_shard(model, mesh=init_device_mesh("cpu", (world_size,)))

        def syncing(last):
            model.set_requires_gradient_sync(last)
            return nullcontext()

        return train(model, rank, world_size, syncing)
    if way == "compiled inside DDP":
        model = torch.compile(model, fullgraph=True, backend="aot_eager")
    model = DistributedDataParallel(model)
    # The hooks of DDP itself break its graph.
    call = torch.compile(model, backend="aot_eager") if way == "compiled DDP" else model
    return train(call, rank, world_size, lambda last: nullcontext() if last else model.no_sync())


def save(folder, ways):
    """What this rank draws and trains, as WORLD_SIZE-RANK.pt."""
    rank, world_size = dist.get_rank(), dist.get_world_size()
    saved = {}
    for name, arguments in SAMPLERS.items():
        sampler = smnm.MaskSampler(*arguments, seed=SEED)
        masks = draw(sampler, STEPS[:SAVED_AFTER], world_size)
        state = {key: int(value) for key, value in sampler.state_dict().items()}
        file = folder / f"{name}.pt"
        if world_size == 2 and rank == 1:
            torch.save(sampler.state_dict(), file)
        dist.barrier()
        masks += draw(sampler, STEPS[SAVED_AFTER:], world_size)
        resumed = smnm.MaskSampler(*arguments, seed=0)
        resumed.load_state_dict(torch.load(file, weights_only=True))
        resumed = draw(resumed, STEPS[SAVED_AFTER:], world_size)
        saved[name] = {"masks": masks, "state": state, "resumed": resumed}
    for way in ways:
        saved[way] = train_together(way, rank, world_size)
    torch.save(saved, folder / f"{world_size}-{rank}.pt")
    dist.destroy_process_group()


def fork(world_size, folder, ways):
    """A group of that many processes, for which nothing is imported again."""
    children, rendezvous = [], tempfile.mkdtemp()
    for rank in range(world_size):
        children.append(os.fork())
        if children[-1] == 0:
            store = f"file://{rendezvous}/store"
            dist.init_process_group("gloo", store, rank=rank, world_size=world_size)
            save(folder, ways)
            os._exit(0)  # an error has left by the traceback before
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        sys.exit(f"of {world_size} ranks, these are the exit codes: {codes}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--fork", type=int, nargs="+", default=[], metavar="WORLD_SIZE")
    parser.add_argument("--all-ways", action="store_true")
    options = parser.parse_args()

    def ways(world_size):
        return ALL_WAYS if options.all_ways else WAYS[world_size]

    for world_size in options.fork:
        fork(world_size, options.folder, ways(world_size))
    if not options.fork:
        dist.init_process_group("gloo")
        save(options.folder, ways(dist.get_world_size()))


if __name__ == "__main__":
    main()
