"""`smnm retrieve` against vectors that are made one file at a time."""

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from clips import write_video
from flashes import write_flashes
from safetensors.torch import load_file, save_file

from smnm_kernels.cli import main
from smnm_kernels.train.data.audio import Audio
from smnm_kernels.train.data.audio_video import AudioVideo
from smnm_kernels.train.data.crops import MultiScaleCrop
from smnm_kernels.train.data.modality import FixedView, Normalisation
from smnm_kernels.train.data.padding import TokenGrid
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.data.video import Video
from smnm_kernels.train.metrics.retrieval import ranks
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.encoder_file import metadata_of
from smnm_kernels.train.tasks.retrieve import Retrieve, embedders_of

CLIP = AudioVideo(Video(4, 32, 2, MultiScaleCrop(), flip=True), Audio(frames=64, bands=32))
SMALL = CAV_MAE.with_clips().resized(
    dim=32, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(films, an encoder's file)"""
    films = tmp_path_factory.mktemp("films")
    for k in range(6):
        n, late = (30, 0) if k else (12, 0.1)  # the first one is shorter than the window
        write_flashes(
            films / f"{k}.mkv", n=n + k, fps=25, rate=16000, codecs=("libx264", "flac"),
            sound_at=late,
        )  # fmt: skip
    write_video(films / "mute.mp4", size=32)
    run = tmp_path_factory.mktemp("run")
    objective = CavMae(SMALL)
    inputs = CLIP.inputs
    about = {
        "modality": "audio-video",
        "step": "3",
        "mean": json.dumps({name: form.mean for name, form in inputs.items()}),
        "scale": json.dumps({name: form.scale for name, form in inputs.items()}),
        "preset": json.dumps({"clip": asdict(CLIP)}),
    }
    model = objective.build(inputs, seed=1)
    objective.export(model, run / "encoder.safetensors", about)
    return films, run, model.encoder.eval()


def expected(films, encoder, clips):
    """Vectors of video and sound, file by file."""
    found = {"video": [], "audio": []}
    for path in sorted(films.glob("*.mkv")):
        record, source = CLIP.probe(Source(path)), Source(path)
        total = {"video": 0, "audio": 0}
        for k in range(clips):
            raw = CLIP.read_fixed(source, record, FixedView(k, clips))
            x = {name: Normalisation(CLIP.inputs[name])(raw[name][None]) for name in raw}
            valid = {}
            for name, real in CLIP.padded(record).items():
                tokens = TokenGrid((1, 64, 32), (1, 4, 2), None)
                valid[name] = tokens.real(real).flatten()[None]
            with torch.no_grad():
                made = encoder.embed(x, valid)
            total = {name: total[name] + made[name][0].numpy() for name in total}
        for name, vectors in found.items():
            vectors.append(total[name])
    return {name: np.stack(vectors) for name, vectors in found.items()}


@pytest.mark.parametrize("clips", [1, 3])
def test_it_ranks_what_the_encoder_makes_of_each_file(clips, made, tmp_path, capsys):
    films, run, encoder = made
    out = tmp_path / "out"
    words = ["retrieve", str(films), "--encoder", str(run), "--out", str(out), "--clips"]
    words += [str(clips), "--workers", "0", "--batch-size", "4", "--against", "none"]
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "skipped mute.mp4: has no sound stream" in said
    assert "6 files; chance finds k of 6, median rank 3.5" in said
    vectors = expected(films, encoder, clips)
    assert CLIP.padded(CLIP.probe(Source(films / "0.mkv")))
    results = json.loads((out / "results.json").read_text())
    with (out / "ranks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for direction, own, other in (
        ("sound_to_video", "audio", "video"),
        ("video_to_sound", "video", "audio"),
    ):
        found = ranks(vectors[own], vectors[other])
        written = [r for r in rows if r["encoder"] == str(run) and r["direction"] == direction]
        assert [row["name"] for row in written] == [f"{k}.mkv" for k in range(6)]
        assert [float(row["rank"]) for row in written] == found.means.tolist()
        [row] = [
            r for r in results["rows"] if r["direction"] == direction and r["name"] == str(run)
        ]
        values = {name: one["value"] for name, one in row["measures"].items()}
        assert values == pytest.approx(found.measures())
        assert row["origin"].endswith("step 3")
    assert [row["name"] for row in results["rows"]] == [str(run)] * 2 + ["none"] * 2
    assert "first_minus_this" in results["rows"][2]
    assert results["left_out"] == {"mute.mp4": "has no sound stream"}
    assert results["protocol"]["chance"]["median_rank"] == 3.5


def test_an_untrained_encoder_has_the_shape_of_another_and_is_another_one_with_each_seed(made):
    def two(**given):
        asked = Retrieve(data=made[0], out=made[0] / "out", encoder="none", **given)
        return [embedder.described() for embedder in embedders_of(asked)]

    run = (str(made[1]),)
    one, loaded = two(against=run)
    other, _ = two(against=run, seed=2)  # the run has weights of seed 1
    assert two(against=run)[0] == one
    assert one["input_sizes"] == other["input_sizes"] == loaded["input_sizes"]
    assert len({one["digest"], other["digest"], loaded["digest"]}) == 3
    assert one["origin"] == "untrained, seed 0"
    [alone] = two()
    assert alone["input_sizes"]["video"] == [3, 16, 96, 96]  # the preset's


def test_what_cannot_be_is_refused(made, tmp_path, capsys):
    films, run, _ = made
    (tmp_path / "one").mkdir()
    write_flashes(tmp_path / "one/1.mkv", n=30, rate=16000, codecs=("libx264", "flac"))
    (tmp_path / "no.safetensors").write_bytes(b"none")
    for words, why in (
        ([films, "--encoder", run, "--preset", "mae"], "--preset mae: audio-video has tiny"),
        ([films, "--encoder", tmp_path / "gone"], "gone: is not there"),
        ([films, "--encoder", tmp_path / "no.safetensors"], "no.safetensors: "),
        ([films, "--encoder", run, "--against", tmp_path / "gone"], "--against "),
        ([films, "--encoder", run, "--clips", "0"], "--clips must be at least 1, got 0"),
        ([tmp_path / "gone", "--encoder", run], "a folder of audio-video files"),
        ([tmp_path / "one", "--encoder", run], "two usable files at least are needed, there is"),
    ):
        out = tmp_path / "out"
        assert main(["retrieve", *map(str, words), "--out", str(out)]) == 2
        assert why in capsys.readouterr().err
        assert not out.exists()
    assert main(["retrieve", str(films), "--encoder", str(run), "--out", str(films)]) == 2
    flat = tmp_path / "flat.safetensors"
    file = run / "encoder.safetensors"
    clip = asdict(replace(CLIP, video=replace(CLIP.video, pixel_aspect="ignore")))
    about = metadata_of(file) | {"preset": json.dumps({"clip": clip})}
    save_file(load_file(file), flat, about)
    capsys.readouterr()
    words = ["retrieve", str(films), "--encoder", str(run), "--against", str(flat)]
    assert main([*words, "--out", str(out)]) == 2
    assert "not square in 2 ways (apply, ignore)" in capsys.readouterr().err
    assert not out.exists()


def test_fixed_views_are_read_as_the_run_read_files():
    kept = json.loads(json.dumps(asdict(replace(CLIP, spread=4))))
    clip = AudioVideo.of_fixed_views(kept)
    assert (clip.spread, clip.video.stride, clip.audio) == (4, 2, CLIP.audio)
    assert not clip.video.flip
