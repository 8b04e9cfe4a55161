"""The loop with a task and a kind of data of its own, and what it brings to every task."""

import os
import signal
from functools import partial
from itertools import accumulate

import pytest
import torch
from clips import losses, pretrain, rows
from line import Line, run_line
from PIL import Image
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._pytree import tree_leaves

from smnm_kernels import MaskSampler
from smnm_kernels.cli import main
from smnm_kernels.train.run.memory import step_memory
from smnm_kernels.train.run.meter import ends_of
from smnm_kernels.train.tasks.presets import PRESETS


class Interrupted(Line):
    """Ctrl-C comes in the fourth step, and takes with it what the step needs."""

    def step(self, forward, batch, clock):
        if len(self.seen) == 12:
            os.kill(os.getpid(), signal.SIGINT)
            raise RuntimeError("the compiler was killed")
        return super().step(forward, batch, clock)


def test_ctrl_c_that_ends_a_compiler_stops_the_run_after_the_last_whole_step(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: None)
    with pytest.raises(RuntimeError, match="compiler was killed"):  # not what ended it
        run_line(tmp_path / "eager", Interrupted)
    run_line(tmp_path / "compiled", Interrupted, code=130, compile=True)
    assert "stopped by SIGINT, saved after step 3 of 10" in capsys.readouterr().out
    run_line(tmp_path / "compiled", compile=True)
    straight = run_line(tmp_path / "straight")
    assert losses(tmp_path / "compiled/run") == losses(tmp_path / "straight/run")
    assert straight.seen == list(range(40))


def test_a_task_of_its_own_gets_everything_from_the_loop(tmp_path, capsys):
    task = run_line(tmp_path, keep_every=4)
    run = tmp_path / "run"
    assert task.seen == list(range(40))
    assert rows(run)[0].keys() == {
        "step", "lr", "data_ms", "loss", "bias", "clips_per_s", "think_ms",
    }  # fmt: skip
    assert losses(run)[-1] < losses(run)[0] / 2
    said = capsys.readouterr().out
    assert "5 of 6 numbers files are usable" in said
    assert "skipped words.txt: holds no numbers" in said
    assert "memory of a step, 4 samples at a time: computed 0.00 GB (" in said
    assert {p.name: p.read_text() for p in (run / "encoders").iterdir()} == {
        "step-00000004.safetensors": "4",
        "step-00000008.safetensors": "8",
    }
    assert (run / "encoder.safetensors").read_text() == "10"
    with Image.open(run / "line.png") as picture:
        assert picture.size == (4, 4)


class Watched(Line):
    """Complains of each step's bias after the sixth."""

    def watch(self, row):
        self.told = [*getattr(self, "told", []), row["step"]]
        return f"the bias is {row['bias']:.1f}" if row["step"] > 6 else None


def test_no_step_is_in_both_ends_of_the_losses():
    assert ends_of([1.0]) == {"only step": 1.0}
    assert ends_of([3.0, 2.0, 1.0]) == {"first step": 3.0, "last step": 1.0}
    assert ends_of([4.0, 2.0, 9.0, 1.0, 0.0]) == {
        "mean of the first 2": 3.0,
        "mean of the last 2": 0.5,
    }
    assert ends_of(range(100)) == {"mean of the first 20": 9.5, "mean of the last 20": 89.5}


def test_what_watches_a_task_is_told_every_step(tmp_path, capsys):
    task = run_line(tmp_path, Watched)
    assert task.told == list(range(1, 11))
    biases = [f"the bias is {row['bias']:.1f}" for row in rows(tmp_path / "run")[6:]]
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if line.startswith("the bias")] == biases


def test_what_a_kill_left_of_a_kept_encoder_is_removed(tmp_path):
    left = tmp_path / "run" / "encoders" / ".step-00000004.safetensors.123.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    run_line(tmp_path, keep_every=4)
    assert sorted(p.name for p in left.parent.iterdir()) == [
        "step-00000004.safetensors",
        "step-00000008.safetensors",
    ]


def test_a_task_of_its_own_is_resumed(tmp_path):
    whole = run_line(tmp_path / "whole")
    run_line(tmp_path / "halves", steps=5, schedule_steps=10)
    halves = run_line(tmp_path / "halves", steps=10)
    assert halves.seen == whole.seen == list(range(40))
    # What a model draws by itself is drawn again, and every step draws something else.
    assert halves.drawn == whole.drawn[5:]
    assert len(set(whole.drawn)) == 10
    assert losses(tmp_path / "halves" / "run") == losses(tmp_path / "whole" / "run")
    assert torch.equal(halves.model.weight, whole.model.weight)


def test_steps_run_on_the_threads_of_the_run(tmp_path, n_threads):
    n_threads(1)
    assert run_line(tmp_path, threads=3, steps=2).threads == {3}
    assert torch.get_num_threads() == 1
    n_threads(2)
    assert run_line(tmp_path, threads=None, steps=4).threads == {3}  # on resume the run's


def test_parts_of_a_batch_give_the_gradients_of_the_whole(tmp_path):
    whole = run_line(tmp_path / "whole")
    parts = run_line(tmp_path / "parts", accumulate=4)
    assert parts.seen == whole.seen
    for row, other in zip(
        rows(tmp_path / "whole" / "run"), rows(tmp_path / "parts" / "run"), strict=True
    ):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert row["bias"] == pytest.approx(other["bias"], rel=1e-4, abs=1e-6)
    assert torch.allclose(parts.model.weight, whole.model.weight, rtol=1e-5)


def test_a_run_goes_on_in_other_parts_and_keeps_other_encoders(tmp_path):
    whole = run_line(tmp_path / "whole")
    run_line(tmp_path / "parts", steps=5, schedule_steps=10, accumulate=2, keep_every=2)
    parts = run_line(tmp_path / "parts", steps=10, accumulate=4, keep_every=3)
    assert parts.seen == whole.seen
    run = tmp_path / "parts" / "run"
    assert losses(run) == pytest.approx(losses(tmp_path / "whole" / "run"), rel=1e-5)
    kept = sorted(int(p.read_text()) for p in (run / "encoders").iterdir())
    assert kept == [2, 4, 6, 9]


@pytest.mark.slow
def test_accumulated_pretraining_has_the_losses_of_the_large_batch(videos, tmp_path):
    arguments = ("--steps", 4, "--batch-size", 4)
    for name, n in (("whole", 1), ("parts", 4)):
        assert pretrain(videos, "--out", tmp_path / name, *arguments, "--accumulate", n) == 0
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), abs=3e-4)
    states = [
        torch.load(tmp_path / name / "last.pt", weights_only=True)["task"]["mask_samplers"]
        for name in ("whole", "parts")
    ]
    assert states[0] == states[1]
    # On resume the number of parts is the run's.
    assert pretrain(videos, "--out", tmp_path / "parts", "--steps", 5, "--batch-size", 4) == 0


def test_a_batch_that_does_not_fall_into_parts_is_refused(videos, tmp_path, capsys):
    run = tmp_path / "run"
    words = ["pretrain", "video", videos, "--out", run, "--batch-size", 6, "--accumulate", 4]
    assert main([str(word) for word in words]) == 2
    assert "--batch-size must be a multiple of 4, for 4 parts (--accumulate), got 6" in (
        capsys.readouterr().err
    )
    assert not run.exists()


@pytest.mark.slow
def test_kept_encoders_and_recomputed_activations_change_no_loss(videos, straight, tmp_path):
    run = tmp_path / "run"
    arguments = ("--steps", 12, "--keep-every", 5, "--checkpoint-activations")
    assert pretrain(videos, "--out", run, *arguments) == 0
    assert losses(run) == pytest.approx(losses(straight), abs=1e-6)
    kept = sorted(path.name for path in (run / "encoders").iterdir())
    assert kept == ["step-00000005.safetensors", "step-00000010.safetensors"]


@pytest.mark.slow
def test_bfloat16_is_another_precision_and_trains(videos, straight, tmp_path):
    run = tmp_path / "run"
    words = ("--steps", 5, "--schedule-steps", 12, "--precision", "bfloat16")
    assert pretrain(videos, "--out", run, *words) == 0
    if not torch.cuda.is_available():  # where it is what a run takes by itself
        assert losses(run) != losses(straight)[:5]
    assert losses(run) == pytest.approx(losses(straight)[:5], abs=0.02)
    assert pretrain(videos, "--out", run, "--precision", "float16") == 2


def steep():
    """Most is there in the middle of its backward pass."""
    return nn.Sequential(nn.Linear(8, 4096), nn.ReLU(), nn.Linear(4096, 1)), (torch.randn(64, 8),)


def tiny(again):
    preset = PRESETS["video"]["tiny"]
    inputs = preset.clip.inputs
    model = preset.objective.build(inputs, 0, checkpoint_activations=again)
    masks = MaskSampler(preset.masks["video"].kind, preset.objective.grids(inputs)["video"], 0.9)(
        16
    )
    return model, (torch.randn(16, *inputs["video"].size), masks)


@pytest.mark.slow
@pytest.mark.parametrize(
    "made",
    [steep, partial(tiny, again=False), partial(tiny, again=True)],
    ids=["steep", "tiny", "tiny again"],
)
def test_the_computed_memory_is_what_a_step_takes(made):
    model, arguments = made()

    def step():
        model(*arguments).sum().backward()

    step()  # gradients are there from now on
    taken = allocated_at_most(step)
    computed = step_memory(model, arguments, torch.autocast("cpu", enabled=False))
    n_bytes = sum(p.nbytes for p in model.parameters())
    assert computed.gradients == n_bytes
    assert computed.optimizer == 2 * n_bytes
    assert computed.weights >= n_bytes
    assert computed.inputs == sum(x.nbytes for x in tree_leaves(arguments))
    # Kernels also take some for themselves while they run.
    assert 0.97 * taken < computed.activations < 1.02 * taken


def allocated_at_most(step):
    """Bytes, as torch's allocator reports them to its profiler."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        step()
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


def test_a_long_warmup_is_said(tmp_path, capsys):
    run_line(tmp_path / "short", steps=2)
    assert (
        "the learning rate only rises: 2 warmup steps in a schedule of 2" in capsys.readouterr().out
    )
    run_line(tmp_path / "long", steps=4)
    said = capsys.readouterr().out
    assert "the learning rate rises for most of the schedule: 2 warmup steps of 4; " in said
    run_line(tmp_path / "longer", steps=5)
    assert "the learning rate" not in capsys.readouterr().out
