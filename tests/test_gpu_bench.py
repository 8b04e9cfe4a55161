"""What of the GPU's benchmarks and checks can be shown without one."""

import importlib.util
import json
import math
import shutil
import subprocess
from pathlib import Path

import gpu_result
import pytest
import torch
from gpu_equality import (
    GRIDS,
    Setting,
    compare,
    drawn_settings,
    made_by_interpreter,
    made_by_reference,
    made_on,
)
from gpu_kernels import BANK, BYTES, LAUNCH, OURS, RANDOM, WORDS, WORKS, contenders, rows_of
from testing import require

import smnm_kernels as smnm
from smnm_kernels.bench.peers import (
    bank_masking,
    mae_random_masking,
    rand_topk,
    resident_bank_masking,
    resident_crops,
)
from smnm_kernels.bench.timing import Contender, Times
from smnm_kernels.reference import fields, random_words

BENCH = Path(__file__).parent.parent / "bench"


def assert_mae_masks(made, batch, n_tokens, n_keep):
    """MAE's triple: kept ids, the inverse of the shuffle, and 1 where a token is masked."""
    ids_keep, ids_restore, masked = made
    assert ids_keep.shape == (batch, n_keep)
    assert torch.equal(ids_restore.sort(dim=1).values, torch.arange(n_tokens).expand(batch, -1))
    assert torch.equal(ids_restore.argsort(dim=1)[:, :n_keep], ids_keep)
    assert torch.equal(masked.sum(1), torch.full((batch,), float(n_tokens - n_keep)))
    assert bool((masked.gather(1, ids_keep) == 0).all())


def test_peers_mask_as_they_say():
    volumes = torch.rand(3, 9, 12, 11)
    assert_mae_masks(mae_random_masking(4, 1568, 0.9), 4, 1568, 156)
    assert_mae_masks(bank_masking(volumes, 2, (3, 5, 7), 0.75), 2, 105, 26)
    assert_mae_masks(resident_bank_masking(volumes, 2, (3, 5, 7), 0.75), 2, 105, 26)
    visible, ids_keep = rand_topk(4, 512, 0.8)
    assert ids_keep.shape == (4, 102)
    assert torch.equal(visible.sum(1), torch.full((4,), 102))
    assert bool(visible.gather(1, ids_keep).all())


def test_crops_of_a_resident_bank_are_crops_and_flips():
    torch.manual_seed(0)
    volumes = torch.arange(2 * 4 * 5 * 6).view(2, 4, 5, 6)
    seen = set()
    for crop in resident_crops(volumes, 1000, (3, 4, 6)):
        steps = [int(crop.select(axis, 1).flatten()[0] - crop.flatten()[0]) for axis in range(3)]
        assert [abs(step) for step in steps] == [30, 6, 1]
        flips = [axis for axis, step in enumerate(steps) if step < 0]
        start = int(crop.min())
        volume, t, y, x = start // 120, start // 30 % 4, start // 6 % 5, start % 6
        window = volumes[volume, t : t + 3, y : y + 4, x : x + 6]
        assert torch.equal(crop.flip(flips), window)
        seen.add((volume, t, y, x, tuple(flips)))
    assert len(seen) == 2 * 2 * 2 * 1 * 8


def test_equality_draws_every_kind_of_setting():
    drawn = list(drawn_settings(3000, 0))
    assert drawn == list(drawn_settings(3000, 0))
    assert drawn != list(drawn_settings(3000, 1))
    noise = [s.arguments for s in drawn if s.op == "noise_masks"]
    assert {(a["grid"], a["color"], a["tube"]) for a in noise} >= {
        (grid, color, tube) for grid in GRIDS for color in ("green", "white") for tube in (0, 1)
    }
    rbn = [s.arguments for s in drawn if s.op == "rbn_masks"]
    assert any(a.get("n_keep", 0) * (a["n_candidates"] or 0) > math.prod(a["grid"]) for a in rbn)
    assert any(not -(2**32) < i < 2**32 for s in drawn for i in s.sample_ids)
    assert {s.seed_in_tensor for s in drawn} == {False, True}


def small_settings(n, n_tokens):
    drawn = drawn_settings(n, 5)
    return [s for s in drawn if math.prod(s.arguments["grid"]) <= n_tokens]


def test_equality_finds_none_between_reference_and_cpu(capsys):
    settings = small_settings(200, 600)
    result = compare(settings, made_by_reference)
    assert result["settings"] == result["compared"] == len(settings) > 100
    assert result["first_difference"] is None
    assert f"{len(settings)} of {len(settings)} in " in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are not interpreted")
def test_equality_finds_none_between_interpreter_and_cpu():
    require(importlib.util.find_spec("triton"), "Triton")
    result = compare(small_settings(60, 40), made_by_interpreter)
    assert result["compared"] > 5
    assert result["first_difference"] is None


def test_equality_finds_a_planted_difference():
    settings = small_settings(120, 600)
    wrong = [17, 60]

    def make(setting):
        masks = made_on("cpu", setting)
        if any(setting is settings[index] for index in wrong):
            masks.ids_restore[-1, -1] += 1
        return masks

    result = compare(settings, make)
    first = result["first_difference"]
    assert result["groups_that_differ"] in (1, 2)
    assert first["index"] == 17
    assert Setting(**{key: first[key] for key in Setting._fields}) == settings[17]
    assert first["came"] != first["expected"]

    def fail(setting):
        raise RuntimeError("no masks")

    assert compare(settings[:1], fail)["first_difference"]["came"] == "RuntimeError: no masks"


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_bytes_and_words_are_those_of_the_op(work, monkeypatch):
    masks = work.masks(torch.arange(7))
    assert work.bytes_written(7) == sum(m.numel() * m.element_size() for m in masks)
    assert masks.n_keep == work.n_keep
    drawn = []
    philox = smnm.reference.philox

    def counted(block, *arguments):
        drawn.append(4 * len(block))
        return philox(block, *arguments)

    for module in (fields, random_words):
        monkeypatch.setattr(module, "philox", counted)
    ids = torch.arange(7)
    if work.name == "rbn":
        smnm.reference.rbn_masks(ids, work.grid, work.ratio)
    else:
        smnm.reference.noise_masks(ids, work.grid, "green", work.ratio)
    assert work.words_drawn(7) == sum(drawn)


@pytest.mark.parametrize("work", WORKS, ids=lambda work: work.name)
def test_contenders_keep_the_same_number(work):
    bank = smnm.NoiseBank(torch.rand(2, *(2 * side for side in work.grid)))
    for contender in contenders(work, 3, bank):
        kept = [tensor.shape[1] for tensor in contender.run() if tensor.dtype == torch.int64]
        assert work.n_keep in kept, contender.what


def test_rows_pair_the_rounds_and_name_the_highest_limit():
    us = {RANDOM: [2.0, 4.0, 6.0], OURS: [1.0, 2.0, 3.0], BANK: [4.0, 8.0, 12.0]}
    us |= {LAUNCH: [0.5] * 3, WORDS: [1.5] * 3}
    times = {what: Times([dict(enumerate(values))]) for what, values in us.items()}
    work, group = WORKS[0], [Contender(what, print) for what in us]
    made = {row["what"]: row for row in rows_of(work, 64, group, times, 4e12)}
    ours = made[OURS]
    assert (ours["us"], ours["ratio"], ours["of_bank"]) == (2.0, 0.5, 0.25)
    assert ours["limits_us"][BYTES] == round(1e6 * work.bytes_written(64) / 4e12, 3)
    assert (ours["highest_limit"], ours["limit_share"]) == (WORDS, 0.75)
    assert "limits_us" not in made[RANDOM]


@pytest.fixture
def made_up(tmp_path):
    """What steps leave, some of them failed, skipped or never reached."""
    for name, code in (("build", 0), ("facts", 0), ("tests", 1), ("memcheck", 0), ("equality", 0)):
        (tmp_path / f"{name}.step").write_text(f"3 {code}\n")
        (tmp_path / f"{name}.log").write_text(f"the log of {name}\n")
    (tmp_path / "ncu.skipped").write_text("ncu is not there\n")
    (tmp_path / "facts.json").write_text('{"device": "NVIDIA H200", "commit": "abc+"}')
    (tmp_path / "left_out.json").write_text('{"tests/train": "needs av"}')
    (tmp_path / "memcheck.log").write_text("4 passed in 2 s\n=== ERROR SUMMARY: 0 errors\n")
    equality = {"settings": 9, "compared": 9, "first_difference": None, "what": "cuda with cpu"}
    (tmp_path / "equality.json").write_text(json.dumps(equality))
    (tmp_path / "triton_report.log").write_text('a warning\n{"kernel": "k", "registers": 9}\n')
    (tmp_path / "tests.xml").write_text(
        '<testsuites><testsuite tests="4" failures="1" errors="0" skipped="1">'
        '<testcase classname="tests.a" name="good" time="1.5"/>'
        '<testcase classname="tests.a" name="bad"><failure message="x"/></testcase>'
        '<testcase classname="tests.a" name="fine"/>'
        '<testcase classname="tests.b" name="not"><skipped message="needs av"/></testcase>'
        "</testsuite></testsuites>"
    )
    return tmp_path


def test_steps_are_merged_into_one_result(made_up, tmp_path):
    gpu_result.main("merge", str(made_up), str(tmp_path / "result.json"))
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["device"], result["commit"]) == ("NVIDIA H200", "abc+")
    steps = {one["step"]: one for one in result["steps"]}
    assert steps["build"] == {"step": "build", "seconds": 3, "exit": 0}
    assert steps["tests"]["log_tail"] == "the log of tests\n"
    assert steps["ncu"]["skipped"] == "ncu is not there"
    assert steps["kernels"]["skipped"] == "not reached"
    tests = result["tests"]
    assert (tests["passed"], tests["failed"], tests["skipped"]) == (2, 1, 1)
    assert tests["failed_names"] == ["tests.a::bad"]
    assert tests["skip_reasons"] == {"needs av": 1}
    assert result["tests_left_out"] == {"tests/train": "needs av"}
    assert result["sanitizer"]["memcheck"] == ["4 passed in 2 s", "ERROR SUMMARY: 0 errors"]
    assert result["triton_report"] == [{"kernel": "k", "registers": 9}]
    assert result["equality"]["compared"] == 9
    assert result["kernels"] is None
    shown = gpu_result.table(result)
    for part in (
        "NVIDIA H200",
        "2 passed, 1 failed",
        "tests.a::bad",
        "9 of 9 settings",
        "needs av",
    ):
        assert part in shown
    assert shown.splitlines()[-1].startswith("failed: tests, racecheck, ")


def test_nothing_left_behind_still_makes_a_result(tmp_path):
    result = gpu_result.merged(tmp_path)
    assert all(one["skipped"] == "not reached" for one in result["steps"])
    assert gpu_result.failed_steps(result) == list(gpu_result.STEPS)
    assert gpu_result.table(result)


def test_what_imports_a_missing_package_is_left_out(tmp_path):
    file = tmp_path / "test_it.py"
    file.write_text("import json, torch\nfrom no_such_package.part import x\nimport strategies\n")
    assert gpu_result.missing_packages([file]) == ["no_such_package"]


def test_the_script_is_bash():
    require(shutil.which("bash"), "bash")
    done = subprocess.run(["bash", "-n", str(BENCH / "gpu_check.sh")], check=False)
    assert done.returncode == 0
