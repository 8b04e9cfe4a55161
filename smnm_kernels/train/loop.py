"""The pretraining job, from a folder of files to an exported encoder, as one plain loop."""

from __future__ import annotations

import json
import math
import signal
import sys
import time
from dataclasses import asdict
from types import FrameType, TracebackType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save as safetensors_bytes
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from smnm_kernels import MaskSampler
from smnm_kernels.errors import RunError, Unusable, UsageError, printable
from smnm_kernels.files import replacing

from . import distributed
from .data import BatchNumbers, ClipDataset, make_loader, model_input, normalisation, stop_workers
from .meter import Meter
from .model import build_model, build_optimizer, encoder_metadata
from .options import Pretrain, check, preset_of
from .plan import Plan, default_workers, learning_rate, make_plan
from .presets import Preset
from .reconstruction import draw
from .run import ENCODER, METRICS, PICTURE, MetricsLog, RunFolder, load_checkpoint

_SUMMARY_STEPS = 20  # first and last losses that the closing line averages
_PICTURED_CLIPS = 3


def pretrain(options: Pretrain) -> int:
    """Run or resume the job. Returns 0, or 130 / 143 when SIGINT / SIGTERM made it save and stop.

    Raises UsageError, before any work, where the options, the data or RUN do not allow it;
    RunError where a run that was going cannot go on.
    """
    preset, device, sampler = settle(options)
    distributed.start(device)
    try:
        folder = None

        def prepare() -> Plan:
            nonlocal folder
            folder = RunFolder(options.out)
            try:
                return make_plan(folder, options, preset, device)
            except UsageError:
                folder.remove_if_unused()
                raise

        plan = distributed.on_main(prepare)
        return Job(options, preset, plan, sampler, device, folder).run()
    finally:
        distributed.stop()


def settle(options: Pretrain) -> tuple[Preset, torch.device, MaskSampler]:
    """Everything that can be refused without looking at a file or at RUN."""
    check(options)
    preset = preset_of(options)
    if preset.batch_size % distributed.world_size():
        raise UsageError(
            f"--batch-size must be a multiple of the {distributed.world_size()} processes, "
            f"got {preset.batch_size}"
        )
    grid = preset.grid(options.modality)
    try:
        sampler = MaskSampler(preset.mask, grid, preset.mask_ratio, seed=options.seed)
    except (ValueError, TypeError) as error:
        asked = f"--mask {preset.mask} --mask-ratio {preset.mask_ratio}"
        raise UsageError(f"{asked} on a grid of {grid}: {error}") from error
    return preset, _device(options.device), sampler


class Job:
    """Model, optimiser, masks and data of one run, and the loop over its steps.

    `folder` is None in all processes but the first: only that one writes.
    """

    def __init__(
        self,
        options: Pretrain,
        preset: Preset,
        plan: Plan,
        sampler: MaskSampler,
        device: torch.device,
        folder: RunFolder | None,
    ) -> None:
        self.options, self.preset, self.plan, self.folder = options, preset, plan, folder
        self.device = device
        torch.set_num_threads(plan.threads)
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        self.model = build_model(options.modality, preset, options.seed).to(device)
        self.optimizer = build_optimizer(self.model, preset)
        self.sampler = sampler.to(device)
        self.dataset = ClipDataset(
            options.data, plan.files, options.modality, preset, options.seed, options.flip
        )
        self.mean, self.scale = normalisation(options.modality, device)
        self.failed: set[str] = set()
        self.step = 0  # steps done
        state = load_checkpoint(options.out)
        if state is not None:
            self.step = state["step"]
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.sampler.load_state_dict(state["mask_sampler"])
        self.saved_at = self.step if state is not None else None
        self.log = MetricsLog(folder.path / METRICS, self.step) if folder else None

    def run(self) -> int:
        """Train what is left to train; returns the exit code."""
        try:
            return self._run()
        except OSError as error:
            raise RunError(
                f"{error.filename or self.options.out}: {error.strerror or error}; the last "
                "checkpoint is whole, give the same command again to go on from it"
            ) from error

    def _run(self) -> int:
        plan = self.plan
        if self.step >= plan.steps:
            self._finish()
            self._say(
                f"already finished: {self.step} steps are done, {plan.steps} were asked for; "
                "raise --steps to go on"
            )
            return 0
        if plan.resumed:
            self._say(f"going on after step {self.step} of {plan.steps}")
        with StopSignal() as stop:
            self._train(stop)
            self._save()
            if stop.number is not None and self.step < plan.steps:
                self._say(
                    f"stopped by {signal.Signals(stop.number).name}, saved after step {self.step} "
                    f"of {plan.steps}; give the same command again to go on"
                )
                return 128 + stop.number
            self._finish()
        self._say(self._summary())
        return 0

    def _train(self, stop: StopSignal) -> None:
        options, preset, plan = self.options, self.preset, self.plan
        world = distributed.world_size()
        workers = default_workers() if options.workers is None else options.workers
        numbers = BatchNumbers(self.step, plan.steps, preset.batch_size, distributed.rank(), world)
        loader = make_loader(self.dataset, numbers, workers, pin_memory=self.device.type == "cuda")
        model: nn.Module = self.model
        if world > 1:
            model = DistributedDataParallel(model)
        meter = Meter(self.device, preset.batch_size)
        bar = tqdm(
            total=plan.steps,
            initial=self.step,
            unit=" steps",
            disable=not self.folder,
            mininterval=0.5 if sys.stderr.isatty() else 10,  # seconds; a log file needs fewer
        )
        iterator = iter(loader)
        waiting_since = time.perf_counter()
        try:
            for batch in iterator:
                data_ms = 1e3 * (time.perf_counter() - waiting_since)
                self._report_failures(batch.failures, gave_up=batch.clips is None)
                lr = learning_rate(self.step, plan, preset.min_lr)
                for group in self.optimizer.param_groups:
                    group["lr"] = lr

                x = model_input(batch.clips, self.mean, self.scale)
                timer = meter.mask_timer()
                masks = self.sampler(len(x))
                meter.mask_done(timer)
                with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
                    loss = model(x, masks)
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)

                self.step += 1
                row = {"step": self.step, "lr": lr, "data_ms": round(data_ms, 2)}
                meter.add(row, loss, timer)
                due = self.step % preset.checkpoint_every == 0
                if meter.full or due or self.step == plan.steps:
                    rows, stopping = meter.read(stop.number is not None)
                    self._log(rows)
                    bar.update(self.step - bar.n)
                    last = rows[-1]
                    bar.set_postfix_str(
                        f"loss {last['loss']:.4f}, {last['clips_per_s']:.1f} clips/s", refresh=False
                    )
                    if stopping:
                        break
                    if due:
                        self._save()
                        meter.restart_clock()
                waiting_since = time.perf_counter()
        finally:
            stop_workers(iterator)
            bar.close()

    def _log(self, rows: list[dict[str, Any]]) -> None:
        for row in rows:
            if not math.isfinite(row["loss"]):
                raise RunError(
                    f"the loss of step {row['step']} is {row['loss']}; the last checkpoint is from "
                    f"before it. Begin again in another --out, with a lower --lr than "
                    f"{self.plan.lr:g}"
                )
            if self.log:
                self.log.add(row)

    def _save(self) -> None:
        """last.pt, and pictures of what the model does by now."""
        if not self.folder or self.saved_at == self.step:
            return
        self.log.sync()
        self.folder.save_checkpoint(
            {
                "step": self.step,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "mask_sampler": self.sampler.state_dict(),
            }
        )
        self.saved_at = self.step
        if self.step < self.plan.steps:
            self._draw()

    def _draw(self) -> None:
        clips = []
        files = self.plan.files
        for i in range(min(_PICTURED_CLIPS, len(files))):
            file = files[i * len(files) // _PICTURED_CLIPS if len(files) > _PICTURED_CLIPS else i]
            try:
                clips.append(self.dataset.read(file, i))
            except Unusable as error:
                self._report_failures([(file["name"], str(error))], gave_up=False)
        if not clips:
            return
        x = model_input(torch.stack(clips), self.mean, self.scale)
        # Masks by their ids: looking does not move the run's own stream on.
        masks = self.sampler.masks(torch.arange(len(x), device=self.device))
        picture = draw(self.model, x, masks, self.mean, self.scale)
        with replacing(self.folder.path / PICTURE) as file:
            picture.save(file, format="PNG")

    def _finish(self) -> None:
        """Picture and encoder of the last step; nothing where they are there already."""
        if not self.folder:
            return
        path = self.folder.path / ENCODER
        if _exported_step(path) == self.step:
            return
        self._draw()
        encoder = self.model.encoder
        metadata = encoder_metadata(
            encoder,
            modality=self.options.modality,
            step=str(self.step),
            mean=json.dumps(self.mean.flatten().tolist()),
            scale=json.dumps(self.scale.flatten().tolist()),
            preset=json.dumps(asdict(self.preset)),
        )
        tensors = {name: t.detach().cpu().contiguous() for name, t in encoder.state_dict().items()}
        with replacing(path) as file:
            file.write(safetensors_bytes(tensors, metadata))

    def _report_failures(self, failures: list[tuple[str, str]], gave_up: bool) -> None:
        for name, reason in failures:
            if name not in self.failed:
                self.failed.add(name)
                tqdm.write(f"  failed {printable(name)}: {reason}; another file steps in")
                if self.folder:
                    self.folder.write_skipped(self.plan.skipped | {name: reason})
                    self.plan.skipped[name] = reason
        if gave_up:
            raise RunError(
                f"{self.options.data}: files that passed the scan cannot be read any more, at last "
                f"{printable(failures[-1][0])}: {failures[-1][1]}"
            )

    def _summary(self) -> str:
        if not self.log:
            return ""
        losses, n = self.log.losses, min(_SUMMARY_STEPS, len(self.log.losses))
        first, last = sum(losses[:n]) / n, sum(losses[-n:]) / n
        run = self.folder.path
        return (
            f"done: {self.step} steps; loss {first:.4f} (mean of the first {n}) -> {last:.4f} "
            f"(mean of the last {n})\nencoder: {run / ENCODER}\npictures: {run / PICTURE}"
        )

    def _say(self, text: str) -> None:
        if self.folder:
            print(text, flush=True)


class StopSignal:
    """Turns the first SIGINT or SIGTERM into a note for the loop; a second one acts at once."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._note)
            except ValueError:  # not the main thread: whoever owns that decides about signals
                break
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()


def _device(name: str) -> torch.device:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        name = "cuda" if count else "cpu"
    allowed = ["cpu"] + (["cuda"] + [f"cuda:{i}" for i in range(count)] if count else [])
    if name not in allowed:
        raise UsageError(
            f"--device {name}: not there; allowed on this machine with torch {torch.__version__}: "
            f"auto, {', '.join(allowed)}"
        )
    if name == "cuda":
        name = f"cuda:{distributed.local_rank()}"
        torch.cuda.set_device(name)
    return torch.device(name)


def _exported_step(path: Any) -> int | None:
    """The step whose encoder `path` holds; None where there is no such file."""
    if not path.exists():
        return None
    with safe_open(str(path), framework="pt") as file:
        return int((file.metadata() or {}).get("step", -1))
