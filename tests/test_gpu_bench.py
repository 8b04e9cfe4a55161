"""What of the GPU's benchmarks and checks can be shown without one."""

import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path

import gpu_kernels
import pytest
import torch
from gpu_equality import (
    GRIDS,
    Setting,
    compare,
    drawn_settings,
    group_by_kernel,
    make_by_reference,
    make_in_triton,
    make_on,
    show_difference,
)
from gpu_kernels import (
    BANK,
    BYTES,
    LAUNCH,
    OURS,
    RANDOM,
    WORDS,
    WORKS,
    contenders,
    is_wrong,
    measure_all,
    rows_of,
)
from gpu_table import differences, kernel_line
from saved_rows import SavedRows
from testing import require

import smnm_kernels as smnm
from smnm_kernels.reference import fields, random_words
from smnm_kernels.timing.paired_times import Contender, Times
from smnm_kernels.timing.peers import (
    bank_masking,
    mae_random_masking,
    rand_topk,
    resident_bank_masking,
    resident_crops,
)

BENCH = Path(gpu_kernels.__file__).parent


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


def compared(settings, make, path=None):
    saved = SavedRows(path)
    compare(group_by_kernel(settings), make, saved)
    return sum(row["compared"] for row in saved.rows), differences(saved.rows)


@pytest.mark.exhaustive
def test_equality_finds_none_between_reference_and_cpu():
    settings = small_settings(140, 600)
    n_compared, found = compared(settings, make_by_reference)
    assert n_compared == len(settings) > 70
    assert found == []


@pytest.mark.exhaustive
@pytest.mark.skipif(torch.cuda.is_available(), reason="the kernels are not interpreted")
def test_equality_finds_none_between_interpreter_and_cpu():
    require(importlib.util.find_spec("triton"), "Triton")
    n_compared, found = compared(small_settings(90, 40), make_in_triton)
    assert n_compared > 5
    assert found == []


def test_equality_finds_a_planted_difference():
    settings = small_settings(120, 600)
    wrong = [17, 60]

    def make(setting):
        masks = make_on("cpu", setting)
        if any(setting is settings[index] for index in wrong):
            masks.ids_restore[-1, -1] += 1
        return masks

    _, [first, *others] = compared(settings, make)
    assert len(others) < 2
    assert first["index"] == 17
    assert Setting(**{key: first[key] for key in Setting._fields}) == settings[17]
    assert first["came"] != first["expected"]
    said = show_difference(settings[17], make).splitlines()
    assert said[1].startswith("visible: 0 of ")
    assert said[3].startswith("ids_restore: 1 of ")
    last = len(settings[17].sample_ids) - 1
    assert said[4].startswith(f"  [{last}, {math.prod(settings[17].arguments['grid']) - 1}]: ")

    def fail(setting):
        raise RuntimeError("no masks")

    _, [failed] = compared(settings[:1], fail)
    assert failed["came"] == "RuntimeError: no masks"


def test_equality_goes_on_with_the_groups_that_were_not_compared(tmp_path):
    settings, path, made = small_settings(120, 600), tmp_path / "rows.jsonl", []

    def stop_at_the_third_group(setting):
        made.append(setting)
        if len({group_of[id(s)] for s in made}) == 3:
            raise KeyboardInterrupt
        return make_on("cpu", setting)

    groups = group_by_kernel(settings)
    group_of = {id(setting): name for name, group in groups.items() for _, setting in group}
    with pytest.raises(KeyboardInterrupt):
        compared(settings, stop_at_the_third_group, path)
    assert [row["group"] for row in SavedRows(path).rows] == list(groups)[:2]
    made.clear()

    def make(setting):
        made.append(setting)
        return make_on("cpu", setting)

    n_compared, _ = compared(settings, make, path)
    assert n_compared == len(settings)
    assert {group_of[id(setting)] for setting in made} == set(list(groups)[2:])


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


def test_kernel_rows_are_saved_batch_by_batch(tmp_path, monkeypatch):
    """What fails is a row, too; a later run makes it again and nothing else."""
    path, cpu, rounds = tmp_path / "rows.jsonl", torch.device("cpu"), []
    bandwidths, used = iter([4e12, 5e12]), set()

    def measure_work(work, batch, seconds, device, bytes_per_second):
        rounds.append((work.name, batch))
        used.add(bytes_per_second)
        if (work.name, batch) == ("green3d", 3) and len(rounds) < 5:
            raise RuntimeError("no time")
        return [{"kind": "eager", "work": work.name, "batch": batch, "us": 1.0}]

    monkeypatch.setattr(gpu_kernels, "measure_work", measure_work)
    monkeypatch.setattr(gpu_kernels, "copy_bandwidth", lambda device: next(bandwidths))
    measure_all(0.1, (2, 3), cpu, SavedRows(path))
    assert rounds == [("green3d", 2), ("rbn", 2), ("green3d", 3), ("rbn", 3)]
    [failed] = filter(is_wrong, SavedRows(path).rows)
    assert kernel_line(failed) == "green3d      3 failed: RuntimeError: no time"
    measure_all(0.1, (2, 3), cpu, SavedRows(path))
    assert rounds[4:] == [("green3d", 3)]
    assert used == {4e12}
    rows = SavedRows(path).rows
    assert [row["kind"] for row in rows] == ["copy"] + 4 * ["eager"]
    assert not any(map(is_wrong, rows))
    assert is_wrong({"kind": "launches", "work": "rbn", "kernels": ["a", "b"]})


def test_one_call_for_a_profiler_needs_a_gpu(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu_kernels.py", "--once", "4", "--device", "cpu"])
    with pytest.raises(SystemExit):
        gpu_kernels.main()
    assert "--once is for profilers of a GPU" in capsys.readouterr().err


@pytest.mark.exhaustive
def test_scripts_find_the_ptx_machine_by_themselves():
    require(importlib.util.find_spec("triton"), "Triton")
    unwanted = ("PYTHONPATH", "TRITON_INTERPRET")
    environment = {key: value for key, value in os.environ.items() if key not in unwanted}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    few = ("--settings", "30", "--seed", "12", "--most-tokens", "12")
    for command in (("gpu_equality.py", "--device", "ptx", *few), ("ptx_cost.py", "--help")):
        script = (sys.executable, BENCH / command[0], *command[1:])
        done = subprocess.run(
            script, env=environment, cwd=BENCH, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
