"""A report of synthetic rows: its statistics are scipy's, what is missing is said."""

import json
import re

import numpy as np
import PIL.Image
import pytest
from scipy import stats
from tiny_study import PLAN, write_pictures

from smnm_kernels.cli import main
from smnm_kernels.train.run.folder import write_json
from smnm_kernels.train.tasks.studying.cells import cells_of, source_digest
from smnm_kernels.train.tasks.studying.environment import environment
from smnm_kernels.train.tasks.studying.plan_file import load_plan
from smnm_kernels.train.tasks.studying.rows import read_rows

TEXT = PLAN.replace("seeds = 2", "seeds = 5")
VALUES = {
    "random": [0.50, 0.52, 0.49, 0.53, 0.51],
    "green2d": [0.56, 0.55, 0.58, 0.59, 0.55],
}


def finished(folder, text=TEXT, values=VALUES, data=None):
    """A study whose cells were finished, as far as there are values."""
    folder.mkdir(exist_ok=True)
    (folder / "plan.toml").write_text(text)
    plan = load_plan(folder / "plan.toml")
    for cell in cells_of(plan, {"colours": data} if data else {}):
        name, seed = cell.run.name, cell.seed
        if seed >= len(values.get(name, [])):
            continue
        about = {"data_fingerprint": "d", "clips_per_s": 10.0, "mask_ms": 0.5, "parameters": 7}
        of = {"loss.own": values[name][seed], "loss.common": 1.0}
        of |= {"class.linear": None if seed else 0.5, "class.linear@2": 0.5}
        (folder / "cells" / cell.id).mkdir(parents=True)
        write_json(
            folder / "cells" / cell.id / "result.json",
            {
                **{"id": cell.id, "id_of_any_code": cell.id_of_any_code, "name": cell.name},
                **{"written": 1.0, "data": cell.data, "run": name, "seed": seed},
                **{"settings": cell.settings, "about": about, "values": of},
                **{"seconds": {"train": 9.0}, "environment": environment("cpu", 1)},
            },
        )
    return folder


def report(folder, capsys):
    assert main(["study", "report", str(folder)]) == 0
    content = json.loads((folder / "report/report.json").read_text())
    return content, (folder / "report/report.md").read_text(), capsys.readouterr().out


def test_tables_have_means_intervals_and_paired_differences(tmp_path, capsys):
    content, text, said = report(finished(tmp_path / "study"), capsys)
    (table,) = content["tables"]
    first, second = (row["columns"]["loss.own"] for row in table["rows"])
    random, green = map(np.array, VALUES.values())
    low, high = stats.ttest_1samp(green, 0).confidence_interval(0.95)
    assert (second["mean"]["low"], second["mean"]["high"]) == pytest.approx((low, high))
    test = stats.ttest_rel(green, random)
    low, high = test.confidence_interval(0.95)
    difference = second["difference"]
    assert (difference["low"], difference["high"]) == pytest.approx((low, high))
    assert difference["value"] == pytest.approx(np.mean(green - random))
    assert first["difference"] is None
    assert (first["paper"], second["paper"]) == (0.52, 0.57)
    assert first["seeds"] == dict(zip("01234", VALUES["random"], strict=True))
    (ordering,) = content["orderings"]
    assert ordering["verdict"] == "reproduced"
    assert content["missing"] == ["colours untrained seed 0"]
    assert "10 of 11 cells are finished" in text
    assert "| green2d | 4 of 16 | 5 | 0.566 [" in text
    assert "random is easier (loss.own, colours): reproduced" in said
    assert (tmp_path / "study/report/01-Table-6-colours.png").exists()
    assert "![orders](orders.png)" in text
    assert (tmp_path / "study/report/orders.png").exists()


def test_an_incomplete_study_says_what_is_missing_and_what_would_decide(tmp_path, capsys):
    values = {"random": [0.5, 0.6], "green2d": [0.55, 0.58, 0.9]}
    content, text, _ = report(finished(tmp_path / "study", values=values), capsys)
    (ordering,) = content["orderings"]
    (pair,) = ordering["pairs"]
    assert (pair["word"], pair["seeds"]) == ("not decided at this scale", 2)
    assert f"about {pair['needed']} seeds would decide" in text
    assert len(content["missing"]) == 6
    content, text, _ = report(finished(tmp_path / "none", values={}), capsys)
    assert content["orderings"][0]["verdict"] == "no rows"
    assert "0 of 11 cells are finished" in text


def test_rows_of_other_settings_are_not_the_plans(tmp_path, capsys):
    folder = finished(tmp_path / "study")
    (folder / "plan.toml").write_text(TEXT.replace("steps = 3", "steps = 2"))
    content, _, _ = report(folder, capsys)
    assert content["cells"] == {"planned": 11, "finished": 0}


def test_rows_are_those_of_a_run_that_was_renamed_and_of_its_like(tmp_path, capsys):
    folder = finished(tmp_path / "study")
    text = TEXT.replace("random = {", 'like = { mask = "random" }\nplain = {')
    text = text.replace('["random", "green2d"]', '["like", "plain", "green2d"]', 1)
    text = text.replace('["random", "green2d"]', '["plain", "green2d"]')
    (folder / "plan.toml").write_text(text.replace('reference = "random"', 'reference = "plain"'))
    content, _, _ = report(folder, capsys)
    like, plain, _ = (row["columns"]["loss.own"] for row in content["tables"][0]["rows"])
    assert like["seeds"] == plain["seeds"] == dict(zip("01234", VALUES["random"], strict=True))
    assert content["missing"] == ["colours untrained seed 0"]


def test_of_what_is_not_decided_it_is_said_where_it_points(tmp_path, capsys):
    values = {"random": [0.5, 0.6, 0.4], "green2d": [0.45, 0.61, 0.36]}
    _, text, _ = report(finished(tmp_path / "study", values=values), capsys)
    assert "seeds would decide, by these against the claim)" in text


def test_of_several_results_of_a_cell_the_newest_counts(tmp_path, capsys):
    folder = finished(tmp_path / "study")
    for path in sorted(folder.glob("cells/*/result.json")):
        row = json.loads(path.read_text())
        if (row["run"], row["seed"]) == ("random", 0):
            for name, written, value in (("0", 0.5, 7.0), ("z", 2.0, 8.0), ("zz", 0.7, 9.0)):
                other = row | {"id": name, "written": written, "values": {"loss.own": value}}
                other["settings"] = row["settings"] | {"code": {"sources": name}}
                (folder / "cells" / name).mkdir()
                write_json(folder / "cells" / name / "result.json", other)
    content, _, _ = report(folder, capsys)
    assert content["tables"][0]["rows"][0]["columns"]["loss.own"]["seeds"]["0"] == 8.0
    assert content["replaced"] == 3
    assert content["cells"]["finished"] == 10


def test_cells_of_other_data_are_told(tmp_path, capsys):
    folder = finished(tmp_path / "study")
    path = next(folder.glob("cells/*/result.json"))
    row = json.loads(path.read_text())
    row["about"]["data_fingerprint"] = "e"
    write_json(path, row)
    _, text, _ = report(folder, capsys)
    assert "**Cells on colours read different files (d, e).**" in text


def test_a_table_may_have_a_row_of_each_seed(tmp_path, capsys):
    text = TEXT.replace('title = "Table 6"', 'title = "Seeds"\neach_seed = true')
    content, _, _ = report(finished(tmp_path / "study", text), capsys)
    rows = content["tables"][0]["rows"]
    assert [row["run"] for row in rows[:3]] == ["random", "random, seed 0", "random, seed 1"]
    second = rows[2]["columns"]["loss.own"]
    assert (second["mean"]["value"], second["mean"]["low"], second["paper"]) == (0.52, None, None)


def copied(folder, of):
    """Of a report: report.json, as it would be committed."""
    path = folder / "rows.json"
    path.write_bytes((of / "report/report.json").read_bytes())
    return path


def test_rows_of_a_report_merge_with_cells_and_other_reports(tmp_path, capsys):
    """What two machines finished is the report of one that finished all."""
    (tmp_path / "a").mkdir()
    whole, _, _ = report(finished(tmp_path / "whole"), capsys)
    first = {"random": VALUES["random"], "green2d": VALUES["green2d"][:2]}
    report(finished(tmp_path / "first", values=first), capsys)
    rows = copied(tmp_path / "a", tmp_path / "first")
    rest = finished(tmp_path / "rest")
    for path in rest.glob("cells/*/result.json"):
        row = json.loads(path.read_text())
        if row["run"] == "random" or row["seed"] < 1:  # seed 1 of green2d is in both
            path.unlink()
    assert main(["study", "report", str(rest), "--rows", str(rows)]) == 0
    merged = json.loads((rest / "report/report.json").read_text())
    for key in ("tables", "orderings", "rows", "shared", "missing", "replaced"):
        assert merged[key] == whole[key], key
    again = copied(tmp_path, rest)
    assert main(["study", "report", "--rows", str(again), "--out", str(tmp_path / "alone")]) == 0
    alone = json.loads((tmp_path / "alone/report.json").read_text())
    assert alone == merged
    assert len((tmp_path / "alone/report.json").read_bytes()) < 30_000


def test_rows_are_whole(tmp_path, capsys):
    content, _, _ = report(finished(tmp_path / "study"), capsys)
    held = {one["id"]: one for one in read_rows(tmp_path / "study/report/report.json").results}
    for path in (tmp_path / "study").glob("cells/*/result.json"):
        row = json.loads(path.read_text())
        assert held[row["id"]] == row
    assert len(content["shared"]) < 10


def test_rows_of_another_plan_are_said_and_left_out(tmp_path, capsys):
    report(finished(tmp_path / "study"), capsys)
    rows = copied(tmp_path, tmp_path / "study")
    other = finished(tmp_path / "other", TEXT.replace("clips = 3", "clips = 4"), values={})
    assert main(["study", "report", str(other), "--rows", str(rows)]) == 0
    said = capsys.readouterr().out
    assert f"--rows {rows}: 10 of 10 rows are not of the plan's cells: left out" in said
    assert "0 of 11 cells are finished" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("{", "is no report of a study ("),
        ("[]", "is laid out otherwise; it is no report of a study, or of one from before"),
        ('{"rows": [{"id": "a"}]}', "lacks 'plan_file'; it is no report of a study"),
        (
            '{"plan_file": "x", "plan_text": "", "shared": [], "rows": [{"settings": {}}]}',
            "row 0 has no id as results of cells have",
        ),
        (
            '{"plan_file": "x", "plan_text": "", "shared": [{}], "rows": [{"settings": {},'
            '"id": "a", "id_of_any_code": "a", "name": "a", "written": 1, "data": "a", "run": "a",'
            '"seed": 1, "about": {}, "values": {}, "seconds": {}, "environment": 0}]}',
            "row 0 has no settings.data as results of cells have",
        ),
        (
            '{"plan_file": "x", "plan_text": "", "shared": [{}], "rows": [{"settings": {},'
            '"id": "a", "id_of_any_code": "a", "name": "a", "written": 1, "data": "a", "run": "a",'
            '"seed": 1, "about": {}, "values": {"loss.own": "x"}, "seconds": {},'
            '"environment": 0}]}',
            "row 0: values.loss.own is no number",
        ),
    ],
)
def test_broken_rows_are_refused_in_one_line(tmp_path, capsys, text, said):
    rows = tmp_path / "rows.json"
    if text is not None:
        rows.write_text(text)
    out = tmp_path / "out"
    assert main(["study", "report", "--rows", str(rows), "--out", str(out)]) == 2
    shown = capsys.readouterr().err
    assert f"--rows {rows}: {said}" in shown
    assert shown.count("\n") == 1
    assert not out.exists()


def test_a_study_goes_on_from_rows(tmp_path, capsys):
    write_pictures(tmp_path / "data", 2)
    plan = tmp_path / "tiny.toml"
    plan.write_text(TEXT)
    given = ["--data", f"colours={tmp_path / 'data'}", "--out", str(tmp_path / "out")]
    report(finished(tmp_path / "study", data=tmp_path / "data"), capsys)
    rows = copied(tmp_path, tmp_path / "study")
    assert main(["study", str(plan), *given, "--list", "--rows", str(rows)]) == 0
    assert "11 cells: 10 done, 1 open" in capsys.readouterr().out
    content = json.loads(rows.read_text())
    for shared in content["shared"]:
        if "sources" in shared:
            shared["sources"] = "other"
    for row in content["rows"]:
        row["id"] = f"x{row['id']}"
    rows.write_text(json.dumps(content))
    assert main(["study", str(plan), *given, "--list", "--rows", str(rows)]) == 0
    said = capsys.readouterr().out
    assert "10 rows are of other code; --other-code counts them" in said
    assert "11 cells: 11 open" in said
    assert main(["study", str(plan), *given, "--list", "--rows", str(rows), "--other-code"]) == 0
    assert "11 cells: 10 done, 1 open" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_one_file_as_each_run_restores_it_is_one_picture(tmp_path, capsys):
    folder = finished(tmp_path / "study")
    colours = {("random", 1): "red", ("green2d", 1): "blue", ("green2d", 0): "black"}
    for path in folder.glob("cells/*/result.json"):
        row = json.loads(path.read_text())
        colour = colours.get((row["run"], row["seed"]))
        if colour:
            PIL.Image.new("RGB", (400, 30), colour).save(path.parent / "restored.png")
    _, text, _ = report(folder, capsys)
    assert "restored, seed 1." in text
    assert "![restored](restored-colours.png)" in text
    with PIL.Image.open(folder / "report/restored-colours.png") as picture:
        found = [picture.getpixel((x, 40)) for x in range(picture.width)]
    shown = [c for c in dict.fromkeys(found) if c in ((255, 0, 0), (0, 0, 255), (0, 0, 0))]
    assert shown == [(255, 0, 0), (0, 0, 255)]  # side by side
    assert found.count((255, 0, 0)) == found.count((0, 0, 255)) == 400


def test_each_table_has_a_plot_of_its_own(tmp_path, capsys):
    second = TEXT[TEXT.index("[[tables]]") : TEXT.index("[[orderings]]")]
    text = TEXT + second.replace(', "loss.common", "class.linear", "class.linear@2"', "")
    _, shown, _ = report(finished(tmp_path / "study", text), capsys)
    files = [f"{number}-Table-6-colours.png" for number in ("01", "02")]
    assert all(f"![Table 6]({file})" in shown for file in files)
    wide, narrow = (PIL.Image.open(tmp_path / "study/report" / file).width for file in files)
    assert wide > narrow


def test_data_sets_without_a_value_have_no_column_and_no_claim_of_it(tmp_path, capsys):
    more = '[data.shapes]\n[data.tones]\n[runs]\nred2d = { mask = "red2d", on = ["shapes"] }'
    text = re.sub("untrained = .*\n", "", TEXT.replace("[runs]", more))
    text = text.replace('with = "probe"', 'with = "probe"\non = ["colours"]')
    text = text.replace('with = "loss"', 'with = "loss"\non = ["colours", "shapes"]')
    of = TEXT[TEXT.index("[[orderings]]") :]
    text += of.replace('"loss.own"', '"class.linear"') + of.replace('"green2d"', '"red2d"')
    table = '[[tables]]\ntitle = "All"\nrows = ["random", "red2d"]\ncolumns = '
    text += table + '["class.linear", "train.loss"]\n'
    # On colours and tones nothing would stand beside the reference.
    text += table.replace("All", "Beside") + '["train.loss"]\nreference = "random"\n'
    content, _, _ = report(finished(tmp_path / "study", text, values={}), capsys)
    assert [(one["value"], one["data"], len(one["runs"])) for one in content["orderings"]] == [
        ("loss.own", "colours", 2),
        ("loss.own", "shapes", 2),
        ("class.linear", "colours", 2),
        ("loss.own", "shapes", 2),
    ]
    classes = ["class.linear", "class.linear@2"]
    assert [(t["title"], t["data"], t["columns"]) for t in content["tables"]] == [
        ("Table 6", "colours", ["loss.own", "loss.common", *classes]),
        ("Table 6", "shapes", ["loss.own", "loss.common"]),
        ("All", "colours", ["class.linear", "train.loss"]),
        ("All", "shapes", ["train.loss"]),
        ("All", "tones", ["train.loss"]),
        ("Beside", "shapes", ["train.loss"]),
    ]
    assert [[row["run"] for row in t["rows"]] for t in content["tables"][2:]] == [
        ["random"],
        ["random", "red2d"],
        ["random"],
        ["random", "red2d"],
    ]


def test_cells_of_other_measured_data_or_devices_are_told(tmp_path, capsys):
    folder = finished(tmp_path / "study")
    assert report(folder, capsys)[0]["warnings"] == []
    for path in folder.glob("cells/*/result.json"):
        row, other = json.loads(path.read_text()), "colours green2d seed 3"
        row["data_fingerprints"] = {"class": "b" if row["name"] == other else "a"}
        row["settings"]["data"]["colours"]["fingerprint"] = "d" if row["name"] == other else "c"
        if row["name"] == other:
            row["environment"]["device"] = "NVIDIA H100"
            row["settings"]["code"]["sources"] = "new"
            row["failed"] = {"loss": {"a.png": "is empty", "b.png": "is gone"}}
        write_json(path, row)
    content, text, said = report(folder, capsys)
    for words in (
        "Cells were made with data colours of different files (c, d)",
        "Measure class of cells on colours, seed 3, read different files (a, b)",
        "random and green2d on colours, seeds 3, ran on different devices or in different "
        "precision (NVIDIA H100, bfloat16; cpu, float32): their differences may not be of the runs "
        "alone",
        "random and green2d on colours, seeds 3, were made by different code of the package "
        f"(sources {source_digest()}; sources new): their differences may not be of the runs alone",
        "Measure loss of cells on colours left out a.png, which is empty, and 1 more",
    ):
        assert words in content["warnings"]
        assert f"**{words}.**" in text
        assert f"warning: {words}" in said


def test_a_value_that_no_cell_has_is_told(tmp_path, capsys):
    text = TEXT.replace('"class.linear", "class.linear@2"', '"class.linear.2-shot"')
    content, shown, _ = report(finished(tmp_path / "study", text), capsys)
    (warning,) = content["warnings"]
    assert warning.startswith("class.linear.2-shot on colours: none of the 10 finished cells has")
    assert f"**{warning}.**" in shown


def test_a_cell_whose_parts_were_made_on_two_devices_is_told(tmp_path, capsys):
    folder = finished(tmp_path / "study")
    for path in folder.glob("cells/*/result.json"):
        row = json.loads(path.read_text())
        if row["name"] == "colours random seed 0":
            gpu = row["environment"] | {"device": "NVIDIA H100"}
            write_json(path, row | {"environments": {"loss": gpu, "class": gpu}})
        elif row["name"] == "colours random seed 1":
            older = row["environment"]["versions"] | {"torch": "2.11.0"}
            row["environment"] |= {"versions": older, "processor": "another"}
            write_json(path, row)
    content = report(folder, capsys)[0]
    assert [(one["device"], one["cells"]) for one in content["environments"]] == [
        ("cpu", 9),
        ("NVIDIA H100", 1),
        ("cpu", 1),
    ]
    of_devices, of_processors = content["warnings"]
    assert "(cpu, float32; cpu, float32 and NVIDIA H100, bfloat16)" in of_devices
    assert "seeds 1, ran on different processors or with different versions of" in of_processors
    assert "another, torch 2.11.0" in of_processors


def test_intervals_end_where_values_do_and_equal_differences_have_none(tmp_path, capsys):
    values = {"random": [0.5] * 3, "green2d": [0.6] * 3}
    folder = finished(tmp_path / "study", values=values)
    for path in folder.glob("cells/*/result.json"):
        row = json.loads(path.read_text())
        row["values"]["class.linear"] = [0.01, 0.99, 0.5][row["seed"]] if row["seed"] < 2 else None
        write_json(path, row)
    content, text, _ = report(folder, capsys)
    row = content["tables"][0]["rows"][1]
    assert row["columns"]["loss.own"]["difference"]["low"] is None
    assert row["columns"]["class.linear"]["mean"]["low"] == 0
    assert row["columns"]["class.linear"]["mean"]["high"] == 1
    assert "| 0.5 [0, 1] (2 of them) |" in text
