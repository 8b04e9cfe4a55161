"""Paired times, and what is said about them."""

import json
import time

import pytest
import torch

from smnm_kernels.errors import UsageError
from smnm_kernels.timing.compare import compare_runs, read_rows
from smnm_kernels.timing.growth import fit_exponent
from smnm_kernels.timing.paired_times import Contender, Times, measure, measure_in_turn, rows
from smnm_kernels.timing.profiling import bare_name
from smnm_kernels.timing.tables import markdown

CPU = torch.device("cpu")


def sleeper(milliseconds):
    return lambda: time.sleep(milliseconds / 1e3)


def test_ratios_are_of_times_of_the_same_round():
    slow, slower = Times([{0: 2.0, 1: 20.0, 2: 2.0}]), Times([{0: 6.0, 2: 6.0}])
    assert slower.ratios(slow) == [[3.0, 3.0]]
    contenders = [Contender("a", print), Contender("b", print, "note", ours=True)]
    made = rows(contenders, {"a": slow, "b": slower}, section="masks", shape="s", batch=2)
    assert [row["ratio"] for row in made] == [1.0, 3.0]
    assert [row["us"] for row in made] == [2.0, 6.0]
    assert made[1]["note"] == "note"
    assert [row["ours"] for row in made] == [False, True]
    assert made[1]["ratio_to"] == "a"
    assert [row["measurements"] for row in made] == [3, 2]


def test_measured_ratios_are_those_of_the_sleeps():
    contenders = [Contender("1 ms", sleeper(1)), Contender("3 ms", sleeper(3))]
    times = {}
    for _ in range(3):
        measure(contenders, times, 0.2, CPU)
    made = rows(contenders, times)
    assert 2.0 < made[1]["ratio"] < 3.5
    assert len(made[1]["ratio_repeats"]) == 3
    assert 1000 < made[0]["us"] < 3000


def test_single_calls_follow_one_of_the_first_contender():
    calls = []

    def called(name, milliseconds):
        return lambda: (calls.append(name), time.sleep(milliseconds / 1e3))

    contenders = [Contender("a", called("a", 1)), Contender("b", called("b", 3))]
    times = {}
    measure(contenders, times, 0.1, CPU)
    calls.clear()
    measure_in_turn(contenders, times, 0.1, CPU)
    assert calls == ["a", "b"] * (len(calls) // 2)
    first, second = rows(contenders, times)
    assert first["ratio_in_turn"] is None
    assert 2.0 < second["ratio_in_turn"] < 3.5


def test_a_slow_contender_is_measured_but_does_not_take_all_the_time():
    calls = []
    contenders = [
        Contender("fast", sleeper(1)),
        Contender("slow", lambda: (calls.append(0), time.sleep(0.06))),
    ]
    times, start = {}, time.perf_counter()
    measure(contenders, times, 0.4, CPU)
    assert time.perf_counter() - start < 1.5
    assert 3 <= len(times["slow"].all) < len(times["fast"].all)


def test_short_calls_are_repeated_within_a_measurement():
    calls, times = [], {}
    measure([Contender("short", lambda: calls.append(0))], times, 0.05, CPU)
    assert len(calls) > 500 * len(times["short"].all)


def test_the_exponent_is_of_the_upper_half():
    x = [1, 2, 4, 8, 16, 32]
    assert fit_exponent(x, [5, 5, 5, 8, 16, 32]) == 1.0
    assert fit_exponent(x, [v**2 for v in x]) == 2.0


def test_kernels_by_their_bare_names():
    assert bare_name(
        "void smnm::(anonymous namespace)::rbn_masks_kernel<true>(smnm::Shape, int*)"
    ) == ("rbn_masks_kernel<true>")
    assert bare_name("noise_masks_on_chip") == "noise_masks_on_chip"


ABOUT = {
    "device": "a CPU", "cores": 2, "threads": 2, "torch": "2", "numpy": "2", "python": "3",
    "backend": "cpu", "smnm_kernels": "0", "commit": "abc", "date": "now",
}  # fmt: skip


def row(what, repeats, **more):
    ratio = sorted(repeats)[len(repeats) // 2]
    base = {"section": "masks", "shape": "video", "batch": 64, "what": what, "note": "", "us": 5.0}
    base |= {"us_quartiles": [4.0, 6.0], "ratio": ratio, "ratio_to": "first", "clock": "wall"}
    base |= {"ours": False, "ratio_repeats": list(repeats), "ratio_in_turn": 1.25 * ratio}
    return base | ABOUT | more


@pytest.mark.parametrize(
    ("before", "after", "verdict"),
    [
        ((0.20, 0.21, 0.22), (0.30, 0.31, 0.33), "SLOWER by 48%"),
        ((0.30, 0.31, 0.33), (0.20, 0.21, 0.22), "FASTER by 32%"),
        ((0.20, 0.21, 0.30), (0.29, 0.31, 0.33), "same within the noise"),
        ((0.200, 0.201, 0.202), (0.204, 0.205, 0.206), "same within the noise"),
        # Apart, but no further than repetitions of one run are.
        ((2.4, 2.9, 5.2), (5.5, 6.0, 6.4), "same within the noise"),
    ],
)
def test_a_verdict_only_outside_the_noise(before, after, verdict):
    said = compare_runs([row("first", (1.0, 1.0)), row("smnm", before)], [row("smnm", after)])
    assert verdict in said
    assert "more than the commit" not in said


def test_other_machines_new_and_missing_rows_are_said():
    before = [row("old", (0.5, 0.5)), row("once", (0.5,)), row("b", (1.0,), batch=1)]
    after = [row("new", (0.5, 0.5), threads=4), row("once", (0.6,), us=7.0, threads=4)]
    after.append(row("2", (1.0,), section="growth", shape=None, curve="c", over="N", batch=None))
    said = compare_runs(before, after)
    assert "threads: 2 -> 4" in said
    assert "differ in more than the commit" in said
    assert "new: new" in said
    assert "old: gone" in said
    assert "once: 5 us -> 7 us, measured once: no verdict" in said
    assert "masks, video, B = 1\n  only in the first run" in said
    assert "growth, c, N\n  only in the second run" in said


def test_rows_under_load_are_compared():
    def loaded(median, p95):
        place = {"section": "load", "shape": "video", "batch": 64, "what": "smnm green3d"}
        return place | {"loaded_us": 9.0, "times_quiet": median, "times_quiet_p95": p95}

    said = compare_runs([loaded(2.0, 6.0)], [loaded(1.5, 5.0)])
    one, other = "2 (95th percentile 6) times quiet", "1.5 (95th percentile 5) times quiet"
    assert f"load, video, B = 64\n  smnm green3d: {one} -> {other}" in said


def test_files_that_are_no_rows_are_named(tmp_path):
    path = tmp_path / "rows.json"
    for text in ("", "nonsense", "[1]", '{"a": 1}'):
        path.write_text(text)
        with pytest.raises(UsageError, match=r"rows\.json: not the rows of a run"):
            read_rows(path)
    with pytest.raises(UsageError, match=r"missing\.json"):
        read_rows(tmp_path / "missing.json")
    path.write_text(json.dumps(row("a", (1.0,))) + "\n")
    assert read_rows(path)[0]["what"] == "a"


def test_tables_say_where_and_what():
    ours = row("smnm green3d", (0.2, 0.21, 0.22), note="a note", ours=True)
    theirs = row("masks as smnm_kernels 0.1.0 made them", (1.0, 1.0, 1.0))
    text = markdown([ours, theirs], ABOUT)
    assert "a CPU, 2 cores, 2 threads" in text
    assert "commit abc" in text
    assert (
        "| **smnm green3d** | 5 us (4 us to 6 us) | 0.21 | 0.2 0.21 0.22 | 0.263 | a note |" in text
    )
    assert "| masks as smnm_kernels 0.1.0 made them |" in text
