"""AVT's gradients over processes are those of its definition in one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from avt_models import SIZES, fused_settings
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from smnm_kernels import Masks, MaskSampler
from smnm_kernels.train.data.modality import InputFormat
from smnm_kernels.train.models.avt import Avt
from smnm_kernels.train.models.avt_learner import (
    TEMPERATURE,
    LossWeights,
    avt_losses,
    pair_chances,
)
from smnm_kernels.train.models.contrast import info_nce
from smnm_kernels.train.models.objective import Facts

WORLD, EACH = 2, 4
# Two of one file within a process, and two in different ones.
FILES = torch.tensor([[3], [1], [3], [0], [5], [1], [4], [2]])
RELATED = FILES == FILES.T
INPUTS = {
    name: InputFormat(size, (0.0,) * size[0], (1.0,) * size[0], lambda *_: [])
    for name, size in SIZES.items()
}
OBJECTIVE = Avt(fused_settings(), LossWeights(contrast=1, matching=1, segment=1))


def part(rank: int) -> tuple[dict[str, Tensor], Masks, Tensor]:
    """(inputs, masks of the sound, files) of one process."""
    generator = torch.Generator().manual_seed(1)
    rows = slice(rank * EACH, (rank + 1) * EACH)
    x = {
        name: torch.randn(WORLD * EACH, *size, generator=generator)[rows]
        for name, size in SIZES.items()
    }
    x["audio"][:, :, :, 32:64] += 3
    sampler = MaskSampler("activity", (1, 8, 2), 0.4, seed=0)
    return x, sampler.masks(torch.arange(WORLD * EACH)[rows], x["audio"]), FILES[rows]


def in_processes(rank: int, folder: Path) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=WORLD
    )
    model = OBJECTIVE.build(INPUTS, seed=0)
    x, masks, files = part(rank)
    torch.manual_seed(rank)
    forward = DistributedDataParallel(model)
    OBJECTIVE.losses(forward, x, {"audio": masks}, {}, Facts(files))["loss"].backward()
    if rank == 0:
        torch.save({name: p.grad for name, p in model.named_parameters()}, folder / "found.pt")
    dist.destroy_process_group()


@pytest.mark.exhaustive
def test_gradients_of_two_processes_are_those_of_the_definition(tmp_path: Path) -> None:
    """Contrast over all samples, and the mean of what each process has of the other losses."""
    mp.spawn(in_processes, (tmp_path,), nprocs=WORLD)
    found = torch.load(tmp_path / "found.pt")
    model, patch, means = OBJECTIVE.build(INPUTS, seed=0), OBJECTIVE.model.audio.patch, []
    loss = torch.zeros(())
    for rank in range(WORLD):
        x, masks, files = part(rank)
        torch.manual_seed(rank)
        chance = pair_chances(OBJECTIVE.weights, x["audio"], files)
        parts = model(x, {}, masks, False, chance)
        means.append((parts.video, parts.audio))
        of_one = LossWeights(contrast=0, matching=1, segment=1)
        each = avt_losses(parts, of_one, patch, x["audio"], masks, None, Facts(files))
        loss = loss + (each["matching"] + each["segment"]) / WORLD
    video, audio = (torch.cat(rows) for rows in zip(*means, strict=True))
    (loss + info_nce(video, audio, TEMPERATURE, related=RELATED)).backward()
    expected = {name: p.grad for name, p in model.named_parameters()}
    assert expected["matching.weight"].abs().sum() > 0
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
