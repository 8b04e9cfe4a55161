"""Evaluations in the loop: when they come, which model is kept, what a kill or a signal leaves."""

import json
import math
import os
import signal

import pytest
import torch
from clips import losses
from line import Line, run_line

from smnm_kernels.errors import RunError
from smnm_kernels.train.data.views import Views, views_of


class Killed(BaseException):
    """As a kill: nothing is saved, nothing is caught."""


class Judged:
    """Evaluations of a line, every third step on files 0 and 1, in the end on 2 to 4, two views of
    each."""

    def __init__(self, task, values=None):
        self.task, self.values = task, values
        self.regular, self.final = self.views([0, 1], 1), self.views([2, 3, 4], 2)
        self.done = []

    def views(self, numbers, clips):
        dataset = self.task.dataset
        return Views(dataset.folder, dataset.files, dataset.modality, numbers, views_of(clips, 1))

    def due(self, step):
        return step % 3 == 0

    def outputs(self, forward, batch):
        assert not self.task.model.training or forward.__name__ == "judged"
        self.event("outputs")
        return forward(batch.inputs["x"].flatten(1).float())

    def event(self, name):
        """For tests that end the run somewhere."""

    def row(self, views, outputs):
        n = len(self.done)
        self.done.append(outputs)
        value = self.values[n] if self.values else -abs(outputs.values - 3).mean().item()
        return {"split": "val", "value": value, "ids": outputs.sample_ids}

    def value(self, row):
        return row["value"]

    def keep(self, folder, step, best):
        self.event("keep")
        name = "best.pt" if best else "last-model.pt"
        torch.save({"step": step, "model": self.task.model.state_dict()}, folder / name)

    def take_best(self, folder):
        self.task.model.load_state_dict(torch.load(folder / "best.pt")["model"])

    def finished(self, folder):
        path = folder / "results.json"
        return json.loads(path.read_text())["step"] if path.exists() else None

    def found(self, views, outputs):
        return outputs

    def finish(self, folder, outputs, step):
        self.event("finish")
        results = {
            "step": step,
            "ids": outputs.sample_ids if outputs else None,
            "values": outputs.values.tolist() if outputs else None,
            "failed": outputs.failed if outputs else None,
        }
        (folder / "results.json").write_text(json.dumps(results))
        return "that was all\n"


class JudgedLine(Line):
    pictures = None
    judged = Judged

    def __init__(self, dataset):
        super().__init__(dataset)
        self.evaluations = self.judged(self)


def evaluations(tmp_path):
    lines = (tmp_path / "run" / "evaluations.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def results(tmp_path):
    return json.loads((tmp_path / "run" / "results.json").read_text())


def best(tmp_path):
    return torch.load(tmp_path / "run" / "best.pt")["step"]


def test_evaluations_come_when_they_are_due_and_after_the_last_step(tmp_path, capsys):
    task = run_line(tmp_path, JudgedLine)
    rows = evaluations(tmp_path)
    assert [row["step"] for row in rows] == [3, 6, 9, 10]
    assert all(row["ids"] == [0, 1] for row in rows)
    found = results(tmp_path)
    assert found["ids"] == list(range(6))
    assert found["failed"] == {}
    assert task.model.training
    said = capsys.readouterr().out
    assert "step 3 of 10, val: value " in said
    assert said.endswith("that was all\n")
    assert "pictures:" not in said
    assert not list((tmp_path / "run").glob("*.png"))
    # The final evaluation is of the best weights, view 1 a step to the right of view 0.
    weights = torch.load(tmp_path / "run" / "best.pt")["model"]
    a, b = weights["weight"].item(), weights["bias"].item()
    expected = [a * (x + clip) + b for x in (2, 3, 4) for clip in (0, 1)]
    assert [v for (v,) in found["values"]] == pytest.approx(expected, rel=1e-5)


def test_the_best_is_the_first_of_the_best(tmp_path):
    class Scripted(JudgedLine):
        judged = staticmethod(lambda task: Judged(task, [math.nan, 0.5, 0.7, 0.7]))

    run_line(tmp_path, Scripted)
    assert [row["best"] for row in evaluations(tmp_path)] == [True, True, True, False]
    assert best(tmp_path) == 9
    assert torch.load(tmp_path / "run" / "last-model.pt")["step"] == 10


def test_of_undefined_measures_the_last_model_is_kept(tmp_path):
    class Undefined(JudgedLine):
        judged = staticmethod(lambda task: Judged(task, [math.nan] * 4))

    run_line(tmp_path, Undefined)
    assert best(tmp_path) == 10


def test_a_finished_run_evaluates_nothing_again_and_a_longer_one_goes_on(tmp_path, capsys):
    run_line(tmp_path, JudgedLine)
    before = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.*")}
    assert not run_line(tmp_path, JudgedLine).evaluations.done
    assert "already finished: 10 steps" in capsys.readouterr().out
    for name in ("best.pt", "evaluations.jsonl", "results.json", "last.pt"):
        assert (tmp_path / "run" / name).stat().st_mtime_ns == before[name]
    run_line(tmp_path, JudgedLine, steps=13)
    assert [row["step"] for row in evaluations(tmp_path)] == [3, 6, 9, 10, 12, 13]
    assert results(tmp_path)["step"] == 13


_QUICK = (("killed", 0), ("killed", 3), ("killed", 9), ("signal", 0), ("signal", 7))


# What happens in a run of ten steps: the outputs (one batch) of evaluations at 3, 6, 9 and 10, and
# two of them are the best and kept; in the end the last is kept, two batches are judged, and the
# results are written.
@pytest.mark.parametrize(
    ("how", "at"),
    [
        pytest.param(how, at, marks=[] if (how, at) in _QUICK else [pytest.mark.exhaustive])
        for how in ("killed", "signal")
        for at in range(10)
    ],
)
def test_wherever_it_ends_the_evaluations_are_those_of_a_run_that_went_through(tmp_path, how, at):
    class Ending(Judged):
        left = at

        def event(self, name):
            if Ending.left == 0:
                Ending.left -= 1
                if how == "killed":
                    raise Killed
                os.kill(os.getpid(), signal.SIGTERM)
            Ending.left -= 1

    class EndingLine(JudgedLine):
        judged = Ending

    run_line(tmp_path / "straight", JudgedLine)
    if how == "killed":
        with pytest.raises(Killed):
            run_line(tmp_path / "ended", EndingLine)
    else:
        run_line(tmp_path / "ended", EndingLine, code=143 if at < 8 else 0)
    run_line(tmp_path / "ended", JudgedLine)
    for of in (evaluations, results, best):
        assert of(tmp_path / "ended") == of(tmp_path / "straight")
    assert losses(tmp_path / "ended/run") == losses(tmp_path / "straight/run")


def test_a_row_that_the_checkpoint_does_not_reach_is_dropped(tmp_path):
    run_line(tmp_path, JudgedLine, steps=6, schedule_steps=10)
    path = tmp_path / "run" / "evaluations.jsonl"
    later = evaluations(tmp_path)[-1] | {"step": 9, "value": 99.0}
    path.write_text(path.read_text() + json.dumps(later) + "\n")
    run_line(tmp_path, JudgedLine, steps=10)
    run_line(tmp_path / "straight", JudgedLine)
    assert evaluations(tmp_path) == evaluations(tmp_path / "straight")


def test_a_file_that_fails_is_named_and_the_rest_counts(tmp_path, capsys):
    class Unreadable(JudgedLine):
        def __init__(self, dataset):
            super().__init__(dataset)
            from smnm_kernels.errors import Unusable

            for views in (self.evaluations.regular, self.evaluations.final):
                whole = views.read_view

                def read(number, view, whole=whole):
                    if number in (1, 3):
                        raise Unusable("is gone")
                    return whole(number, view)

                object.__setattr__(views, "read_view", read)

    run_line(tmp_path, Unreadable)
    assert evaluations(tmp_path)[0]["failed"] == {"1.txt": "is gone"}
    assert evaluations(tmp_path)[0]["ids"] == [0]
    assert results(tmp_path)["failed"] == {"3.txt": "is gone"}
    assert results(tmp_path)["ids"] == [0, 1, 4, 5]
    assert "failed 1.txt: is gone; it is not in the evaluation" in capsys.readouterr().out


def test_where_no_file_can_be_read_the_run_ends_and_is_saved(tmp_path):
    class Gone(JudgedLine):
        def __init__(self, dataset):
            super().__init__(dataset)
            from smnm_kernels.errors import Unusable

            def read(number, view):
                raise Unusable("is gone")

            object.__setattr__(self.evaluations.regular, "read_view", read)

    with pytest.raises(RunError, match="none of the 2 files of an evaluation can be read any more"):
        run_line(tmp_path, Gone)
    run_line(tmp_path, JudgedLine)
    assert [row["step"] for row in evaluations(tmp_path)] == [3, 6, 9, 10]
