"""smnm probe: from labelled files to a table, whose numbers scikit-learn gives, too."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from clips import write_sound
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from smnm_kernels.cli import main
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.metrics import intervals
from smnm_kernels.train.models.encoder_file import encoder_metadata
from smnm_kernels.train.run.machine import available_memory
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.probing import features as features_module
from smnm_kernels.train.tasks.probing import protocol
from smnm_kernels.train.tasks.probing.attentive import AttentiveSettings
from smnm_kernels.train.tasks.probing.features import FeatureSettings, Machine, features
from smnm_kernels.train.tasks.probing.frozen import find_frozen
from smnm_kernels.train.tasks.probing.linear import STRENGTHS, choose_strength
from smnm_kernels.train.tasks.probing.protocol import (
    Data,
    Inputs,
    Trial,
    few_shot,
    possible_shots,
)
from smnm_kernels.train.tasks.probing.targets import Task

CLASSES = ("blue", "red", "yellow")


def write_colours(folder, n, seed=0, overlap=40):
    """Noise of which one colour is brighter, by class and sometimes not."""
    rng = np.random.default_rng(seed)
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            pixels = rng.integers(60, 160, (24, 24, 3)).astype(float)
            pixels += rng.normal(scale=overlap, size=3)
            pixels[..., {0: [2], 1: [0], 2: [0, 1]}[number]] += 50
            picture = PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            picture.save(folder / name / f"{i:02}.png")


@pytest.fixture(scope="session")
def colours(tmp_path_factory):
    data = tmp_path_factory.mktemp("colours")
    for seed, (split, n) in enumerate((("train", 12), ("val", 6), ("test", 8))):
        write_colours(data / split, n, seed)
    return data


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    """Of the bootstrap, which others test."""
    monkeypatch.setattr(intervals, "DRAWS", 40)


@pytest.fixture(scope="session")
def encoder(tmp_path_factory):
    """A tiny random encoder of 32 pixels as a file."""
    from safetensors.torch import save_file

    from smnm_kernels.train.models.mae import build_model
    from smnm_kernels.train.models.settings import MAE

    settings = MAE.resized(
        dim=32, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    settings = replace(settings, encoder=replace(settings.encoder, patch=(1, 8, 8)))
    model = build_model(settings, (3, 1, 32, 32), seed=5).encoder
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    more = {"modality": "image", "step": "7", "mean": "[0.5, 0.5, 0.5]", "scale": "[0.2, 0.2, 0.2]"}
    save_file(model.state_dict(), str(path), encoder_metadata(model, **more))
    return path


def probe(data, out, *arguments, modality="image"):
    given = [data, "--out", out, *arguments]
    for name, value in (("--workers", 0), ("--few-shot", None)):
        if name not in arguments:
            given += [name] if value is None else [name, value]
    return main(["probe", modality, *map(str, given)])


def results(out):
    return json.loads((out / "results.json").read_text())


def test_the_numbers_are_those_of_scikit_learn(colours, encoder, tmp_path, capsys):
    out = tmp_path / "out"
    assert probe(colours, out, "--encoder", encoder, "--seed", 2) == 0
    said = capsys.readouterr().out
    found = results(out)
    [frozen] = find_frozen([encoder], "image", PRESETS["image"]["tiny"], 0, {})
    files = scan(colours, frozen.clip, None, 1).usable
    machine = Machine(torch.device("cpu"))
    x = features(frozen, colours, files, FeatureSettings((2,)), machine, tmp_path / "cache")
    x = x.matrix(2, range(len(files))).double().numpy()
    names = [record["name"] for record in files]
    y = np.array([CLASSES.index(name.split("/")[1]) for name in names])
    split = {s: np.array([n.startswith(s) for n in names]) for s in ("train", "val", "test")}
    chosen = choose_strength(
        Task("class", 3), (x[split["train"]], y[split["train"]]), (x[split["val"]], y[split["val"]])
    )
    scaler = StandardScaler().fit(x[split["train"]])
    model = LogisticRegression(C=chosen, max_iter=1000)
    model.fit(scaler.transform(x[split["train"]]), y[split["train"]])
    right = model.predict(scaler.transform(x[split["test"]])) == y[split["test"]]

    row = found["rows"][0]
    assert (row["probe"], row["layer"], row["chosen"]) == ("linear", "last", [{"C": chosen}])
    assert row["measures"]["top1"]["value"] == pytest.approx(right.mean())
    assert row["measures"]["top1"]["low"] <= right.mean() <= row["measures"]["top1"]["high"]
    assert row["digest"] == frozen.digest
    assert "step 7" in row["origin"]
    assert found["files"] == {"all files": {"train": 36, "val": 18, "test": 24}}
    assert {name: one["files"] for name, one in row["per_class"].items()} == dict.fromkeys(
        CLASSES, 8
    )
    mean = np.mean([one["right"] for one in row["per_class"].values()])
    assert mean == pytest.approx(row["measures"]["mean_class"]["value"])
    assert f"{right.mean():.3f} [" in said

    with (out / "predictions.csv").open() as file:
        predicted = list(csv.DictReader(file))
    assert [p["name"] for p in predicted] == [n for n in names if n.startswith("test")]
    assert np.mean([p["label"] == p["predicted"] for p in predicted]) == pytest.approx(right.mean())
    with PIL.Image.open(out / "confusion.png") as picture:
        assert picture.format == "PNG"
    assert not (out / "few_shot.png").exists()


def test_test_files_have_no_part_in_what_is_chosen(colours, encoder, tmp_path):
    assert probe(colours, tmp_path / "one", "--encoder", encoder) == 0
    other = tmp_path / "other"
    shutil.copytree(colours, other)
    for name in CLASSES:
        shutil.rmtree(other / "test" / name)
    write_colours(other / "test2", 9, seed=9, overlap=90)
    for name in CLASSES:
        shutil.move(other / "test2" / name, other / "test" / name)
    (other / "test2").rmdir()
    assert probe(other, tmp_path / "two", "--encoder", encoder) == 0
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert [r["chosen"] for r in one["rows"]] == [r["chosen"] for r in two["rows"]]
    assert one["data_fingerprint"] != two["data_fingerprint"]
    assert [r["measures"] for r in one["rows"]] != [r["measures"] for r in two["rows"]]


def test_a_second_command_computes_no_feature(colours, encoder, tmp_path, monkeypatch, capsys):
    asked = ("--encoder", encoder, "--cache", tmp_path / "cache")
    assert probe(colours, tmp_path / "one", *asked) == 0

    def never(*_):
        raise AssertionError

    monkeypatch.setattr("smnm_kernels.train.data.views.Views.read_view", never)
    assert probe(colours, tmp_path / "two", *asked) == 0
    one, two = results(tmp_path / "one"), results(tmp_path / "two")
    assert one == two


def test_one_that_was_stopped_gives_the_same_numbers(colours, encoder, tmp_path, monkeypatch):
    asked = ("--encoder", encoder, "--clips", 1, "--crops", 2, "--batch-size", 8)
    assert probe(colours, tmp_path / "whole", *asked) == 0
    features_of, calls = features_module.features_of, []

    def stopping(*arguments):
        calls.append(len(arguments[1]))
        if len(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return features_of(*arguments)

    monkeypatch.setattr(features_module, "features_of", stopping)
    assert probe(colours, tmp_path / "out", *asked) == 143
    assert not (tmp_path / "out" / "results.json").exists()
    assert probe(colours, tmp_path / "out", *asked) == 0
    assert sum(calls) == 2 * 78
    assert results(tmp_path / "out") == results(tmp_path / "whole")


@pytest.mark.slow
def test_several_encoders_layers_and_few_files(colours, encoder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        protocol, "AttentiveSettings", lambda heads, seed: AttentiveSettings(heads, 1, 20, 2)
    )
    out = tmp_path / "out"
    arguments = ("--encoder", encoder, "--against", "none", encoder, "--layer", 0, "last")
    arguments += ("--probes", "linear", "knn", "attentive", "--few-shot", 1, 5, 20, "--draws", 3)
    assert probe(colours, out, *arguments) == 0
    said = capsys.readouterr().out
    assert (
        "few-shot: the smallest class has 12 training files: no probe is fitted to 20 a class"
        in said
    )
    found = results(out)
    rows = {(r["name"], r["layer"], r["probe"]): r for r in found["rows"]}
    names = [str(encoder), "none", f"{encoder} (2)"]
    assert list(rows) == [
        (n, layer, p)
        for n in names
        for layer in ("0", "last")
        for p in ("linear", "knn", "attentive")
    ]
    # none has the architecture of the other, and other weights.
    assert rows["none", "0", "knn"]["input_size"] == [3, 1, 32, 32]
    assert rows["none", "0", "knn"]["digest"] != rows[names[0], "0", "knn"]["digest"]
    for (name, layer, one), row in rows.items():
        if name == names[2]:
            assert row["measures"] == rows[names[0], layer, one]["measures"]
            same = row["first_minus_this"]
            assert (same["value"], same["low"], same["high"]) == (0, 0, 0)
        if name == "none":
            ours = rows[names[0], layer, one]["measures"]["top1"]["value"]
            difference = ours - row["measures"]["top1"]["value"]
            assert row["first_minus_this"]["value"] == pytest.approx(difference)
        if one == "attentive":
            assert "few_shot" not in row
            continue
        assert [few["files_a_class"] for few in row["few_shot"]] == [1, 5]
        for few in row["few_shot"]:
            assert len(few["draws"]) == 3
            assert few["top1"]["value"] == pytest.approx(np.mean(few["draws"]))
    assert len(list((out / "predictions").iterdir())) == len(rows)
    with PIL.Image.open(out / "few_shot.png") as picture:
        assert picture.format == "PNG"


def write_list(path, colours, label):
    """A list of all pictures with folds, whose label `label(class number)` is."""
    lines = ["file,label,fold,episode"]
    for place, picture in enumerate(sorted(colours.rglob("*.png"))):
        number = CLASSES.index(picture.parent.name)
        lines.append(
            f"{picture.relative_to(colours)},{label(number)},{place % 3 + 1},e{place // 4}"
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def test_all_folds_test_each_file_once(colours, encoder, tmp_path):
    data = write_list(colours / "folds.csv", colours, lambda number: CLASSES[number])
    out = tmp_path / "out"
    assert probe(data, out, "--encoder", encoder, "--fold", "all", "--few-shot", 2) == 0
    found = results(out)
    assert list(found["files"]) == ["fold 1", "fold 2", "fold 3"]
    assert sum(f["test"] for f in found["files"].values()) == 78
    assert all(f["test"] + f["train"] == 78 for f in found["files"].values())
    with (out / "predictions.csv").open() as file:
        predicted = list(csv.DictReader(file))
    assert sorted(p["name"] for p in predicted) == sorted(
        str(p.relative_to(colours)) for p in colours.rglob("*.png")
    )
    for row in found["rows"]:
        assert len(row["chosen"]) == 3
        assert row["mean_of_folds"]["value"] == pytest.approx(np.mean(list(row["folds"].values())))
        assert row["measures"]["top1"]["value"] == pytest.approx(row["mean_of_folds"]["value"])

    alone = tmp_path / "alone"
    assert probe(data, alone, "--encoder", encoder, "--fold", 2) == 0
    ours = results(alone)["rows"][0]["measures"]["top1"]["value"]
    assert ours == pytest.approx(found["rows"][0]["folds"]["fold 2"])


def test_a_fold_that_tells_nothing_is_null_and_the_mean_of_folds_comes_first(
    colours, encoder, tmp_path, capsys
):
    lines = ["file,labels,fold"]
    for place, picture in enumerate(sorted(colours.rglob("*.png"))):
        fold = place % 3 + 1
        label = "x" if fold == 3 or picture.parent.name == CLASSES[0] else "y"
        lines.append(f"{picture.relative_to(colours)},{label},{fold}")
    data = colours / "one_sided.csv"
    data.write_text("\n".join(lines) + "\n")
    out = tmp_path / "out"
    asked = ("--encoder", encoder, "--fold", "all", "--labels", "classes")
    assert probe(data, out, *asked, "--probes", "knn") == 0
    text = (out / "results.json").read_text()
    [row] = json.loads(text, parse_constant=lambda name: pytest.fail(name))["rows"]
    assert row["folds"]["fold 3"] is None
    told = [value for value in row["folds"].values() if value is not None]
    assert len(told) == 2
    assert row["mean_of_folds"]["value"] == pytest.approx(np.mean(told))
    assert "probe  mAP, mean of folds  mAP, folds pooled" in re.sub(
        " {2,}", "  ", capsys.readouterr().out
    )


def test_several_labels_numbers_and_groups(colours, encoder, tmp_path):
    names = {0: "cold", 1: "warm;red", 2: "warm"}
    several = write_list(colours / "several.csv", colours, lambda number: names[number])
    grouped = ("--group-column", "episode", "--few-shot", 1)
    asked = ("--encoder", encoder, *grouped)
    assert probe(several, tmp_path / "several", *asked, "--labels", "classes") == 0
    row = results(tmp_path / "several")["rows"][0]
    assert 0.5 < row["measures"]["mAP"]["value"] <= 1
    precisions = [one["average_precision"] for one in row["per_class"].values()]
    assert row["measures"]["mAP"]["value"] == pytest.approx(np.mean(precisions))
    assert "few_shot" not in row
    assert "test groups" in results(tmp_path / "several")["interval"]

    numbers = write_list(colours / "numbers.csv", colours, lambda number: 10 + 2.5 * number)
    assert probe(numbers, tmp_path / "numbers", *asked, "--labels", "number") == 0
    for row in results(tmp_path / "numbers")["rows"]:
        assert 0 <= row["measures"]["mae"]["value"] < 2.5
        assert row["measures"]["r2"]["value"] < 1
    assert not (tmp_path / "numbers" / "confusion.png").exists()


def test_files_that_fail_later_are_named_and_in_no_split(colours, encoder, tmp_path, capsys):
    data = tmp_path / "data"
    shutil.copytree(colours, data)
    assert probe(data, tmp_path / "out", "--encoder", encoder) == 0
    gone = data / "test" / "red" / "03.png"
    stat = gone.stat()
    gone.write_bytes(gone.read_bytes()[:40].ljust(stat.st_size, b"\0"))
    os.utime(gone, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    shutil.rmtree(tmp_path / "out" / "features")
    assert probe(data, tmp_path / "out", "--encoder", encoder) == 0
    found = results(tmp_path / "out")
    assert "does not decode" in found["left_out"]["test/red/03.png"]
    assert found["files"]["all files"]["test"] == 23
    assert "left out test/red/03.png" in capsys.readouterr().out


@pytest.mark.slow
def test_words_by_their_pitch(tmp_path):
    data = tmp_path / "data"
    for name, hertz in (("low", 200), ("high", 900)):
        (data / name).mkdir(parents=True)
        for i in range(6):
            write_sound(data / name / f"{i}.wav", 0.4 + 0.1 * i, hertz=hertz + 10 * i)
    asked = ("--encoder", "none", "--pool", "time", "--clips", 2, "--layer", 1)
    assert probe(data, tmp_path / "out", *asked, modality="audio") == 0
    row = results(tmp_path / "out")["rows"][0]
    assert row["measures"]["top1"]["value"] == 1


def test_a_folder_is_written_by_one_command_at_a_time(colours, encoder, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    held = "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); "
    held += "print('held', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", held, str(tmp_path / "out" / ".lock")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    monkeypatch.setattr("smnm_kernels.train.run.folder._LOCK_WAIT_S", 0.0)
    with other:
        assert other.stdout.readline() == b"held\n"
        assert probe(colours, tmp_path / "out", "--encoder", encoder) == 2
        other.stdin.close()
    assert probe(colours, tmp_path / "out", "--encoder", encoder) == 0


def test_nothing_of_an_earlier_command_stays(colours, encoder, tmp_path, capsys):
    out = tmp_path / "out"
    assert probe(colours, out, "--encoder", encoder, "--few-shot", 1, "--draws", 1) == 0
    assert (out / "few_shot.png").exists()
    assert len(list((out / "predictions").iterdir())) == 2
    capsys.readouterr()
    assert probe(colours, out, "--encoder", encoder, "--probes", "knn") == 0
    said = capsys.readouterr().out
    assert f"{out}/results.json is of other probes, few_shot, draws and will be replaced" in said
    assert probe(colours, out, "--encoder", encoder, "--probes", "knn") == 0
    assert "replaced" not in capsys.readouterr().out
    assert not (out / "few_shot.png").exists()
    assert list((out / "predictions").iterdir()) == []


def test_memory_that_holds_files_can_be_had(monkeypatch):
    said = "MemTotal: 100 kB\nMemFree: 2 kB\nMemAvailable:   70 kB\n"
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: said)
    assert available_memory() == 70 * 1024
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: "MemTotal: 100 kB\n")
    assert available_memory() is None


def test_tokens_that_do_not_fit_are_refused(colours, encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("smnm_kernels.train.tasks.probe.available_memory", lambda: 2**16)
    assert probe(colours, tmp_path / "out", "--encoder", encoder, "--probes", "attentive") == 2
    assert "0.0 GiB of memory are available, of which half" in capsys.readouterr().err


def test_the_same_few_files_for_every_probe():
    rng = np.random.default_rng(0)
    x, values = rng.normal(size=(40, 4)), np.repeat([0, 1], 20)
    x[:, 0] += 3 * values
    order = rng.permutation(40)
    train, test = order[:30], order[30:]
    none = np.array([], dtype=np.int64)
    names = [str(i) for i in range(40)]
    data = Data(Task("class", 2), values, names, None, (Trial("all", train, none, test),), seed=0)
    scores = [few_shot("knn", data, Inputs(x, [], 1), 1, draw) for draw in range(4)]
    # Of one file a class the votes tell which file is nearer.
    assert all(np.allclose(s.sum(1), 1) for s in scores)
    assert not np.allclose(scores[0], scores[1])
    spoiled = x.copy()
    spoiled[test] = 0
    assert not np.allclose(few_shot("knn", data, Inputs(spoiled, [], 1), 1, 0), scores[0])
    again = few_shot("knn", data, Inputs(x, [], 1), 1, 0)
    assert np.array_equal(again, scores[0])


def test_a_class_of_no_file_ends_no_curve():
    values = np.array([0, 0, 0, 2, 2, 0, 2])
    trial = Trial("all", np.arange(5), np.array([], dtype=np.int64), np.arange(5, 7))
    data = Data(Task("class", 4), values, list("abcdefg"), None, (trial,), seed=0)
    assert possible_shots(data, [1, 2, 3])[0] == [1, 2]
    untrained = Data(
        Task("class", 4), np.array([0, 0, 0, 2, 2, 0, 3]), data.names, None, (trial,), 0
    )
    assert possible_shots(untrained, [1, 2, 3])[0] == []  # tested, and never seen


def test_strengths_reach_far_enough_to_matter():
    assert min(STRENGTHS) <= 1e-5
    assert max(STRENGTHS) >= 100
    assert list(STRENGTHS) == sorted(STRENGTHS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--encoder", "nowhere"), "--encoder nowhere"),
        (("--against", "nowhere"), "--against nowhere: is not there"),
        (("--layer", "5"), "--layer 5: must be last or a number from 0 to 2"),
        (("--layer", "middle"), "--layer middle: must be last or a number"),
        (("--layer", "2", "last"), "names a layer twice"),
        (("--layer", "1", "1"), "--layer: each once"),
        (("--pool", "time"), "--pool time: is for audio"),
        (("--clips", "2"), "--clips 2: image has no time"),
        (("--clips", "0"), "--clips must be at least 1, got 0"),
        (("--stride", "2"), "--stride 2: image has no such option"),
        (("--padding", "hide"), "--padding hide: image has no such option"),
        (("--k", "0"), "--k must be at least 1"),
        (("--k", "37"), "--k 37: there are 36 training files"),
        (("--few-shot", "5", "1"), "--few-shot must be ascending"),
        (("--draws", "0"), "--draws must be at least 1"),
        (("--preset", "videomae"), "--preset videomae: image has tiny"),
        (("--fold", "all"), "--fold all: needs DATA that is a list"),
        (("--val-share", "1"), "--val-share must be in"),
        (("--device", "tpu"), "--device tpu: not there"),
        (("--scan-of", "nowhere"), "--scan-of nowhere"),
    ],
)
def test_wrong_options_are_named(colours, encoder, tmp_path, capsys, arguments, message):
    given = arguments if "--encoder" in arguments else ("--encoder", encoder, *arguments)
    assert probe(colours, tmp_path / "out", *given) == 2
    assert re.search(re.escape(message), capsys.readouterr().err)
    assert not (tmp_path / "out" / "results.json").exists()


def test_a_run_is_not_written_over(colours, encoder, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text("{}")
    assert probe(colours, run, "--encoder", encoder) == 2
    assert f"--out {run}: holds a run (config.json)" in capsys.readouterr().err
    assert [path.name for path in run.iterdir()] == ["config.json"]


def test_wrong_data_is_named(colours, encoder, tmp_path, capsys):
    asked = ("--encoder", encoder)
    assert probe(colours, colours, *asked) == 2
    assert "is DATA itself" in capsys.readouterr().err
    assert probe(tmp_path / "nowhere", tmp_path / "out", *asked) == 2
    assert "does not exist" in capsys.readouterr().err
    assert probe(colours / "train", tmp_path / "out", *asked, "--val-share", 0) == 2
    assert "all files has no file to test on" in capsys.readouterr().err
    assert probe(colours, tmp_path / "out", *asked, modality="video") == 2
    assert "is of image, and video was asked for" in capsys.readouterr().err
