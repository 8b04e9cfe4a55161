"""smnm finetune audio-video: of both, the sound or the picture alone, and AVT's losses."""

import csv
import json
from dataclasses import asdict, replace

import labelled_sets as sets
import pytest
import torch
from clips import losses, main, rows
from finetuned import same_results
from labelled_sets import finetune, results
from safetensors.torch import save_file

from smnm_kernels import MaskSampler
from smnm_kernels.train.data.augment_bands import Bands
from smnm_kernels.train.data.augment_jitter import Jitter
from smnm_kernels.train.data.augment_mix import Mix
from smnm_kernels.train.data.padding import TokenGrid
from smnm_kernels.train.models.cav_mae import CavMae
from smnm_kernels.train.models.cav_mae_model import CAV_MAE
from smnm_kernels.train.models.joint_classifier import load_joint_classifier
from smnm_kernels.train.models.joint_encoders import load_joint_encoder
from smnm_kernels.train.run import forward
from smnm_kernels.train.tasks import finetune_evaluation, finetune_forms
from smnm_kernels.train.tasks.avt_options import SEGMENT_RATIO
from smnm_kernels.train.tasks.finetune_forms import WithAvtLosses
from smnm_kernels.train.tasks.finetune_presets import PRESETS
from smnm_kernels.train.tasks.predict import predictions

AVT = ("--objective", "avt", "--fusion-blocks", 2, "--segment-weight", 1)
STEPS = ("--steps", 4, "--evaluate-every", 2)


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    counts = {"train": 4, "val": 2, "test": 2}
    return sets.films(tmp_path_factory.mktemp("sets") / "films", counts)


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    make_small(monkeypatch)


def make_small(patch):
    patch.setattr(finetune_evaluation, "write_curves", lambda *given: None)
    patch.setattr(finetune_evaluation, "write_confusion_matrix", lambda *given: None)
    patch.setattr(forward, "step_memory", lambda *given: "not")
    tiny = PRESETS["audio-video"]["tiny"]
    small = replace(tiny, model=tiny.model.resized(dim=32, depth=2, heads=2))
    patch.setitem(PRESETS["audio-video"], "tiny", small)


@pytest.fixture(scope="module")
def run(films, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        make_small(patch)
        run = tmp_path_factory.mktemp("runs") / "run"
        assert finetune("audio-video", films, run, *STEPS, "--mixup", 0.5) == 0
    return run


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """As smnm pretrain leaves it: the encoder of CAV-MAE, with the clips that it was trained on."""
    tiny = PRESETS["audio-video"]["tiny"]
    clip = replace(tiny.clip, video=replace(tiny.clip.video, size=32, stride=1))
    shape = {"decoder_dim": 32, "decoder_depth": 1, "decoder_heads": 2}
    settings = CAV_MAE.with_clips().resized(dim=32, depth=2, heads=2, **shape)
    objective = CavMae(settings)
    path = tmp_path_factory.mktemp("pretrained") / "encoder.safetensors"
    formats = clip.inputs
    metadata = {
        "modality": "audio-video",
        "step": "7",
        "mean": json.dumps({name: given.mean for name, given in formats.items()}),
        "scale": json.dumps({name: given.scale for name, given in formats.items()}),
        "preset": json.dumps({"clip": asdict(clip)}),
    }
    objective.export(objective.build(formats, seed=3), path, metadata)
    return path


def states(*paths):
    return [load_joint_encoder(path).state_dict() for path in paths]


def table(path):
    with path.open(newline="") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


def test_both_are_trained_judged_and_kept(run, films):
    found = results(run)
    assert (found["split"], found["files"], found["failed"]) == ("test", 4, {})
    assert found["labels"]["names"] == ["dark", "light"]
    assert found["encoder"] == "untrained, seed 0"
    assert set(found["settings"]["mean"]) == {"video", "audio"}
    model = load_joint_classifier(run / "classifier.safetensors")
    assert model.inputs == ("video", "audio")
    said = predictions(run, films, (2, 1))
    judged = table(run / "predictions.csv")
    assert len(judged) == 4
    for name, row in judged.items():
        p = said.values[said.names.index(name)]
        assert float(row["p light"]) == pytest.approx(p[1].item(), abs=1e-5)


def test_the_command_predicts_likewise(run, films, tmp_path):
    out = tmp_path / "said.csv"
    words = ["predict", run, films / "test", "--out", out, "--views", "2x1", "--workers", 0]
    assert main([str(word) for word in words]) == 0
    said, judged = table(out), table(run / "predictions.csv")
    for name, row in judged.items():
        assert said[name.removeprefix("test/")]["predicted"] == row["predicted"]


@pytest.mark.parametrize("modalities", ["both", "audio", "video"])
def test_one_checkpoint_serves_both_and_each_alone(pretrained, films, modalities, tmp_path, capsys):
    given = ("--modalities", modalities, "--steps", 1, "--lr", 0, "--warmup-steps", 0)
    run = tmp_path / "run"
    assert finetune("audio-video", films, run, *given, encoder=pretrained) == 0
    assert results(run)["encoder"] == f"{pretrained}, step 7"
    assert "video stride 1, not 2" in capsys.readouterr().out
    before, after = states(pretrained, run / "encoder.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    model = load_joint_classifier(run / "classifier.safetensors")
    assert model.inputs == {"both": ("video", "audio")}.get(modalities, (modalities,))
    settings = results(run)["settings"]
    assert settings["modalities"] == modalities
    assert settings["clip"]["video"]["stride"] == 1


def test_what_one_alone_does_not_read_stays_as_it_was(pretrained, films, tmp_path):
    run = tmp_path / "run"
    given = ("--modalities", "audio", "--steps", 1, "--warmup-steps", 0, "--mixup", 0.5)
    assert finetune("audio-video", films, run, *given, encoder=pretrained) == 0
    before, after = states(pretrained, run / "encoder.safetensors")
    same = {name for name in before if torch.equal(before[name], after[name])}
    read = {name for name in before if name.startswith(("branches.audio.", "joint.0.attn"))}
    read -= {name for name in before if "pos_embed" in name}
    assert not read & same
    assert {name for name in before if ".video." in name} <= same


def test_avt_learns_its_losses_beside_the_labels_and_goes_on_after_a_stop(films, tmp_path):
    drawing = (
        *AVT, "--drop-path", 0.3, "--mixup", 0.5, "--schedule-steps", 4, "--evaluate-every", 2,
    )  # fmt: skip
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    assert finetune("audio-video", films, straight, *drawing, "--steps", 4) == 0
    assert finetune("audio-video", films, halves, *drawing, "--steps", 2) == 0
    assert finetune("audio-video", films, halves, *drawing, "--steps", 4) == 0
    same_results(halves, straight)
    for row in rows(straight):
        others = 0.5 * row["loss_contrast"] + 0.1 * row["loss_matching"] + row["loss_segment"]
        assert row["loss"] == pytest.approx(row["loss_labels"] + others, rel=1e-5)
    settings = results(straight)["settings"]
    assert settings["encoder_settings"]["fusion"] == {
        "kind": "bottleneck",
        "tokens": 4,
        "blocks": 2,
    }
    assert settings["weights"] == {"contrast": 0.5, "matching": 0.1, "segment": 1.0}
    # Its encoder is fine-tuned again, with labels alone, and on the sound alone.
    again = ("--steps", 1, "--modalities", "audio")
    assert finetune("audio-video", films, tmp_path / "again", *again, encoder=straight) == 0
    assert "loss_labels" not in rows(tmp_path / "again")[0]


def test_a_weight_of_0_leaves_a_loss_out(films, tmp_path):
    none = ("--contrast-weight", 0, "--matching-weight", 0, "--segment-weight", 0)
    given = ("--objective", "avt", "--fusion", "late", "--fusion-blocks", 1, "--steps", 1)
    assert finetune("audio-video", films, tmp_path / "a", *given, *none) == 0
    assert finetune("audio-video", films, tmp_path / "b", *given, *none[:4]) == 0
    assert not [name for name in rows(tmp_path / "a")[0] if name.startswith("loss_")]
    row = rows(tmp_path / "b")[0]
    assert [name for name in row if name.startswith("loss_")] == ["loss_labels", "loss_segment"]
    assert row["loss_labels"] == losses(tmp_path / "a")[0]


def test_parts_of_a_batch_are_mixed_as_the_whole(films, tmp_path):
    """Labels alone compare no samples with each other."""
    found = []
    for parts in (1, 2):
        run = tmp_path / f"{parts}"
        given = ("--accumulate", parts, "--mixup", 0.5, "--cutmix", 1.0, "--jitter", 0.1)
        given += ("--steps", 1)
        assert finetune("audio-video", films, run, *given) == 0
        found.append(losses(run))
    assert found[0] == pytest.approx(found[1], rel=1e-5)


def test_masks_may_show_of_a_mixture_what_is_real_in_either(films, tmp_path, monkeypatch):
    seen, learn = [], WithAvtLosses.learn

    def watched(self, forward, x, given):
        seen.append(given)
        return learn(self, forward, x, given)

    monkeypatch.setattr(WithAvtLosses, "learn", watched)
    given = (*AVT, "--mixup", 0.5, "--steps", 2, "--warmup-steps", 1)
    assert finetune("audio-video", films, tmp_path / "run", *given) == 0
    n_keep = MaskSampler("activity", (1, 8, 8), SEGMENT_RATIO).n_keep
    tokens = TokenGrid((1, 128, 128), (1, 8, 8), n_keep)
    for of_step in seen:
        sides = of_step.facts.real["audio"].tolist()
        expected = torch.stack([tokens.valid(tuple(of_one)) for of_one in sides])
        assert torch.equal(of_step.valid["audio"].cpu(), expected)
    assert len(seen) == 2


def test_sounds_are_found_and_restored_without_bands_and_noise(films, tmp_path, monkeypatch):
    """But where shifts have brought them."""
    seen, found_in, learn = [], [], WithAvtLosses.learn
    losses_of = finetune_forms.avt_losses

    def watched(self, forward, x, given):
        seen.append((x["audio"], given.plain["audio"]))
        return learn(self, forward, x, given)

    def watched_losses(parts, weights, patch, sound, *rest):
        found_in.append(sound)
        return losses_of(parts, weights, patch, sound, *rest)

    monkeypatch.setattr(WithAvtLosses, "learn", watched)
    monkeypatch.setattr(finetune_forms, "avt_losses", watched_losses)
    small = PRESETS["audio-video"]["tiny"]
    for bands, noise in ((None, 0.0), (Bands(time=60, mel=40), 0.5)):
        preset = replace(small, bands=bands, jitter=Jitter(noise))
        monkeypatch.setitem(PRESETS["audio-video"], "tiny", preset)
        run = tmp_path / f"{noise}"
        assert finetune("audio-video", films, run, *AVT, "--mixup", 0.5, "--steps", 1) == 0
    (shifted, _), (changed, plain) = seen
    assert torch.equal(plain, shifted)
    assert torch.equal(found_in[1], plain)
    assert not torch.equal(changed, plain)


def test_two_of_one_file_or_mixture_are_not_compared(films, tmp_path, monkeypatch):
    seen, learn = [], WithAvtLosses.learn

    def watched(self, forward, x, given):
        seen.append(given.facts.files.tolist())
        return learn(self, forward, x, given)

    monkeypatch.setattr(WithAvtLosses, "learn", watched)
    given = (*AVT, "--mixup", 0.5, "--steps", 1, "--warmup-steps", 0, "--batch-size", 4)
    assert finetune("audio-video", films, tmp_path / "run", *given) == 0
    (files,) = seen
    assert [set(pair) for pair in files[::2]] == [set(pair) for pair in files[1::2]]
    assert len({number for pair in files for number in pair}) == 4
    row = rows(tmp_path / "run")[0]
    assert row["loss_contrast"] > 0  # with the two of the other mixture
    assert row["loss_matching"] > 0


WRONG = {
    ("--modalities", "ears"): "ears",
    ("--preset", "cav-mae", "--stride", 3): "--stride 3: frames are spread over the sound",
    ("--modalities", "audio", "--objective", "avt"): "--objective avt compares pictures with sound",
    ("--fusion", "late"): "--fusion late: is for --objective avt",
    ("--objective", "avt", "--fusion", "late", "--bottleneck", 2): "is for --fusion bottleneck",
    ("--objective", "avt", "--matching-weight", -1): "must be a number from 0 on, got -1",
    ("--objective", "avt", "--fusion-blocks", 0): "--fusion-blocks must be at least 1, got 0",
    ("--objective", "avt", "--batch-size", 1): "compare samples with each other, and 1 goes",
    ("--objective", "avt", "--batch-size", 2, "--mixup", 1): "but not two that are mixed, and 2 go",
    ("--modalities", "audio", "--cutmix", 1): "--cutmix 1.0: is for pictures and video",
    ("--modalities", "video", "--jitter", 0.1): "--jitter 0.1: is for sounds, and",
    ("--mask-ratio", 0.3): "is for audio, not audio-video",
    ("--pool", "class"): "have no class token to pool",
}


@pytest.mark.parametrize("given", WRONG)
def test_what_does_not_go_together_is_refused_before_any_work(given, films, tmp_path, capsys):
    assert finetune("audio-video", films, tmp_path / "run", *given) == 2
    assert WRONG[given] in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_encoders_that_do_not_fit_are_refused(pretrained, films, tmp_path, capsys):
    of_video = tmp_path / "encoder.safetensors"
    save_file({"x": torch.ones(1)}, of_video, {"format": "smnm-encoder-2", "modality": "video"})
    cases = (
        ((*AVT,), pretrained, "is of another objective"),
        (("--size", 48), pretrained, "takes video of (3, 16, 32, 32)"),
        ((), tmp_path / "none", "is not there"),
        ((), films, "holds no encoder.safetensors"),
        ((), of_video, "is of video, and audio-video was asked for"),
    )
    for given, encoder, said in cases:
        code = finetune("audio-video", films, tmp_path / "run", *given, encoder=encoder)
        assert code == 2
        assert said in capsys.readouterr().err
    assert finetune("image", films, tmp_path / "run", "--objective", "avt") == 2
    assert "--objective avt: is for audio-video, not image" in capsys.readouterr().err


def test_published_recipes():
    """CAV-MAE's script for VGGSound, and the structured-noise paper's Table A.15."""
    code, paper = (PRESETS["audio-video"][name] for name in ("cav-mae", "snm-cav-mae"))
    for preset in (code, paper):
        how = preset.optimisation
        assert (how.batch_size, how.epochs) == (48, 10)
        assert how.lr == pytest.approx(1e-4)
        assert preset.label_smoothing == 0.1
        assert preset.with_replacement
        assert (preset.clip.spread, preset.clip.video.frames) == (10, 1)
        assert (preset.clip.audio.frames, preset.views) == (1024, (10, 1))
    how = code.optimisation
    assert (how.optimizer, how.weight_decay, how.betas) == ("adam", 5e-7, (0.95, 0.999))
    assert how.halvings == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert (code.head_rate, code.mix) == (10, Mix(mixup=10, prob=0.5))
    assert (code.bands.time, code.bands.mel) == (192, 48)
    assert (code.jitter, paper.jitter) == (Jitter(noise=0.1), None)
    how = paper.optimisation
    assert (how.optimizer, how.weight_decay, how.warmup_epochs) == ("adamw", 0.05, 2)
    assert paper.mix == Mix(mixup=0.8, cutmix=1.0)
    assert paper.drop_path == 0.1


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    "given", [("--compile",), ("--precision", "bfloat16"), ("--checkpoint-activations",)]
)
@pytest.mark.parametrize("objective", [(), (*AVT, "--drop-path", 0.3)])
def test_ways_to_compute_change_losses_by_no_more_than_rounding(given, objective, films, tmp_path):
    for name, more in (("a", ()), ("b", given)):
        assert finetune("audio-video", films, tmp_path / name, *objective, *more, *STEPS) == 0
    ours, theirs = losses(tmp_path / "a"), losses(tmp_path / "b")
    assert ours == pytest.approx(theirs, rel=0.03 if "bfloat16" in given else 1e-4)
