"""MaskSpec and MSM-MAE from files to an encoder, in a small size."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import losses, write_samples
from safetensors import safe_open
from testing import made_once

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data.loader import SampleDataset
from smnm_kernels.train.data.modality import FixedView
from smnm_kernels.train.data.padding import Padding, TokenGrid
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.models.encoder_file import load_encoder, save_tensors
from smnm_kernels.train.models.pretrained import read_weights
from smnm_kernels.train.run.signals import StoppedBySignal
from smnm_kernels.train.tasks import finetune_options, finetune_presets, finetune_setup, measuring
from smnm_kernels.train.tasks.export import Export, export
from smnm_kernels.train.tasks.finetune import finetune
from smnm_kernels.train.tasks.finetune_options import Finetune
from smnm_kernels.train.tasks.measuring import Measuring
from smnm_kernels.train.tasks.options import Pretrain
from smnm_kernels.train.tasks.predict import Tuned, predictions
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.pretrain import pretrain
from smnm_kernels.train.tasks.pretrain_setup import set_up
from smnm_kernels.train.tasks.probing.features import FeatureSettings, Machine, features
from smnm_kernels.train.tasks.probing.frozen import find_frozen

LEAST = 12
NAMES = ("maskspec", "msm-mae")
NEW = ("maskspec", "snm-maskspec", "msm-mae", "msm-mae-m2d", "dwm")


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    """Seven sounds of 0.5 to 1.7 s, of several loudnesses and rates."""

    def make(folder):
        r = np.random.default_rng(0)
        for i in range(7):
            rate = (16000, 32000, 44100)[i % 3]
            samples = 0.1 * (1 + i % 4) * r.uniform(-1, 1, int(rate * (0.5 + 0.2 * i)))
            write_samples(folder / f"{i}.wav", samples, rate=rate)

    return made_once(tmp_path_factory, "sounds-of-front-ends", make)


def small(preset, frames=64, bands=32):
    """The same with a tiny model on a small input."""
    sizes = {"dim": 16, "depth": 1, "heads": 2}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    objective = replace(preset.objective, model=preset.objective.model.resized(**sizes, **decoder))
    how = replace(preset.optimisation, batch_size=4, steps=4, warmup_steps=1, checkpoint_every=2)
    return replace(
        preset,
        clip=replace(preset.clip, frames=frames, bands=bands),
        objective=objective,
        optimisation=how,
    )


@pytest.fixture(autouse=True)
def small_work(monkeypatch):
    monkeypatch.setattr(measuring, "_LEAST", LEAST)
    for name in NEW:
        monkeypatch.setitem(PRESETS["audio"], name, small(PRESETS["audio"][name]))


def job(sounds, out, preset="maskspec", **more):
    return Pretrain(
        modality="audio", data=sounds, out=out, preset=preset, workers=0, threads=1, **more
    )


def metadata(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def slow_statistics(clip, folder, seed, count, by_band, padding=False):
    """(mean, std) of all real values of the stream's first samples, one array of them all."""
    files = scan(folder, clip, {}, 1).usable
    dataset = SampleDataset(folder, files, clip, seed)
    frames = []
    for index in range(count):
        sample = dataset[index]
        x = sample.inputs["audio"][0, 0].double().numpy()
        if padding:
            real = clip.padded(files[sample.file_number]).get("audio", (1, len(x), 0))[1]
            x = x[:real]
        frames.append(x)
    values = np.concatenate(frames)
    axis = 0 if by_band else None
    return np.atleast_1d(values.mean(axis)), np.atleast_1d(values.std(axis))


@pytest.mark.parametrize("name", NAMES)
def test_statistics_are_those_of_the_first_samples(sounds, tmp_path, name, capsys):
    assert pretrain(job(sounds, tmp_path / "run", name, seed=3)) == 0
    clip = PRESETS["audio"][name].clip
    mean, std = slow_statistics(clip, sounds, 3, LEAST, by_band=name == "maskspec")
    config = json.loads((tmp_path / "run/config.json").read_text())["run"]
    assert config["measured"]["mean"] == pytest.approx(mean, rel=1e-5)
    assert config["measured"]["std"] == pytest.approx(std, rel=1e-5)
    assert "log-mel values of 12 excerpts: mean -" in capsys.readouterr().out
    # The encoder says by what its input was normalised, and of which front end it was.
    held = metadata(tmp_path / "run/encoder.safetensors")
    assert json.loads(held["mean"]) == config["measured"]["mean"]
    assert json.loads(held["scale"]) == config["measured"]["std"]
    kept = json.loads(held["preset"])["clip"]
    assert kept["front"]["rate"] == clip.front.rate
    assert kept["mean"] == config["measured"]["mean"]


def test_padding_counts_where_a_model_sees_it(sounds):
    clip = replace(PRESETS["audio"]["msm-mae"].clip, frames=128)
    files = scan(sounds, clip, {}, 1).usable
    found = {}
    for treatment in ("see", "hide"):
        its = replace(clip, padding=treatment)
        tokens = {"audio": TokenGrid((1, 128, 32), (1, 8, 2), 4)}
        padding = Padding(its, tokens, files)
        found[treatment] = Measuring(its, sounds, 0, 60)(
            files, range(len(files)), padding if padding.padded else None, 0
        )
        mean, std = slow_statistics(its, sounds, 0, LEAST, False, padding=treatment == "hide")
        assert found[treatment]["mean"] == pytest.approx(mean, rel=1e-5)
        assert found[treatment]["std"] == pytest.approx(std, rel=1e-5)
    assert found["see"] != found["hide"]


def test_a_band_that_never_changes_is_not_divided_by_nothing(sounds):
    wide = replace(PRESETS["audio"]["maskspec"].clip, bands=512)  # narrower than a frequency
    wide = replace(wide, front=replace(wide.front, jitter=(1, 1)))
    files = scan(sounds, wide, {}, 1).usable
    found = Measuring(wide, sounds, 0, 60)(files, range(len(files)), None, 0)
    silent = np.log(np.float32(1e-5))
    empty = np.isclose(found["mean"], silent, rtol=1e-5)
    assert empty.sum() > 20
    assert (np.array(found["std"])[empty] == 1).all()
    assert min(found["std"]) > 0.1


def test_a_run_goes_on_with_what_was_measured(sounds, tmp_path, monkeypatch):
    straight, halves = tmp_path / "straight", tmp_path / "halves"
    assert pretrain(job(sounds, straight)) == 0
    assert pretrain(job(sounds, halves, steps=2, schedule_steps=4)) == 0
    before = json.loads((halves / "config.json").read_text())["run"]["measured"]

    def again(self, *arguments):
        raise AssertionError("measured again")

    monkeypatch.setattr(Measuring, "__call__", again)
    assert pretrain(job(sounds, halves, steps=4, schedule_steps=4)) == 0
    assert losses(halves) == losses(straight)
    assert json.loads((halves / "config.json").read_text())["run"]["measured"] == before
    with pytest.raises(UsageError, match=r"preset is 'maskspec' there, 'msm-mae' was asked for"):
        pretrain(job(sounds, halves, "msm-mae"))


def test_the_draw_depends_on_the_seed_and_not_on_the_workers(sounds, monkeypatch):
    clip = PRESETS["audio"]["maskspec"].clip
    files = scan(sounds, clip, {}, 1).usable

    def found(seed, workers=0):
        return Measuring(clip, sounds, seed, 60)(files, range(len(files)), None, workers)

    assert found(0) != found(1)
    monkeypatch.setattr(measuring, "_WORTH_WORKERS", 10)
    alone = found(0)
    assert found(0, workers=1) == alone


def test_a_signal_ends_the_measuring(sounds, tmp_path, monkeypatch, capsys):
    class Stopped(measuring.StopSignal):
        def __enter__(self):
            self.number = 2
            return self

        def __exit__(self, *error):
            pass

    monkeypatch.setattr(measuring, "StopSignal", Stopped)
    clip = PRESETS["audio"]["maskspec"].clip
    files = scan(sounds, clip, {}, 1).usable
    with pytest.raises(StoppedBySignal):
        Measuring(clip, sounds, 0, 60)(files, range(len(files)), None, 0)
    assert pretrain(job(sounds, tmp_path / "run")) == 130
    assert not (tmp_path / "run/config.json").exists()
    monkeypatch.undo()
    assert "stopped by SIGINT before the first step" in capsys.readouterr().out


def test_other_presets_measure_nothing_and_old_runs_go_on(sounds, tmp_path, monkeypatch):
    run = tmp_path / "run"
    monkeypatch.setitem(PRESETS["audio"], "tiny", small(PRESETS["audio"]["tiny"], 64, 128))
    assert pretrain(job(sounds, run, "tiny", steps=2, schedule_steps=4)) == 0
    config = json.loads((run / "config.json").read_text())
    assert config["run"]["measured"] is None
    # As they were before there were other front ends.
    for name in ("measured", "clip_norm"):
        del config["run"][name]
    for name in ("front", "mean", "std"):
        del config["run"]["clip"][name]
    (run / "config.json").write_text(json.dumps(config))
    assert pretrain(job(sounds, run, "tiny", steps=4, schedule_steps=4)) == 0


GRIDS = {  # recipes: patches of (time, band), visible ones
    "maskspec": ((1, 62, 8), 124),
    "snm-maskspec": ((1, 62, 8), 124),
    "msm-mae": ((1, 13, 5), 16),
    "msm-mae-m2d": ((1, 38, 5), 47),
    "dwm": ((1, 38, 5), 47),
}


@pytest.mark.parametrize("name", NEW)
def test_sizes_are_those_of_the_methods(sounds, tmp_path, monkeypatch, name):
    monkeypatch.undo()  # the presets as they are
    setup = set_up(job(sounds, tmp_path / "run", name))
    kind = setup.kinds["audio"]
    assert (kind.grid, kind.n_keep) == GRIDS[name]
    model = setup.preset.objective.model
    assert (model.encoder.dim, model.encoder.depth, model.encoder.heads) == (768, 12, 12)
    how = setup.preset.optimisation
    rates = {"maskspec": 2e-3, "msm-mae": 1.5e-4 * 512 / 128, "msm-mae-m2d": 3e-4 * 2048 / 256}
    if name in rates:
        assert how.lr == pytest.approx(rates[name])
    if name == "dwm":
        steps = how.total_steps(2048)  # as many as epochs
        sampler = setup.masking(steps).samplers["audio"]
        shares = []
        for epoch in (0, 49, 51, 299):
            sampler.set_epoch(epoch)
            shares.append(sampler.settings.n_swapped / (190 - 47))
        # The codes' 50 epochs of pure chance, then 1 - (epoch / 300)^2 of the masked tokens.
        assert shares == pytest.approx([1, 1, 1 - (51 / 300) ** 2, 1 - (299 / 300) ** 2], abs=7e-3)


def test_gradients_are_clipped():
    from smnm_kernels.train.run.optimisation import optimizer_of

    model = torch.nn.Linear(3, 2)
    for longest in (None, 0.5):
        how = replace(PRESETS["audio"]["msm-mae-m2d"].optimisation, clip_norm=longest)
        optimizer = optimizer_of(model, how)
        for p in model.parameters():
            p.grad = torch.full_like(p, 3.0)
        optimizer.step()
        norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()
        assert norm == pytest.approx(3 * 8**0.5 if longest is None else 0.5, rel=1e-4)


@pytest.fixture(scope="session")
def trained(sounds, tmp_path_factory):
    """Small runs of each method, by its name."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(measuring, "_LEAST", LEAST)
            for name in NAMES:
                patch.setitem(PRESETS["audio"], name, small(PRESETS["audio"][name]))
                assert pretrain(job(sounds, folder / name, name)) == 0

    return made_once(tmp_path_factory, "runs-of-front-ends", make)


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_with_what_their_input_is_normalised_by(trained, sounds, tmp_path, name):
    run = trained / name
    measured = json.loads((run / "config.json").read_text())["run"]["measured"]
    begun = tmp_path / "begun"
    assert pretrain(job(sounds, begun, name, init=run, seed=5)) == 0
    config = json.loads((begun / "config.json").read_text())["run"]
    assert config["measured"] is None
    assert (config["clip"]["mean"], config["clip"]["std"]) == (measured["mean"], measured["std"])
    assert json.loads(metadata(begun / "encoder.safetensors")["mean"]) == measured["mean"]
    # With another spectrogram it is said.
    other = NAMES[name == "maskspec"]
    start = set_up(job(sounds, begun, other, init=run)).start
    assert "it was trained on another spectrogram than the preset's" in start.said


@pytest.mark.parametrize("name", NAMES)
def test_an_export_says_that_no_preprocessor_computes_its_input(trained, tmp_path, name, capsys):
    held = metadata(trained / name / "encoder.safetensors")
    for form in ("timm", "mae"):
        out = tmp_path / form
        assert export(Export(run=trained / name, to=form, out=out)) == 0
        assert "feature extractors do not compute this spectrogram" in capsys.readouterr().out
        assert not (out / "preprocessor_config.json").exists()
        rate = {"maskspec": 32000, "msm-mae": 16000}[name]
        assert f'"rate": {rate}' in (out / "README.md").read_text()
        weights = read_weights(out)
        assert list(weights.mean) == json.loads(held["mean"])
        assert list(weights.scale) == json.loads(held["scale"])
        assert weights.encoder.positions == "columns_rows"
        assert weights.clip["front"]["rate"] == rate


def test_probes_read_as_the_encoder_was_trained(trained):
    presets = PRESETS["audio"]
    found = find_frozen([trained / "maskspec", "none"], "audio", presets["tiny"], 0, {})
    for one in found:
        assert one.clip.front == presets["maskspec"].clip.front
        assert one.input.size == (1, 1, 64, 32)
        assert len(one.input.mean) == 32
    [other] = find_frozen([trained / "msm-mae"], "audio", presets["maskspec"], 0, {})
    assert other.clip.front == presets["msm-mae"].clip.front
    with pytest.raises(UsageError, match="give a pretrained encoder, and --against none"):
        find_frozen(["none"], "audio", presets["maskspec"], 0, {})


def test_features_see_the_encoders_spectrogram(trained, sounds, tmp_path):
    [frozen] = find_frozen([trained / "maskspec"], "audio", PRESETS["audio"]["tiny"], 0, {})
    files = scan(sounds, frozen.clip, {}, 1).usable
    settings = FeatureSettings((1,), pool="time")
    got = features(
        frozen, sounds, files, settings, Machine(torch.device("cpu")), tmp_path / "cache"
    )
    clip = frozen.clip
    for place in (0, 4):
        source = Source(sounds / files[place]["name"])
        raw = clip.read_fixed(source, files[place], FixedView())["audio"]
        mean, scale = (torch.tensor(v) for v in (frozen.input.mean, frozen.input.scale))
        with torch.no_grad():
            tokens = frozen.encoder(((raw - mean) / scale)[None])[0]
        by_column = tokens.view(4, 2 * 16).mean(0)  # 4 columns of time, 2 of bands, 16 wide
        assert torch.allclose(got.rows[place]["pooled.1"], by_column, atol=1e-5)


def test_mean_and_deviation_may_be_given(sounds, tmp_path):
    given = job(sounds, tmp_path / "run", "maskspec", mean=-7.1, std=4.2)
    setup = set_up(given)
    inputs = setup.preset.clip.inputs["audio"]
    assert (inputs.mean, inputs.scale) == ((-7.1,), (4.2,))
    assert pretrain(given) == 0
    assert json.loads((tmp_path / "run/config.json").read_text())["run"]["measured"] is None
    assert json.loads(metadata(tmp_path / "run/encoder.safetensors")["scale"]) == [4.2]
    of_audiomae = set_up(replace(given, preset="tiny")).preset.clip.inputs["audio"]
    assert of_audiomae.scale == (8.4,)
    for change, message in (
        ({"std": None}, "--mean -7.1: --std is missing"),
        ({"mean": None}, "--std 4.2: --mean is missing"),
        ({"std": 0.0}, "--std must be above 0, got 0.0"),
        ({"mean": float("nan")}, "--mean must be a number, got nan"),
        ({"modality": "video", "preset": "tiny"}, "--std 4.2: is for sound; video has none"),
    ):
        with pytest.raises(UsageError, match=message):
            set_up(replace(given, **change))


@pytest.fixture(scope="session")
def labelled(tmp_path_factory):
    """Two classes, loud and quiet, six sounds of three quarters of a second each."""

    def make(folder):
        r = np.random.default_rng(1)
        for split, each in (("train", 4), ("val", 2)):
            for name, loudness in (("loud", 0.5), ("quiet", 0.05)):
                (folder / split / name).mkdir(parents=True)
                for i in range(each):
                    samples = loudness * r.uniform(-1, 1, 24000)
                    write_samples(folder / split / name / f"{i}.wav", samples, rate=32000)

    return made_once(tmp_path_factory, "loud-and-quiet", make)


def tuning(labelled, out, encoder, preset, **more):
    return Finetune(
        modality="audio", data=labelled, out=out, encoder=str(encoder), preset=preset, steps=2,
        schedule_steps=4, warmup_steps=1, batch_size=4, workers=0, threads=1, **more,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("preset", "encoder"),
    [("maskspec-as", "maskspec"), ("maskspec-esc50", "maskspec"), ("tiny", "msm-mae")],
)
def test_fine_tuning_and_predictions_hear_what_the_encoder_heard(
    trained, labelled, tmp_path, preset, encoder
):
    run, out = trained / encoder, tmp_path / "tuned"
    assert finetune(tuning(labelled, out, run, preset)) == 0
    assert finetune(replace(tuning(labelled, out, run, preset), steps=4)) == 0
    config = json.loads((out / "config.json").read_text())["run"]
    theirs = json.loads(metadata(run / "encoder.safetensors")["mean"])
    clip = PRESETS["audio"][encoder].clip
    assert config["clip"]["front"]["rate"] == clip.front.rate
    held = metadata(out / "classifier.safetensors")
    if preset == "maskspec-esc50":  # by the training files alone, not by the encoder's
        train = labelled / "train"
        mean, std = slow_statistics(clip, train, 0, LEAST, by_band=True)
        assert config["measured"]["mean"] == pytest.approx(mean, rel=1e-5)
        assert config["measured"]["std"] == pytest.approx(std, rel=1e-5)
        assert (config["mean"], config["mask"], config["mask_kind"]) == (None, 4, "random")
        assert json.loads(held["mean"]) == config["measured"]["mean"] != theirs
        assert json.loads(held["scale"]) == config["measured"]["std"]
    else:
        assert config["measured"] is None
        assert json.loads(held["mean"]) == config["mean"] == theirs
    tuned = Tuned.load(out)
    assert tuned.clip.front == clip.front
    assert list(tuned.inputs["audio"].mean) == json.loads(held["mean"])
    assert predictions(tuned, labelled / "val").values.shape == (4, 2)


def test_an_encoder_from_before_hears_audiomaes_spectrogram(trained, labelled, tmp_path):
    """Whatever the preset has: its file says nothing of spectrograms, for there was only one."""
    old = tmp_path / "encoder.safetensors"
    weights = load_encoder(trained / "maskspec" / "encoder.safetensors")
    held = metadata(trained / "maskspec" / "encoder.safetensors")
    held |= {"mean": "[-4.2677393]", "scale": "[9.1379948]"}
    preset = json.loads(held["preset"])
    for name in ("front", "mean", "std"):
        del preset["clip"][name]
    save_tensors(weights, old, held | {"preset": json.dumps(preset)})
    options = tuning(labelled, tmp_path / "run", old, "maskspec-as")
    setup = finetune_setup.set_up(options, finetune_options.preset_of(options))
    assert setup.clip.front is None
    [frozen] = find_frozen([old], "audio", PRESETS["audio"]["maskspec"], 0, {})
    assert frozen.clip.front is None


def test_an_untrained_encoder_hears_what_is_measured(labelled, tmp_path, monkeypatch):
    preset = finetune_presets.PRESETS["audio"]["maskspec-as"]
    little = small(PRESETS["audio"]["maskspec"])
    preset = replace(preset, clip=little.clip, model=little.objective.model)
    monkeypatch.setitem(finetune_presets.PRESETS["audio"], "maskspec-as", preset)
    assert finetune(tuning(labelled, tmp_path / "run", "none", "maskspec-as")) == 0
    config = json.loads((tmp_path / "run/config.json").read_text())["run"]
    assert len(config["measured"]["mean"]) == 32


def test_sizes_of_fine_tuning_are_maskspecs():
    presets = finetune_presets.PRESETS["audio"]
    for name, grid, n_keep in (
        ("maskspec-as", (1, 62, 8), 296),
        ("maskspec-esc50", (1, 31, 8), 148),
        ("maskspec-scv2", (1, 6, 8), None),
    ):
        preset = presets[name]
        [given] = preset.clip.inputs.values()
        assert preset.model.encoder.grid(given.size) == grid
        assert (preset.mask and preset.mask.n_keep(grid)) == n_keep
        low = preset.optimisation.min_lr
        assert low == pytest.approx(1e-6)
