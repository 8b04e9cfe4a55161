"""The command `smnm bench`: what it writes, says and refuses."""

import importlib.util
import json
import math
from typing import get_args

import pytest
import torch
from testing import need_packages

need_packages("tyro", "tqdm", "matplotlib", "scipy")

import smnm_kernels as smnm  # noqa: E402
from smnm_kernels.cli import main  # noqa: E402
from smnm_kernels.errors import RunError  # noqa: E402
from smnm_kernels.timing import command, mask_making, tables, under_load  # noqa: E402

BASE = {"section", "device", "threads", "torch", "commit", "python", "numpy", "date", "what"}


@pytest.fixture(autouse=True)
def _little_time(monkeypatch, n_threads):
    short = {
        name: section._replace(quick_seconds=0.5, full_seconds=0.5)
        for name, section in command.SECTIONS.items()
    }
    monkeypatch.setattr(command, "SECTIONS", short)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "bench.json").read_text().splitlines()]


@pytest.mark.slow
def test_rows_tables_and_plots_of_masks(tmp_path, capsys):
    words = ["bench", "masks", "--quick", "--threads", "1", "--batches", "2"]
    assert main([*words, "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path)
    assert all(row.keys() >= BASE | {"us", "us_quartiles", "ratio", "note"} for row in rows)
    assert {(row["threads"], row["batch"]) for row in rows} == {(1, 2)}
    assert {row["shape"] for row in rows} == {str(shape) for shape in mask_making.SHAPES}
    for shape in mask_making.SHAPES:
        [first] = [r for r in rows if r["shape"] == str(shape) and r["what"] == r["ratio_to"]]
        assert first["ratio"] == 1
    said = capsys.readouterr().out
    table = (tmp_path / "bench.md").read_text()
    assert table in said
    assert "| **smnm green3d** |" in table
    assert {row["what"] for row in rows if row["ours"]} == {
        row["what"] for row in rows if row["what"].startswith("smnm ")
    }
    assert (tmp_path / "masks.png").read_bytes().startswith(b"\x89PNG")
    again = str(tmp_path / "bench.json")
    assert main(["bench", "--compare", again, again]) == 0
    said = capsys.readouterr().out
    assert "same within the noise" in said
    assert "SLOWER" not in said


def test_every_section_can_be_asked_for_and_has_a_table():
    assert tuple(command.SECTIONS) == get_args(command.SectionName) == tuple(tables.SECTIONS)


@pytest.mark.slow
def test_calls_under_load(tmp_path, monkeypatch):
    monkeypatch.setattr(under_load, "SPELLS", 1)
    monkeypatch.setattr(under_load, "LEAST_CALLS", 2)
    assert main(["bench", "load", "--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path)
    assert {row["what"] for row in rows} == {
        what for shape in under_load.WHAT.values() for what in shape
    }
    for row in rows:
        assert row["quiet_us"] <= row["quiet_us_p95"]
        assert row["loaded_us"] <= row["loaded_us_p95"]
        assert row["times_quiet"] == pytest.approx(row["loaded_us"] / row["quiet_us"], rel=1e-2)
    assert "## While every core is busy" in (tmp_path / "bench.md").read_text()


@pytest.mark.slow
def test_what_a_bank_costs(tmp_path):
    assert main(["bench", "bank", "--quick", "--out", str(tmp_path)]) == 0
    ours, crops, shared = rows_of(tmp_path)
    assert [row["ours"] for row in (ours, crops, shared)] == [True, False, False]
    assert ours["distinct_masks"] == ours["masks"]
    assert ours["bytes_per_process"] < 100_000
    assert crops["bytes_per_process"] == shared["bytes_per_process"] == 3072 * 64**3 * 4
    uses = 240_436 * math.prod((8, 14, 14)) / (3072 * 64**3)
    assert crops["uses_of_a_noise_value_per_epoch"] == round(uses, 2)


@pytest.mark.exhaustive
def test_growth_has_an_exponent_for_every_curve(tmp_path):
    assert main(["bench", "growth", "--quick", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path)
    curves = {(row["curve"], row["over"]) for row in rows}
    assert curves >= {("smnm green3d", "B"), ("smnm rbn", "N"), ("smnm rbn", "K")}
    for row in rows:
        if row["over"] == "N" and row["curve"] == "smnm green3d":
            assert row["output_bytes"] == 9 * row["x"] + 8 * math.floor(round(row["x"] * 0.1, 6))
    assert max(row["x"] for row in rows) == 2**20


@pytest.mark.exhaustive
def test_a_step_and_its_model(tmp_path):
    assert main(["bench", "training", "--quick", "--out", str(tmp_path)]) == 0
    *steps, model = rows_of(tmp_path)
    assert steps[0]["what"] == "masks made once"
    names = {row["what"] for row in steps}
    assert {"smnm green3d", "MAE random masking"} <= names
    assert [row["what"] for row in steps if row["ours"]] == ["smnm green3d"]
    theirs = "transformers' VideoMAE with the same weights, masks made once"
    assert (theirs in names) == bool(importlib.util.find_spec("transformers"))
    assert 0 < next(row["mask_share"] for row in steps if row["what"] == "smnm green3d") < 0.1
    assert model["parameters_millions"] == pytest.approx(2.69, abs=0.01)
    assert "| parameters |" in (tmp_path / "bench.md").read_text()


def test_nothing_is_timed_that_is_not_right(monkeypatch):
    true = smnm.noise_masks

    def wrong(ids, grid, color, ratio):
        masks = true(ids, grid, color, ratio)
        return masks._replace(visible=masks.visible.roll(int(color == "blue"), dims=1))

    monkeypatch.setattr(smnm, "noise_masks", wrong)
    with pytest.raises(RunError, match=r"blue on video .* does not equal its definition"):
        mask_making.check_ops(torch.device("cpu"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--threads", "0"], "--threads must be in [1, "),
        (["--threads", "9999"], "--threads must be in [1, "),
        (["--batches", "0"], "--batches must be at least 1"),
        (["--device", "tpu"], "--device tpu"),
        (["--device", "meta"], "--device meta: not there"),
        (["--compare", "nothing.json", "nothing.json"], "nothing.json: not the rows of a run"),
    ],
)
def test_wrong_options_are_refused_before_any_work(words, named, tmp_path, capsys):
    assert main(["bench", *words, "--out", str(tmp_path / "out")]) == 2
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_earlier_results_are_only_replaced_on_demand(tmp_path, capsys):
    for name in ("bench.json", "masks.png", "mine.txt"):
        (tmp_path / name).write_text("earlier")
    words = ["bench", "bank", "--quick", "--out", str(tmp_path)]
    assert main(words) == 2
    assert "has results of an earlier run" in capsys.readouterr().err
    assert (tmp_path / "bench.json").read_text() == "earlier"
    assert main([*words, "--overwrite"]) == 0
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"bench.json", "bench.md", "mine.txt"}
