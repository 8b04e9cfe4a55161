"""The section "training" of `smnm bench`: what a training step costs, and what masks add to it."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

import smnm_kernels as smnm
from smnm_kernels.timing import peers
from smnm_kernels.train.models.formats import hf_videomae_config, to_hf_videomae
from smnm_kernels.train.models.mae import MaskedAutoencoder, build_model
from smnm_kernels.train.models.settings import VIDEOMAE, VIDEOMAE_SMALL, ModelSettings
from smnm_kernels.train.run.optimisation import Optimisation, adamw

from .paired_times import Contender, Times, measure, rows
from .profiling import peak_bytes, waits_and_copies

#: Pixels of a side on the CPU, where a full step would take minutes.
CPU_SIZE = 96
RATIO = 0.9
# Of models, not of a preset: presets read files, whose libraries a machine with a GPU may lack.
# Rates play no part in how long a step takes.
OPTIMISATION = Optimisation(
    batch_size=256, base_lr=1.5e-4, base_min_lr=0.0, weight_decay=0.05, betas=(0.9, 0.95)
)
FIXED, COMPILED = "masks made once", "compiled step, masks made once"
OURS = "smnm green3d"
WORKERS = 2


def training(
    quick: bool, seconds: float, device: torch.device, progress: Callable[[str], None]
) -> list[dict]:
    """For each model a row of each way of having masks, and one of the model itself."""
    models = models_for(quick, device)
    made: list[dict] = []
    for model in models:
        progress(f"training: {model.name}")
        made += rows_of_model(model, not quick, seconds / len(models), device)
    return made


class Model(NamedTuple):
    name: str
    settings: ModelSettings
    #: (C, T, H, W) of a clip.
    input_size: tuple[int, int, int, int]
    batch: int

    @property
    def shape(self) -> str:
        _, frames, height, width = self.input_size
        return f"{self.name}, {frames} frames of {height}x{width}"


def models_for(quick: bool, device: torch.device) -> list[Model]:
    if device.type == "cuda":
        size = (3, 16, 224, 224)
        return [Model("ViT-S", VIDEOMAE_SMALL, size, 64), Model("ViT-B", VIDEOMAE, size, 32)]
    size = (3, 16, CPU_SIZE, CPU_SIZE)
    if quick:
        return [Model("tiny ViT", VIDEOMAE.tiny(), size, 4)]
    return [Model("ViT-S", VIDEOMAE_SMALL, size, 4), Model("ViT-B", VIDEOMAE, size, 2)]


def rows_of_model(
    model: Model, compiled: bool, seconds: float, device: torch.device
) -> Iterator[dict]:
    """Each as soon as it is measured, the model's own last."""
    trainer = _Trainer(model, device)
    where = {"section": "training", "shape": model.shape, "batch": model.batch}
    share = seconds / (1 + compiled)
    alone = _mask_time(trainer, device)
    steps = _measure_rows(trainer.eager_steps(), share, device, where)
    for row in steps:
        if row["what"] in alone:
            row["mask_us"] = alone[row["what"]]
            row["mask_share"] = float(f"{alone[row['what']] / row['us']:.3g}")
    yield from steps
    if compiled:
        yield from _measure_rows(trainer.compiled_steps(), share, device, where)
    yield where | trainer.costs(steps[0]["us"])


def _measure_rows(
    group: list[Contender], seconds: float, device: torch.device, where: dict[str, object]
) -> list[dict]:
    times: dict[str, Times] = {}
    measure(group, times, seconds, device)
    made = rows(group, times, **where)
    return [row | _traffic(c.run, device) for row, c in zip(made, group, strict=True)]


class _Trainer:
    """A model with its optimiser and one batch of noise for clips."""

    def __init__(self, timed: Model, device: torch.device) -> None:
        batch = self.batch = timed.batch
        self.device, self.ratio = device, RATIO
        self.model = build_model(timed.settings, timed.input_size, seed=0).to(device)
        self.grid = self.model.encoder.grid
        self.optimizer = adamw(self.model, OPTIMISATION)
        self.x = torch.randn((batch, *timed.input_size), device=device)
        self.sampler = smnm.MaskSampler("green3d", self.grid, self.ratio).to(device)
        self.fixed = self.sampler.masks(torch.arange(batch, device=device))
        self.bank = smnm.NoiseBank.precompute(16, (64, 64, 64), "green").to(device)

    def loss(self, masks: smnm.Masks) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.model(self.x, masks)

    def learn(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def step(self, masks: Callable[[], smnm.Masks]) -> None:
        self.learn(self.loss(masks()))

    def mask_makers(self) -> dict[str, Callable[[], smnm.Masks]]:
        n_tokens = self.fixed.visible.shape[1]
        random = partial(peers.mae_random_masking, self.batch, n_tokens, self.ratio, self.device)
        bank = partial(
            peers.resident_bank_masking, self.bank.volumes, self.batch, self.grid, self.ratio
        )
        return {
            FIXED: lambda: self.fixed,
            OURS: lambda: self.sampler(self.batch),
            "MAE random masking": lambda: _as_masks(random()),
            "noise bank, crops and flips by one indexing": lambda: _as_masks(bank()),
        }

    def eager_steps(self) -> list[Contender]:
        found = [
            Contender(name, partial(self.step, make), graph=False, ours=name == OURS)
            for name, make in self.mask_makers().items()
        ]
        loaded = self.from_workers()
        in_frame = math.prod(self.grid[1:])
        n_keep = self.grid[0] * (in_frame - int(self.ratio * in_frame))
        found.append(
            Contender(
                f"tube masks from {WORKERS} workers (VideoMAE)",
                partial(self.step, lambda: smnm.Masks.from_masked(next(loaded))),
                f"the encoder sees {n_keep} tokens instead of {self.fixed.n_keep}; the workers "
                "share the cores; counting the tokens reads the masks",
                graph=False,
            )
        )
        if importlib.util.find_spec("transformers"):
            found.append(
                Contender(
                    "transformers' VideoMAE with the same weights, masks made once",
                    self.step_of_transformers(),
                    "the same loss, but for an eps, and the same AdamW",
                    graph=False,
                )
            )
        return found

    def step_of_transformers(self) -> Callable[[], None]:
        """The training step of transformers' class for the same model, to compare with ours."""
        from transformers import VideoMAEConfig, VideoMAEForPreTraining

        ours = self.model
        assert isinstance(ours, MaskedAutoencoder)
        config = hf_videomae_config(ours.settings, ours.encoder.input_size)
        theirs: nn.Module = VideoMAEForPreTraining.from_pretrained(
            None,
            config=VideoMAEConfig(**config),
            state_dict=to_hf_videomae(ours.state_dict(), ours.settings.encoder.patch),
        )
        theirs.to(self.device).train()
        optimizer = adamw(theirs, OPTIMISATION)
        frames_first, masked = self.x.transpose(1, 2).contiguous(), self.fixed.masked

        def step() -> None:
            with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                loss = theirs(frames_first, bool_masked_pos=masked).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    def compiled_steps(self) -> list[Contender]:
        """The whole of loss and mask making in one graph; masks made before it; none made."""
        within = torch.compile(lambda: self.loss(self.sampler(self.batch)), fullgraph=True)
        given = torch.compile(self.loss, fullgraph=True)
        return [
            Contender(COMPILED, lambda: self.learn(given(self.fixed)), graph=False),
            Contender(
                f"compiled step, {OURS} inside",
                lambda: self.learn(within()),
                graph=False,
                ours=True,
            ),
            Contender(
                f"compiled step, {OURS} before it",
                lambda: self.learn(given(self.sampler(self.batch))),
                graph=False,
                ours=True,
            ),
        ]

    def from_workers(self) -> Iterator[Tensor]:
        loader = DataLoader(
            _Tubes(self.grid, self.ratio), self.batch, num_workers=WORKERS, prefetch_factor=4
        )
        for masked in itertools.chain.from_iterable(itertools.repeat(loader)):
            yield masked.to(self.device)

    def memory_of_a_step(self) -> int | None:
        """Peak bytes, the model's and the optimizer's included."""

        def step() -> None:
            self.step(lambda: self.fixed)

        step()
        states = [t for of in self.optimizer.state.values() for t in of.values()]
        held = [t for t in (*self.model.parameters(), *states) if isinstance(t, Tensor)]
        beyond = peak_bytes(step, self.device)
        return beyond and beyond + sum(t.numel() * t.element_size() for t in held)

    def costs(self, step_us: float) -> dict[str, object]:
        """The costs of a model, as in the paper's Table A.6."""
        with FlopCounterMode(display=False) as counter:
            self.loss(self.fixed)
        memory = self.memory_of_a_step()
        return {
            "what": "the model",
            "parameters_millions": _millions(self.model),
            "encoder_parameters_millions": _millions(self.model.get_submodule("encoder")),
            "forward_gflops_per_clip": round(counter.get_total_flops() / self.batch / 1e9, 3),
            "peak_memory_gb": memory and round(memory / 1e9, 2),
            "clips_per_second": round(1e6 * self.batch / step_us, 2),
            "hours_per_100000_clips": round(1e5 * step_us / 1e6 / self.batch / 3600, 2),
        }


class _Tubes(Dataset):
    def __init__(self, grid: tuple[int, int, int], ratio: float) -> None:
        self.grid, self.ratio = grid, ratio

    def __len__(self) -> int:
        return 100_000

    def __getitem__(self, index: int) -> Tensor:
        return peers.tube_generator_masking(1, self.grid, self.ratio)[0]


def _as_masks(made: peers.MaeMasks) -> smnm.Masks:
    ids_keep, ids_restore, masked = made
    return smnm.Masks(masked == 0, ids_keep, ids_restore)


def _mask_time(trainer: _Trainer, device: torch.device) -> dict[str, float]:
    """Microseconds of mask making by itself."""
    makers = {k: m for k, m in trainer.mask_makers().items() if k != FIXED}
    contenders = [Contender(name, make, graph=False) for name, make in makers.items()]
    times: dict[str, Times] = {}
    measure(contenders, times, 1.0, device)
    return {row["what"]: row["us"] for row in rows(contenders, times)}


def _traffic(run: Callable[[], object], device: torch.device) -> dict[str, int]:
    """Times that a step waits for the device, and copies to it, as the profiler counts them."""
    if device.type != "cuda":
        return {}
    waits, copies = waits_and_copies(run)
    return {"waits": waits, "copies_to_device": copies}


def _millions(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 2)
