"""Studies of clips with sound: two inputs with masks of their own, and what is measured on them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from flashes import write_flashes

from smnm_kernels import AudioVideoSampler
from smnm_kernels.cli import main
from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.finder import Files
from smnm_kernels.train.data.modality import FixedView, Normalisation
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.pretrain_setup import set_up
from smnm_kernels.train.tasks.studying.cells import cells_of
from smnm_kernels.train.tasks.studying.environment import Machine
from smnm_kernels.train.tasks.studying.folders import CellFolder
from smnm_kernels.train.tasks.studying.heldout_loss import (
    SEED,
    HeldOutLoss,
    build,
    common_masks,
    heldout_loss,
    own_masks,
)
from smnm_kernels.train.tasks.studying.inputs import Visible, counts, counts_in_words
from smnm_kernels.train.tasks.studying.measuring import run_cell
from smnm_kernels.train.tasks.studying.plan_file import load_plan

PLAN = """
modality = "audio-video"

[data.films]
make = "film them"
held_out_share = 0.5

[runs]
independent = { }
synchronised = { hidden_time = 0.5 }

[measures.loss]
with = "loss"

[measures.retrieval]
with = "retrieve"
list = "single.csv"

[[tables]]
title = "Moments"
rows = ["independent", "synchronised"]
columns = ["loss.own.video", "retrieval.sound_to_video.recall-10"]
"""


def loaded(folder, text=PLAN):
    path = folder / "films.toml"
    path.write_text(text)
    return load_plan(path)


def test_each_input_has_its_number_of_patches(tmp_path, capsys):
    plan = loaded(tmp_path)
    visible = {"video": Visible(28, (8, 6, 6)), "audio": Visible(12, (1, 8, 8))}
    assert plan.visible("independent") == plan.visible("synchronised") == visible
    assert counts_in_words(counts(visible)) == "video 28 of 288, audio 12 of 64"
    assert main(["study", str(tmp_path / "films.toml"), "--list"]) == 0
    shown = capsys.readouterr().out
    said = "video green3d, 28 of 8x6x6 visible; audio rbn, 12 of 1x8x8 visible"
    assert shown.count(said) == 2
    assert f"{said}; 0.5 of the time hidden" in shown


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("independent = { }", "independent = { audio_mask_ratio = 0.75 }", "unequal numbers .*16"),
        ("independent = { }", 'independent = { video_mask = "tube" }', "video 24 of 8x6x6"),
        ("independent = { }", "independent = { n_keep = 24 }", "give --video-n-keep or"),
        ("hidden_time = 0.5", "hidden_time = 2", "runs.synchronised: --hidden-time 2"),
        ('with = "retrieve"', 'with = "probe"', "retrieval.with: probe is not for audio-video"),
        (
            'with = "loss"',
            'with = "loss"\ncompared = 0',
            "loss: --compared must be at least 1",
        ),
        ('"loss.own.video"', '"loss.own.vidio"', "measure loss makes loss.own, loss.own.video, "),
        ('"audio-video"', '"video"', "retrieval.with: retrieve is not for video"),
    ],
)
def test_what_does_not_suit_two_inputs_is_refused(tmp_path, old, new, words):
    assert old in PLAN
    with pytest.raises(UsageError, match="(?s)" + words):
        loaded(tmp_path, PLAN.replace(old, new, 1))


def setup_of(**given):
    paths = {"data": Path("DATA"), "out": Path("OUT"), "device": "cpu"}
    setup = set_up(Pretrain(modality="audio-video", **paths, **given))
    model = setup.preset.objective.model
    if given.get("objective") != "avt":
        model = model.resized(
            dim=16, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
        )
    objective = replace(setup.preset.objective, model=model)
    return replace(setup, preset=replace(setup.preset, objective=objective))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    folder = tmp_path_factory.mktemp("films")
    for number in range(5):
        write_flashes(folder / f"{number}.mkv", n=40, fps=20 + 2 * number)
    return folder


def files_of(folder, setup, count=None):
    """A listing of the first `count` files."""
    found = scan(Files(folder), setup.preset.clip, None, threads=1)
    entries = replace(found.found, entries=found.found.entries[:count])
    return replace(found, found=entries, usable=found.usable[:count])


def contrast_of(video, audio, temperature):
    """-log of the share of the own pictures, of each clip among all sounds."""
    x, y = (of / of.norm(dim=1, keepdim=True) for of in (video.double(), audio.double()))
    likeness = (x @ y.T / temperature).exp()
    return -(likeness.diagonal() / likeness.sum(1)).log().mean().item()


@torch.no_grad()
def by_hand(folder, setup, model, sampler, files, groups, masks):
    """Each file and mask by itself, and the means of a group compared."""
    clip, sums = setup.preset.clip, {"video": [], "audio": [], "contrast": []}
    for group in groups:
        for number in range(masks):
            means = {"video": [], "audio": []}
            for place in group:
                read = clip.read_fixed(
                    Source(folder / files[place]["name"]), files[place], FixedView()
                )
                x = {name: Normalisation(clip.inputs[name])(of[None]) for name, of in read.items()}
                drawn = sampler.masks(torch.tensor([place * masks + number]))._asdict()
                found = model(x, drawn)
                for name in means:
                    means[name].append(found.means[name])
                    sums[name].append(found.losses[name].item())
            both = (torch.cat(means[name]) for name in ("video", "audio"))
            temperature = setup.preset.objective.temperature
            sums["contrast"] += [contrast_of(*both, temperature)] * len(group)
    return {name: sum(of) / len(of) for name, of in sums.items()}


@pytest.mark.slow
def test_the_loss_restores_file_by_file_and_compares_files(films):
    setup = setup_of(hidden_time=0.5)
    listing = files_of(films, setup)
    files, model = listing.usable, build(setup, 3, None)
    arguments = {"video": ("green3d", 0.9), "audio": ("rbn", 0.8)}
    both = {
        name: {"kind": kind, "grid": setup.kinds[name].grid, "mask_ratio": ratio}
        for name, (kind, ratio) in arguments.items()
    }
    settings = HeldOutLoss(masks=2, compared=2)
    losses, failed = heldout_loss(model, setup, {"own": own_masks(setup)}, listing, settings)
    assert not failed
    sampler = AudioVideoSampler(**both, hidden_time=0.5, seed=SEED)
    expected = by_hand(films, setup, model, sampler, files, [[0, 2, 4], [1, 3]], 2)
    for name, value in expected.items():
        assert losses["own"][f"loss_{name}"] == pytest.approx(value, rel=1e-5)
    whole = expected["video"] + expected["audio"] + 0.01 * expected["contrast"]
    assert losses["own"]["loss"] == pytest.approx(whole, rel=1e-5)

    random = {name: of | {"kind": "random"} for name, of in both.items()}
    common = {"common": common_masks(setup, settings)}
    losses, _ = heldout_loss(model, setup, common, files_of(films, setup, 2), settings)
    sampler = AudioVideoSampler(**random, seed=SEED)
    expected = by_hand(films, setup, model, sampler, files, [[0, 1]], 2)
    assert losses["common"]["loss_video"] == pytest.approx(expected["video"], rel=1e-5)


@pytest.mark.slow
def test_what_an_objective_draws_is_the_same_each_time(films):
    """AVT's matching takes its negatives from torch's stream."""
    setup = setup_of(objective="avt")
    listing = files_of(films, setup, 3)
    model, settings = build(setup, 0, None), HeldOutLoss(masks=1)
    found = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        masks = {"own": own_masks(setup)}
        found.append(heldout_loss(model, setup, masks, listing, settings)[0]["own"])
        assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1]
    assert {"loss", "loss_contrast", "loss_matching", "loss_segment"} <= set(found[0])


STUDY = """
modality = "audio-video"
pretrain = { steps = 2, batch_size = 2, warmup_steps = 0 }
data.films = { list = "labels.csv" }
runs.synchronised = { hidden_time = 0.5 }

[measures.loss]
with = "loss"
masks = 1

[measures.retrieval]
with = "retrieve"

[measures.all]
with = "retrieve"
list = "more.csv"
at = [1]

[measures.class]
with = "finetune"
steps = 1
batch_size = 2
evaluate_every = 1
"""


@pytest.mark.slow
def test_a_cell_measures_both_ways_and_fine_tunes(tmp_path, films):
    names = [path.name for path in sorted(films.glob("*.mkv"))]
    splits = zip(names, ("train", "train", "val", "test", "test"), "abaab", strict=True)
    rows = "".join(f"{name},{split},{label}\n" for name, split, label in splits)
    (films / "labels.csv").write_text("path,split,label\n" + rows)
    (films / "more.csv").write_text("path\n" + "".join(f"{name}\n" for name in names[2:]))
    plan = loaded(tmp_path, STUDY)
    (cell,) = cells_of(plan, {"films": films})
    folder = CellFolder(tmp_path / "out", cell)
    assert run_cell(plan, folder, Machine("cpu", threads=1, workers=0)) == 0
    found = folder.result
    assert found["about"]["n_keep"] == {"video": 28, "audio": 12}
    assert found["about"]["grid"] == {"video": [8, 6, 6], "audio": [1, 8, 8]}
    values = found["values"]
    assert values["loss.own.contrast"] > 0
    assert values["loss.own.video"] != values["loss.common.video"]
    for direction in ("sound_to_video", "video_to_sound"):
        assert 1 <= values[f"retrieval.{direction}.median_rank"] <= 2
        assert 1 <= values[f"all.{direction}.median_rank"] <= 3
        assert 0 <= values[f"all.{direction}.recall-1@1"] <= 1
    assert 0 <= values["class"] <= 1
    held_out = (folder.path / "held_out.csv").read_text()
    assert [name in held_out for name in names] == [False] * 3 + [True] * 2
