"""Recordings that end before the window does: their padding is never visible and in no loss."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import losses, pretrain, write_samples, write_sound
from hypothesis import given
from hypothesis import strategies as st

import smnm_kernels as smnm
from smnm_kernels.train.data import sound, spectrogram
from smnm_kernels.train.data.batches import Batches
from smnm_kernels.train.data.loader import BatchNumbers, SampleDataset
from smnm_kernels.train.data.modality import Normalisation
from smnm_kernels.train.data.padding import Padding, TokenGrid, with_quiet_padding
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import AUDIOMAE, MAE
from smnm_kernels.train.tasks.presets.audio import AUDIO
from smnm_kernels.train.tasks.reconstruction import reconstruction

TINY = AUDIO["tiny"].clip  # 512 frames of 128 bands
TOKENS = TokenGrid((1, 512, 128), (1, 32, 8), 51)


@pytest.fixture
def mixed(tmp_path):
    """Sounds of which some fill the window of 5.1 s."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i, seconds in enumerate((6.0, 3.0, 1.0, 6.5)):
        write_sound(folder / f"{i}.wav", seconds, hertz=300 + 50 * i)
    return folder


@given(
    real=st.integers(1, 512),
    n_keep=st.integers(1, 256),
)
def test_the_nearest_padding_counts_where_too_little_is_real(real, n_keep):
    tokens = replace(TOKENS, n_keep=n_keep)
    rows_real, rows_needed = -(-real // 16), -(-tokens.least // 8)
    valid = tokens.valid((1, real, 128)).view(32, 8)
    assert valid.all(1).sum() == valid.any(1).sum() == max(rows_real, rows_needed)
    assert valid[: max(rows_real, rows_needed)].all()
    assert valid.sum() >= n_keep
    # Of what counts, at least half the share is masked that is masked of a whole window.
    assert 1 - n_keep / int(valid.sum()) >= (1 - n_keep / 256) / 2 - 1e-9


def test_padding_along_several_axes():
    tokens = TokenGrid((4, 6, 8), (2, 3, 4), 1)
    assert tokens.valid((4, 6, 8)).all()
    valid = tokens.valid((2, 3, 8)).view(2, 3, 4)
    assert valid[0, :2].all()
    assert valid.sum() == 8


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_the_real_frames_are_those_that_are_read(rate):
    for seconds in (0.2, 0.8, 1.37, 5.0):
        n = int(seconds * rate)
        there = len(spectrogram.log_mel(sound.resample(np.zeros(n, np.float32), rate), 128))
        _, real, _ = TINY.padded({"samples": n, "rate": rate})["audio"]
        assert real in (there, there - 1)
    assert TINY.padded({"samples": 6 * rate, "rate": rate}) == {}
    seen = replace(TINY, padding="see")
    assert seen.padded({"samples": rate, "rate": rate}) == {}


def dataset_of(folder, clip=TINY):
    listing = scan(folder, clip, {}, 1)
    padding = Padding(clip, {"audio": TOKENS}, listing.usable)
    return SampleDataset(folder, listing.usable, clip, 0, padding)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_say_which_tokens_are_real(mixed, workers):
    dataset = dataset_of(mixed)
    assert dataset.padding.padded == {"audio": 2}
    assert dataset.padding.too_short == {"audio": 1}
    batches = Batches(dataset, BatchNumbers(0, 3, 4), workers, "cpu")
    for batch in batches:
        valid = batch.valid["audio"].view(4, 32, 8)
        for number, tokens, mel in zip(
            batch.file_numbers.tolist(), valid, batch.inputs["audio"], strict=True
        ):
            real = mel[0, 0].view(32, 16, 128).abs().sum((1, 2)) > 0
            least = -(-TOKENS.least // 8)
            assert tokens.all(1).sum() == max(int(real.sum()), least)
            assert (real.sum() < least) == (dataset.files[number]["samples"] == 16000)


def test_without_masks_tokens_are_valid_that_hold_anything_real(mixed):
    dataset = dataset_of(mixed)
    tokens = {"audio": replace(TOKENS, n_keep=None)}
    dataset.padding = Padding(TINY, tokens, dataset.files)
    (batch,) = Batches(dataset, BatchNumbers(0, 1, 4), 0, "cpu")
    valid = batch.valid["audio"].view(4, 32, 8)
    for number, real, tokens in zip(
        batch.file_numbers.tolist(), batch.real["audio"], valid, strict=True
    ):
        sides = TINY.padded(dataset.files[number]).get("audio", TOKENS.size)
        assert tuple(real.tolist()) == sides
        for row in range(32):  # of 16 frames
            assert tokens[row].tolist() == [16 * row < sides[1]] * 8
    assert dataset.padding.too_short == {}


@given(seed=st.integers(0, 2**32), data=st.data())
def test_quiet_padding_is_the_smallest_real_value(seed, data):
    x = torch.randn(3, 2, 4, 3, 5, generator=torch.Generator().manual_seed(seed))
    sides = st.tuples(*(st.integers(1, size) for size in x.shape[2:]))
    real = data.draw(st.lists(sides, min_size=3, max_size=3))
    quiet = with_quiet_padding(x, torch.tensor(real))
    for sample, before, (t, h, w) in zip(quiet, x, real, strict=True):
        expected = np.full(before.shape, before[:, :t, :h, :w].numpy().min())
        expected[:, :t, :h, :w] = before[:, :t, :h, :w]
        assert np.array_equal(sample, expected)


def quiet_with_a_burst(path, seconds, begin=0.5, end=1.0):
    """A quiet recording with one sound in it, much quieter than the zeros of a log-mel."""
    random = np.random.default_rng(0)
    samples = 1e-3 * random.standard_normal(int(seconds * 16000))
    burst = slice(int(begin * 16000), int(end * 16000))
    samples[burst] += 0.1 * random.standard_normal(burst.stop - burst.start)
    write_samples(path, samples)


def test_masks_that_look_at_the_input_take_no_padding_for_a_sound(tmp_path, monkeypatch, capsys):
    from smnm_kernels.kinds import ActivityKind
    from smnm_kernels.train.tasks import pretrain as task

    folder, looked_at, seen = tmp_path / "sounds", [], []
    folder.mkdir()
    quiet_with_a_burst(folder / "0.wav", 2.0)
    quiet_with_a_burst(folder / "1.wav", 6.0)
    draw, step = ActivityKind.draw, task.Pretraining.step

    def looking(self, sample_ids, seed, data=None, valid=None):
        if len(sample_ids):  # not what is tried before the run
            looked_at.append((self, data.cpu().clone(), valid.cpu().clone()))
        return draw(self, sample_ids, seed, data, valid)

    def stepping(self, forward, batch, clock):
        def noting(x, masks, valid):
            seen.append((x.cpu().clone(), batch.real["audio"].cpu()))
            return forward(x, masks, valid)

        return step(self, noting, batch, clock)

    monkeypatch.setattr(ActivityKind, "draw", looking)
    monkeypatch.setattr(task.Pretraining, "step", stepping)
    masks = ("--mask", "activity", "--mask-ratio", "0.4")
    run = (folder, "--out", tmp_path / "run", "--steps", "1", *masks)
    assert pretrain(*run, modality="audio") == 0
    assert "1 recording fills fewer than" in capsys.readouterr().out
    assert len(looked_at) > len(seen) == 1  # the picture's too
    short = 0
    for kind, data, valid in looked_at:
        rows = valid.view(-1, 32, 8).any(2)
        for found, some in zip(kind.segments(data, valid), rows, strict=True):
            if not some.all():
                short += 1
                assert some[13:].any()  # padding that counts as real
                assert found.max() == 1
                assert 2 <= int(found.argmax()) <= 4
                assert not found[8:].any()
    assert short >= 2
    zero = Normalisation(TINY.inputs["audio"])(torch.zeros(1, 1, 1, 1, 1))
    for (_, data, _), (x, real) in zip(looked_at, seen, strict=False):
        for given_data, given_x, (_, frames, _) in zip(data, x, real.tolist(), strict=True):
            assert frames in (198, 512)
            # The model sees what it always saw.
            assert torch.equal(given_data[..., :frames, :], given_x[..., :frames, :])
            assert (given_x[..., frames:, :] == zero).all()
            assert (given_data[..., frames:, :] == given_x[..., :frames, :].min()).all()


def small(settings):
    sides = {"dim": 48, "depth": 1, "heads": 3}
    sides |= {f"decoder_{name}": value for name, value in sides.items()}
    return build_model(settings.resized(**sides), (1, 1, 64, 64), 0)


@pytest.mark.parametrize("settings", [MAE, AUDIOMAE])
def test_the_loss_leaves_padding_out(settings):
    model = small(settings).eval()
    x = torch.randn(3, 1, 1, 64, 64)
    valid = torch.zeros(3, 4, 4, dtype=torch.bool)
    valid[0], valid[1, :2], valid[2, :3] = True, True, True
    valid = valid.flatten(1)
    masks = smnm.noise_masks(torch.arange(3), (1, 4, 4), "white", n_keep=4, valid=valid)
    pred = model.forward_decoder(model.forward_encoder(x, masks), masks)
    target = model.target(model.encoder.patchify(x)).gather(
        1, masks.ids_masked[..., None].expand_as(pred)
    )
    counts = valid.gather(1, masks.ids_masked)
    each = [(p - t)[c].square().mean() for p, t, c in zip(pred, target, counts, strict=True)]
    loss = model(x, masks, valid)
    torch.testing.assert_close(loss, sum(each) / 3)
    # What is masked and not valid changes nothing and gets no gradient.
    changed = x.unflatten(3, (4, 16)).unflatten(5, (4, 16)).clone()
    changed[:, 0, 0].permute(0, 1, 3, 2, 4)[~valid.view(3, 4, 4)] = 9.0
    assert model(changed.flatten(5, 6).flatten(3, 4), masks, valid) == loss
    loss.backward()
    slow = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    pred = model.forward_decoder(model.forward_encoder(x, masks), masks)
    sum(
        (p - t)[c].square().mean() / 3 for p, t, c in zip(pred, target, counts, strict=True)
    ).backward()
    fast = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(slow, fast)


def test_one_sample_at_a_time_has_the_same_loss():
    model = small(MAE).eval()
    x, valid = torch.randn(4, 1, 1, 64, 64), torch.arange(16).expand(4, -1) < 8
    masks = smnm.rbn_masks(torch.arange(4), (4, 4), n_keep=4, valid=valid)
    whole = model(x, masks, valid)
    parts = [
        model(x[i : i + 1], smnm.Masks(*(m[i : i + 1] for m in masks)), valid[i : i + 1])
        for i in range(4)
    ]
    torch.testing.assert_close(whole, sum(parts) / 4)
    everywhere = torch.ones_like(valid)
    torch.testing.assert_close(model(x, masks, everywhere), model(x, masks))


def test_the_picture_shows_padding_as_hidden():
    (given_,) = TINY.inputs.values()
    raw, restored = torch.rand(1, *given_.size), torch.rand(1, *given_.size)
    visible = torch.zeros(1, 1, 32, 8, dtype=torch.bool)
    valid = torch.arange(32).view(1, 1, 32, 1).expand(1, 1, 32, 8) < 20
    picture = np.asarray(reconstruction(raw, visible, restored, given_.picture_rows, valid)).astype(
        int
    )
    cut = raw[..., :320, :], visible[:, :, :20], restored[..., :320, :]
    alone = np.asarray(reconstruction(*cut, given_.picture_rows)).astype(int)
    for row in (0, 1, 2):  # padding does not decide the colours of the rest either
        shown, of_it = (one[4 + row * 132 :][:128, 84:-4] for one in (picture, alone))
        assert (shown[:, 320:] == 127).all()
        assert (shown[:, :320] == of_it).all()


def test_a_run_never_sees_padding_and_goes_on_as_if_never_stopped(
    mixed, tmp_path, capsys, monkeypatch
):
    from smnm_kernels.train.tasks import pretrain as task

    seen = []
    step = task.Pretraining.step

    def looking(self, forward, batch, clock):
        def noting(x, masks, valid):
            seen.append((masks.visible.clone(), valid.clone()))
            return forward(x, masks, valid)

        return step(self, noting, batch, clock)

    monkeypatch.setattr(task.Pretraining, "step", looking)
    run, stopped = tmp_path / "run", tmp_path / "stopped"
    more = ("--checkpoint-every", "2", "--schedule-steps", "4")
    assert pretrain(mixed, "--out", run, "--steps", "4", *more, modality="audio") == 0
    said = capsys.readouterr().out
    assert "2 recordings are shorter than 5.13 s; their padding is hidden from the model" in said
    assert (
        "1 recording fills fewer than 86 of 256 patches: padding next to the sound is treated as "
        "sound until 86 are filled" in said
    )
    assert len(seen) == 4
    for visible, valid in seen:
        assert not (visible & ~valid).any()
    assert not all(valid.all() for _, valid in seen)
    assert pretrain(mixed, "--out", stopped, "--steps", "2", *more, modality="audio") == 0
    assert pretrain(mixed, "--out", stopped, "--steps", "4", *more, modality="audio") == 0
    assert losses(stopped) == losses(run)
    assert (run / "reconstruction.png").exists()
    # As AudioMAE does: other losses, and another run.
    see = ("--padding", "see", *more)
    assert pretrain(mixed, "--out", run, "--steps", "4", *see, modality="audio") == 2
    assert "clip.padding is 'hide' there, 'see' was asked for" in capsys.readouterr().err
    monkeypatch.undo()
    assert pretrain(mixed, "--out", tmp_path / "see", "--steps", "1", *see, modality="audio") == 0
    assert "their padding is seen as if it were sound" in capsys.readouterr().out
    assert losses(tmp_path / "see")[0] != losses(run)[0]


def test_recordings_that_fill_the_window_train_as_ever(tmp_path):
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i in range(2):
        write_sound(folder / f"{i}.wav", 5.5, hertz=300 + 50 * i)
    for padding in ("hide", "see"):
        run = (folder, "--out", tmp_path / padding, "--steps", "2", "--padding", padding)
        assert pretrain(*run, modality="audio") == 0
    assert losses(tmp_path / "hide") == losses(tmp_path / "see")


def test_a_run_from_before_is_refused_by_name(mixed, tmp_path, capsys):
    run = tmp_path / "run"
    assert pretrain(mixed, "--out", run, "--steps", "1", modality="audio") == 0
    config = json.loads((run / "config.json").read_text())
    del config["run"]["clip"]["padding"]
    (run / "config.json").write_text(json.dumps(config))
    assert pretrain(mixed, "--out", run, "--steps", "2", modality="audio") == 2
    assert "clip.padding is None there, 'hide' was asked for" in capsys.readouterr().err


def test_what_is_not_audio_has_no_padding(capsys, tmp_path):
    (tmp_path / "data").mkdir()
    call = (tmp_path / "data", "--out", tmp_path / "run", "--padding", "see")
    assert pretrain(*call) == 2
    assert "--padding see: is for audio; video has none" in capsys.readouterr().err


def test_a_kind_that_cannot_leave_padding_out_is_refused(mixed, tmp_path, capsys, monkeypatch):
    from smnm_kernels.kinds import NoiseKind

    monkeypatch.setattr(NoiseKind, "takes_valid", False)
    call = (mixed, "--out", tmp_path / "run", "--steps", "1", "--mask", "random")
    assert pretrain(*call, modality="audio") == 2
    said = capsys.readouterr().err
    assert "--mask random: cannot leave out the padding of 2 short files" in said
    assert pretrain(*call, "--padding", "see", modality="audio") == 0


@pytest.mark.parametrize("preset", ["audiomae", "snm-audio"])
def test_published_recipes_see_padding(preset):
    assert AUDIO[preset].clip.padding == "see"
    assert AUDIO["base"].clip.padding == "hide"
