"""Plans: what is wrong is refused by its place in the file; kinds are compared at equal n_keep."""

from pathlib import Path

import pytest
from tiny_study import PLAN, write_pictures

from smnm_kernels.cli import main
from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.label_rows import LIST_SUFFIXES
from smnm_kernels.train.run.folder import write_json
from smnm_kernels.train.tasks.study import _shard
from smnm_kernels.train.tasks.studying import cells
from smnm_kernels.train.tasks.studying.cells import cells_of
from smnm_kernels.train.tasks.studying.folders import CellFolder
from smnm_kernels.train.tasks.studying.inputs import Visible
from smnm_kernels.train.tasks.studying.paper import published
from smnm_kernels.train.tasks.studying.plan_file import PLANS, load_plan
from smnm_kernels.train.tasks.studying.reading import Wrong, typed


def loaded(folder, text=PLAN):
    path = folder / "tiny.toml"
    path.write_text(text)
    return load_plan(path)


@pytest.fixture
def data(tmp_path):
    write_pictures(tmp_path / "data", 2)
    return tmp_path / "data"


def test_a_plan_makes_a_cell_of_each_run_seed_and_data_set(tmp_path):
    plan = loaded(tmp_path)
    assert [cell.name for cell in cells_of(plan, {})] == [
        "colours random seed 0",
        "colours green2d seed 0",
        "colours untrained seed 0",
        "colours random seed 1",
        "colours green2d seed 1",
    ]
    assert plan.runs["green2d"].options["mask_options"] == ("sigma=variant-3",)
    assert plan.visible("green2d") == {"image": Visible(4, (1, 4, 4))}
    assert plan.orderings[0].pairs == [("random", "green2d")]


ITS_OPTIONS = PLAN[PLAN.index('with = "probe"') : PLAN.index("\nat = [2]")]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("steps = 3", "step = 3", "tiny.toml.pretrain.step: there is no such key; did you mean"),
        (
            "steps = 3",
            'steps = "3"',
            "tiny.toml.pretrain.steps: must be a whole number, got '3'",
        ),
        ("steps = 3", "steps = true", "pretrain.steps: must be a whole number, got True"),
        ('mask = "random"', 'mask = "rnd"', "tiny.toml.runs.random: .*kind must be one of"),
        ('"sigma=variant-3"', '"sigma=9,1"', "tiny.toml.runs.green2d: --mask green2d"),
        ('common = "blue2d"', 'common = "blue9"', "tiny.toml.measures.loss: common blue9"),
        ("masks = 2", "masks = 0", "measures.loss: --masks must be at least 1"),
        ("at = [2]", "at = [4]", "measures.class.at: step 4: run random has 3 steps"),
        ('with = "probe"', 'with = "prob"', "measures.class.with: must be one of loss, probe"),
        ("few_shot = [2]", "few_shot = 2", "measures.class.few_shot: must be a list, got 2"),
        ("seeds = 2", "seeds = 0", "tiny.toml.seeds: must be a number of seeds"),
        ("seeds = 2", 'seeds = "two"', "tiny.toml.seeds: must be a number of seeds, or a list"),
        ("[measures.class]", "[measures.train]", "measures.train: must be none of features, files"),
        ("seeds = 1 }", "seeds = -1 }", "runs.untrained.seeds: must be a number of seeds"),
        ('"class.linear@2"', '"class.linear@3"', "'class.linear@3': of measure class encoders are"),
        ('"class.linear@2"', '"loss.own@2"', "'loss.own@2': of measure loss encoders are the last"),
        ('"loss.common"', '"loss.comon"', "'loss.comon': measure loss makes loss.own, loss.common"),
        ('"loss.common"', '"train.own"', "'train.own': of training there is train.loss alone"),
        ('modality = "image"', 'modality = "text"', "tiny.toml.modality: must be one of video"),
        ('rows = ["random"', 'rows = ["rand"', r"tables\[0\]: there is no run 'rand'"),
        ('"loss.own", "loss.c', '"los.own", "loss.c', r"tables\[0\]: value 'los.own' is of no"),
        ("ascending", "highest = 'random'\nascending", r"orderings\[0\]: needs ascending"),
        ('reference = "random"', 'referee = "x"', r"tables\[0\].referee: there is no such key"),
        (
            'rows = ["random", "green2d"]',
            'rows = ["random", "random"]',
            r"rows: 'random' is there 2",
        ),
        (
            'ascending = ["random", "green2d"]',
            'ascending = ["random", "random"]',
            "is there 2 times",
        ),
        ('ascending = ["random", ', 'highest = "random"\nof = ["random", ', "'random' is there 2"),
        ("few_shot = [2]", "clips = 2", "measures.class: --clips 2: image has no time"),
        (ITS_OPTIONS, "with = 'finetune'\nlr = -1.0", "measures.class: --lr must be a finite"),
        (ITS_OPTIONS, "with = 'segment'", "measures.class: segment is for video, not for image"),
        (ITS_OPTIONS, "with = 'finetune'\nstride = 4", "measures.class: --stride 4: image has no"),
        ('with = "loss"', "with = 'loss'\nof = 'colours'", "measures.loss: of, list: a loss is of"),
        (
            "few_shot = [2]",
            'layer = ["99"]',
            "class: --layer 99: must be last or a number",
        ),
        ("few_shot = [2]", 'layer = ["1", "2"]', "'class.linear': measure class makes .*layer-1"),
        ("at = [2]", "at = [2, 2]", "measures.class.at: 2 is there 2 times"),
        ("at = [2]", 'at = [2]\nruns = ["random", "random"]', "class.runs: 'random' is there"),
        ('source = "Table 6"\npaper', 'source = "Tabel 6"\npaper', "source: must be one of Table"),
        ('"audio loss"', '"audio los"', "paper.loss.own: must be one of .*, got 'audio los'"),
        ("steps = 3", "steps = -3", "tiny.toml.runs: all of them: --steps must be at least 1"),
        ('mask = "random"', 'mask = "random", seed = 3', "runs.random.seed: .* seeds = .3."),
        ("n_keep = 4", "n_keep = 40", "tiny.toml.runs.random: --mask random --n-keep 40"),
        ('"paint them"', "'x'\npretrain = {mask = 'tube'}", "colours.pretrain.mask: there is no"),
        ('"paint them"', "'x'\npretrain = {std = 1.0}", "colours.pretrain: --std.*, in run random"),
        ('"paint them"', "'x'\nlabels = {label = 'x'}", "colours.labels.label: there is no such"),
        ('"paint them"', "'x'\nheld_out_share = 1.0", r"held_out_share: must be in \(0, 1\)"),
        ('"class.linear",', '"class.liner",', "'class.liner': measure class makes class.linear, "),
        ('"class.linear",', '"class.knn",', "'class.knn': measure class makes class.linear, "),
        ('"class.linear",', '"class",', "'class': measure class makes class.linear, "),
        ('"class.linear",', '"class.linear.r2",', "'class.linear.r2': measure class makes"),
        ('"class.linear",', '"class.linear.7-shot",', "makes class.linear, .*class.linear.2-shot$"),
        ('"class.linear",', '"class.linear.layer-1",', "'class.linear.layer-1': measure class"),
        (
            "at = [2]",
            'at = [2]\nruns = ["untrained"]',
            r"tables\[0\]: value 'class.linear': no row",
        ),
        (
            'with = "loss"',
            "with = 'loss'\nruns = ['random']",
            "(random on colours; green2d on none)",
        ),
        ('["sigma=variant-3"] }', '["sigma=variant-3"], seeds = [7] }', "no seed in common"),
        ("untrained = true, seeds = 1", "untrained = true, on = []", "untrained.on: names no data"),
        ('"paint them"', "'x'\nheld_out = 'test'\nheld_out_share = 0.2", "goes without held_out"),
        ("seeds = 2", "seeds = [4294967296]", "seeds: must be at most 4294967295, got 4294967296"),
        ('mask = "green2d", mask_options = ["sigma=variant-3"]', "mask = 'random'", "are the same"),
        ('about = "A', 'hours_a_cell = -1\nabout = "A', "hours_a_cell: must be above 0, got -1"),
        ("at = [2]", 'runs = ["rand"]', "measures.class.runs: there is no run 'rand'"),
        ('modality = "image"', "modality =", "cannot be read .*line 3"),
    ],
)
def test_what_is_wrong_is_refused_by_its_place(tmp_path, old, new, words):
    assert old in PLAN
    with pytest.raises(UsageError, match="(?s)" + words):
        loaded(tmp_path, PLAN.replace(old, new, 1))


@pytest.mark.parametrize(
    ("of_data", "of_run", "words"),
    [
        ("pretrain = {flip = false}", "flip = true", "random.flip: is of the files of colours, "),
        ("[data.b]\ntrain = false", 'on = ["b"]', "random.on: b has train = false: no encoder is"),
    ],
)
def test_a_run_keeps_to_what_its_data_says(tmp_path, of_data, of_run, words):
    text = PLAN.replace('"paint them"', f"'x'\n{of_data}")
    loaded(tmp_path, text)
    with pytest.raises(UsageError, match=rf"tiny\.toml\.runs\.{words}"):
        loaded(tmp_path, text.replace('mask = "random"', f'mask = "random", {of_run}'))


@pytest.mark.parametrize("command", ["probe", "finetune"])
def test_a_class_token_that_is_not_there_is_not_asked_for(tmp_path, command):
    text = (PLANS / "quick.toml").read_text()
    measure = f"[measures.game]\nwith = '{command}'\npool = 'class'\n"
    with pytest.raises(UsageError, match=r"game: --pool class: encoders of run \w+ have no"):
        loaded(tmp_path, text + measure)


def test_kinds_are_compared_at_equal_numbers_of_patches(tmp_path):
    text = PLAN.replace('mask = "green2d",', 'mask = "green2d", mask_ratio = 0.5,')
    with pytest.raises(UsageError, match=r"tables\[0\]: .*random 4 of 1x4x4, green2d 8 of 1x4x4"):
        loaded(tmp_path, text)
    text = text.replace('title = "Table 6"', 'title = "Table 6"\nunequal_n_keep = true')
    with pytest.raises(UsageError, match=r"orderings\[0\]: .*unequal_n_keep = true"):
        loaded(tmp_path, text)
    text = text.replace("[[orderings]]", "[[orderings]]\nunequal_n_keep = true")
    assert loaded(tmp_path, text).visible("green2d")["image"].n_keep == 8


def test_differences_from_a_reference_are_of_equal_numbers_of_patches_too(tmp_path):
    text = PLAN.replace('mask = "green2d",', 'mask = "green2d", mask_ratio = 0.5,')
    text = text[: text.index("[[orderings]]")].replace('["random", "green2d"]', '["random"]')
    loaded(tmp_path, text)
    with pytest.raises(UsageError, match=r"tables\[0\]: .*random 4 of 1x4x4, green2d 8 of 1x4x4"):
        loaded(tmp_path, text.replace('reference = "random"', 'reference = "green2d"'))


def test_values_of_every_command_are_known_by_their_names(tmp_path):
    probe = PLAN[PLAN.index("[measures.class]") : PLAN.index("[[tables]]")]
    for options, columns in (
        (
            'with = "probe"\nlayer = ["2", "1"]',
            ["class.knn.layer-2", "class.linear.layer-1.5-shot"],
        ),
        ('with = "probe"\nlayer = ["2"]', ["class.knn", "class.linear.5-shot"]),
        ('with = "probe"\nlabels = "number"', ["class.linear", "class.knn.r2"]),
        ('with = "finetune"', ["class", "class.mean_class"]),
    ):
        text = PLAN.replace(probe, f"[measures.class]\n{options}\n\n")
        text = text.replace('"class.linear", "class.linear@2"', str(columns)[1:-1])
        assert loaded(tmp_path, text).tables[0].columns[2:] == tuple(columns)
        with pytest.raises(UsageError, match=r"'class\.x': measure class makes class"):
            loaded(tmp_path, text.replace(f"'{columns[0]}'", "'class.x'"))


def test_a_data_set_has_its_own_way_of_reading_and_a_measure_its_runs(tmp_path):
    text = PLAN.replace('"paint them"', "'x'\npretrain = {flip = false}")
    plan = loaded(tmp_path, text.replace("at = [2]", 'at = [2]\nruns = ["random"]'))
    first, second, *_ = cells_of(plan, {})
    assert first.settings["pretrain"]["flip"] is False
    assert list(first.settings["measures"]) == ["loss", "class"]
    assert list(second.settings["measures"]) == ["loss"]


def test_a_cell_is_named_by_settings_data_and_code(tmp_path, data, monkeypatch):
    def ids(text=PLAN, path=data):
        cells.fingerprint.cache_clear()
        return [cell.id for cell in cells_of(loaded(tmp_path, text), {"colours": path})]

    first = ids()
    assert len(set(first)) == 5
    assert ids() == first
    assert ids(PLAN.replace('title = "Table 6"', 'title = "other"')) == first
    changed = ids(PLAN.replace("sigma=variant-3", "sigma=variant-4"))
    assert [a == b for a, b in zip(first, changed, strict=True)] == [True, False, True, True, False]
    assert not set(ids(PLAN.replace("clips = 3", "clips = 4"))) & set(first)
    (data / "train/dark/more.png").write_bytes(b"x")
    assert not set(ids()) & set(first)
    (data / "train/dark/more.png").unlink()
    assert ids() == first
    of_any_code = [c.id_of_any_code for c in cells_of(loaded(tmp_path), {"colours": data})]
    monkeypatch.setattr(cells, "source_digest", lambda: "other")
    assert not set(ids()) & set(first)
    again = cells_of(loaded(tmp_path), {"colours": data})
    assert [cell.id_of_any_code for cell in again] == of_any_code


@pytest.mark.parametrize("suffix", LIST_SUFFIXES)
def test_what_lists_say_is_part_of_a_data_sets_digest(tmp_path, suffix):
    (tmp_path / f"names{suffix}").write_text("a.png")
    first = cells.fingerprint(tmp_path)
    (tmp_path / f"names{suffix}").write_text("b.png")
    cells.fingerprint.cache_clear()
    assert cells.fingerprint(tmp_path) != first


def test_a_list_elsewhere_is_part_of_the_digest(tmp_path, data):
    def id_of(rows, name):
        (tmp_path / "names.x").write_text(rows)
        cells.fingerprint.cache_clear()
        plan = loaded(tmp_path, PLAN.replace('"paint them"', f"'x'\nlist = '{name}'"))
        return cells_of(plan, {"colours": data})[0].id

    for name in ("../names.x", tmp_path / "names.x"):
        assert id_of("a.png", name) == id_of("a.png", name)
        assert id_of("a.png", name) != id_of("b.png", name)


def test_a_manifest_is_data_where_a_plan_names_it(tmp_path, data):
    def id_of(manifest, text):
        (data / "manifest.json").write_text(manifest)
        cells.fingerprint.cache_clear()
        return cells_of(loaded(tmp_path, text), {"colours": data})[0].id

    for number, text in enumerate(
        [
            PLAN,
            PLAN.replace('"paint them"', "'x'\nlist = 'manifest.json'"),
            PLAN.replace('with = "probe"', "with = 'probe'\nlist = './manifest.json'"),
        ]
    ):
        assert (id_of("[1]", text) == id_of("[2]", text)) is (number == 0)


def test_the_list_needs_no_data_and_says_how_it_is_made(tmp_path, data, capsys):
    loaded(tmp_path)
    plan = str(tmp_path / "tiny.toml")
    assert main(["study", plan, "--list"]) == 0
    shown = capsys.readouterr().out
    assert "5 cells: 5 no data" in shown
    assert "made by: paint them" in shown
    given = ["--data", f"colours={data}", "--out", str(tmp_path / "out")]
    assert main(["study", plan, "--list", *given, "--shard", "2/2"]) == 0
    shown = capsys.readouterr().out
    assert "colours green2d seed 1" in shown
    assert "green2d sigma=variant-3, 4 of 1x4x4 visible" in shown
    assert "3 cells: 3 open" in shown
    assert not (tmp_path / "out").exists()


def test_parts_of_a_study_are_equal_and_keep_together_what_is_compared():
    for path in PLANS.glob("*.toml"):
        every = cells_of(load_plan(path), {})
        for n in (1, 2, 3, 7, 16, 25):
            parts = [_shard(every, f"{i + 1}/{n}") for i in range(n)]
            assert sorted(c.name for part in parts for c in part) == sorted(c.name for c in every)
            assert max(map(len, parts)) - min(map(len, parts)) < 2
            groups = [{(cell.seed, cell.data) for cell in part} for part in parts]
            # A cut between parts goes through one group at the most.
            assert sum(map(len, groups)) <= len(set().union(*groups)) + n - 1
            for part in parts:
                assert part == [cell for cell in every if cell in part]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing"], "PLAN nothing: is no file, and no plan of ours: "),
        (["PLAN"], "--out must be given"),
        (["PLAN", "--out", "OUT"], "give --data colours=PATH; it is made by: paint them"),
        (["PLAN", "--list", "--data", "colour=x"], "must be NAME=PATH, NAME one of colours"),
        (["PLAN", "--list", "--data", "colours=x"], "--data colours=x: is not there"),
        (["PLAN", "--list", "--data", "colours=.", "colours=.."], "has a path already, ."),
        (["PLAN", "--list", "--device", "tpu"], "--device tpu: not there; allowed on this machine"),
        (["PLAN", "--list", "--shard", "3/2"], "--shard 3/2: must be I/N, I from 1 to N"),
        (["PLAN", "--out", "OUT", "--jobs", "0"], "--jobs must be at least 1"),
        (["PLAN", "--out", "OUT", "--cell", "x"], "--cell x: there is none such"),
        (
            ["PLAN", "--out", "OUT", "--cell", "x", "--list"],
            "x: is one cell, and --list is for many",
        ),
        (["PLAN", "--out", "OUT", "--cell", "x", "--jobs", "2"], "and --jobs is for many"),
        (["PLAN", "DIR", "--out", "OUT"], "DIR: is one argument too many"),
        (["PLAN", "--out", "DATA/out", "--data", "colours=DATA"], "lies in the data"),
        (["report"], "DIR is missing"),
        (["report", "OUT"], "is no study, it has no plan.toml"),
        (["report", "OUT", "--list"], "--list: is for running a study"),
        (["report", "OUT", "--jobs", "2"], "--jobs: is for running a study"),
    ],
)
def test_wrong_commands_are_refused_in_one_line(tmp_path, capsys, words, said):
    loaded(tmp_path)
    (tmp_path / "data").mkdir()
    for name, path in (("PLAN", "tiny.toml"), ("OUT", "out"), ("DATA", "data")):
        words = [word.replace(name, str(tmp_path / path)) for word in words]
    assert main(["study", *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_values_must_be_of_their_types():
    assert typed(3, float, "x") == 3.0
    assert typed(["a"], tuple[str, ...], "x") == ("a",)
    assert typed("a", Path | None, "x") == Path("a")
    for value, hint in ((True, int), (1.5, int), ("a", bool), (1, str), ({}, tuple[int, ...])):
        with pytest.raises(Wrong, match="x: must be"):
            typed(value, hint, "x")


@pytest.mark.parametrize("path", sorted(PLANS.glob("*.toml")), ids=lambda path: path.stem)
def test_our_plans_are_plans(path):
    plan = load_plan(path)
    assert plan.runs
    for table in plan.tables:
        for column in table.paper.values():
            found = [published(table.source, column, run) for run in table.rows]
            assert any(figure is not None for figure in found), (table.title, column)


def test_cells_of_other_code_count_as_done_where_that_is_asked_for(tmp_path, data, capsys):
    plan, out = loaded(tmp_path), tmp_path / "out"
    cells.fingerprint.cache_clear()
    cell = cells_of(plan, {"colours": data})[0]
    (out / "cells/other").mkdir(parents=True)
    row = {"id": "other", "id_of_any_code": cell.id_of_any_code, "seconds": {"train": 7200.0}}
    write_json(out / "cells/other/result.json", row)
    (out / "cells/another").mkdir()  # a cell of another plan
    row = {"id": "another", "id_of_any_code": "another", "seconds": {"train": 1.0}}
    write_json(out / "cells/another/result.json", row)
    given = ["--data", f"colours={data}", "--out", str(out), "--list"]
    for more, said in (([], "5 open"), (["--other-code"], "1 done, 4 open")):
        assert main(["study", str(tmp_path / "tiny.toml"), *given, *more]) == 0
        assert f"5 cells: {said}" in capsys.readouterr().out
    assert main(["study", str(tmp_path / "tiny.toml"), *given]) == 0
    assert "on average" not in capsys.readouterr().out
    assert main(["study", str(tmp_path / "tiny.toml"), *given, "--other-code"]) == 0
    assert "took 7200 s on average; the others would take about 8.0 hours" in (
        capsys.readouterr().out
    )


def test_a_cell_that_was_begun_says_how_far_it_is(tmp_path, data, capsys):
    plan = loaded(tmp_path)
    cells.fingerprint.cache_clear()
    cell = cells_of(plan, {"colours": data})[0]
    folder = CellFolder(tmp_path / "out", cell)
    assert folder.state() == "open"
    folder.run.mkdir(parents=True)
    folder.begin()
    folder.note("pretraining", "pretrain", {})
    assert folder.doing() == ("pretraining", 0, None)
    (folder.run / "config.json").write_text('{"runtime": {"steps": 3}}')
    (folder.run / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"st')
    given = ["--data", f"colours={data}", "--out", str(tmp_path / "out")]
    assert main(["study", str(tmp_path / "tiny.toml"), "--list", *given]) == 0
    shown = capsys.readouterr().out
    assert "begun: pretraining, step 2 of 3" in shown
    assert "5 cells: 1 begun, 4 open" in shown
    folder.fail(["no"])
    assert folder.state() == "failed"
