"""Frozen features: the mean of what an encoder gives, and what stays on disk."""

import json
import os
import shutil
import tarfile
import wave
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import write_picture, write_sound
from PIL import Image
from safetensors.torch import save_file

from smnm_kernels.errors import UsageError
from smnm_kernels.train.data import views as views_module
from smnm_kernels.train.data.modality import FixedView, Normalisation
from smnm_kernels.train.data.scan import scan
from smnm_kernels.train.data.source import Source
from smnm_kernels.train.models.encoder_file import encoder_metadata
from smnm_kernels.train.models.formats.state import digest_of
from smnm_kernels.train.models.mae import build_model
from smnm_kernels.train.models.settings import VIDEOMAE
from smnm_kernels.train.run.signals import StoppedBySignal
from smnm_kernels.train.tasks.presets import PRESETS
from smnm_kernels.train.tasks.probing import features as module
from smnm_kernels.train.tasks.probing.cache import FeatureCache, content_key
from smnm_kernels.train.tasks.probing.features import FeatureSettings, Machine, features
from smnm_kernels.train.tasks.probing.frozen import find_frozen

CPU = Machine(torch.device("cpu"), batch_size=4)


def untrained(modality, seed=0, **overrides):
    [frozen] = find_frozen(["none"], modality, PRESETS[modality]["tiny"], seed, overrides)
    return frozen


@pytest.fixture(scope="module")
def image_encoder():
    return untrained("image")


def settings(frozen, **given):
    return FeatureSettings(**({"layers": (len(frozen.encoder.blocks),)} | given))


def pictures(folder, n=6):
    folder.mkdir()
    for i in range(n):
        write_picture(folder / f"{i}.png", i)
    return folder


def listed(folder, frozen):
    return scan(folder, frozen.clip, None, 1).usable


def read(folder, frozen, record, view=FixedView()):  # noqa: B008
    raw = frozen.clip.read_fixed(Source(folder / record["name"]), record, view)[frozen.input_name]
    return Normalisation(frozen.input)(raw[None])


def test_it_is_the_mean_of_tokens_and_views(tmp_path, image_encoder):
    frozen = image_encoder
    folder = pictures(tmp_path / "data", 3)
    files = listed(folder, frozen)
    depth = len(frozen.encoder.blocks)
    asked = settings(frozen, layers=(0, 1, depth), crops=2, tokens=True)
    found = features(frozen, folder, files, asked, CPU, tmp_path / "cache")
    for place, record in enumerate(files):
        views = [read(folder, frozen, record, FixedView(0, 1, i, 2)) for i in range(2)]
        expected = torch.cat([frozen.encoder(x) for x in views]).mean((0, 1))
        assert torch.allclose(found.matrix(depth, [place])[0], expected, atol=1e-5)
        tokens = torch.cat([frozen.encoder(x)[0] for x in views])
        assert torch.allclose(found.tokens(depth, [place])[0].float(), tokens, atol=5e-3)
        embedded = [frozen.encoder.embed(frozen.encoder.patchify(x), None) for x in views]
        skip = frozen.encoder.class_tokens
        mean = torch.cat(embedded)[:, skip:].mean((0, 1))
        assert torch.allclose(found.matrix(0, [place])[0], mean, atol=1e-5)
        first = torch.cat([frozen.encoder.blocks[0](x) for x in embedded])[:, skip:].mean((0, 1))
        assert torch.allclose(found.matrix(1, [place])[0], first, atol=1e-5)
    by_class = features(
        frozen, folder, files, settings(frozen, pool="class"), CPU, tmp_path / "cache"
    )
    x = read(folder, frozen, files[1])
    token = frozen.encoder.encode(frozen.encoder.patchify(x), None)[0, 0]
    assert torch.allclose(by_class.matrix(depth, [1])[0], token, atol=1e-5)


def test_padding_never_reaches_the_encoder(tmp_path):
    hidden, seen = untrained("audio"), untrained("audio", padding="see")
    folder = tmp_path / "sounds"
    folder.mkdir()
    for i, seconds in enumerate((6.0, 1.0, 6.0, 0.5)):
        write_sound(folder / f"{i}.wav", seconds, hertz=300 + 100 * i)
    files = listed(folder, hidden)
    depth, (_, rows, bands) = len(hidden.encoder.blocks), hidden.encoder.grid
    found = features(hidden, folder, files, settings(hidden, tokens=True), CPU, tmp_path / "cache")
    frames = hidden.clip.padded(files[1])["audio"][1]
    real = -(-frames // (hidden.clip.frames // rows)) * bands
    assert [len(t) for t in found.tokens(depth, [0, 1])] == [rows * bands, real]
    x = read(folder, hidden, files[1])
    x[:, :, :, frames:] = float("nan")  # what an encoder that saw padding would carry on
    x[:, :, :, frames : real // bands * (hidden.clip.frames // rows)] = read(
        folder, hidden, files[1]
    )[:, :, :, frames : real // bands * (hidden.clip.frames // rows)]
    expected = hidden.encoder(x, torch.arange(real)[None]).mean(1)[0]
    assert torch.allclose(found.matrix(depth, [1])[0], expected, atol=1e-5)
    in_time = features(
        hidden, folder, files, settings(hidden, pool="time"), CPU, tmp_path / "cache"
    )
    tokens = hidden.encoder(x, torch.arange(real)[None])[0]
    columns = tokens.view(-1, bands, tokens.shape[1]).mean(0).flatten()
    assert torch.allclose(in_time.matrix(depth, [1])[0], columns, atol=1e-5)

    as_sound = features(seen, folder, files, settings(seen), CPU, tmp_path / "cache")
    whole = seen.encoder(read(folder, seen, files[1])).mean(1)[0]
    assert torch.allclose(as_sound.matrix(depth, [1])[0], whole, atol=1e-5)


def test_what_is_there_is_not_computed_again(tmp_path, image_encoder, monkeypatch):
    frozen = image_encoder
    folder = pictures(tmp_path / "data")
    files = listed(folder, frozen)
    [depth] = settings(frozen).layers

    def ask(files, folder=folder):
        return features(frozen, folder, files, settings(frozen), CPU, tmp_path / "cache")

    first = ask(files).matrix(depth, range(6))
    opened = []
    read_view = views_module.Views.read_view

    def reading(self, number, view):
        opened.append(self.files[number]["name"])
        return read_view(self, number, view)

    monkeypatch.setattr(views_module.Views, "read_view", reading)
    assert torch.equal(ask(files).matrix(depth, range(6)), first)
    assert opened == []

    moved = tmp_path / "moved"
    shutil.move(folder, moved)
    write_picture(moved / "2.png", 77)
    (moved / "5.png").rename(moved / "x.png")
    changed = ask(listed(moved, frozen), moved).matrix(depth, range(6))
    assert opened == ["2.png"]
    assert torch.equal(changed[[0, 1, 3, 4, 5]], first[[0, 1, 3, 4, 5]])
    assert not torch.equal(changed[2], first[2])

    opened.clear()
    other = untrained("image", seed=1)
    features(other, moved, listed(moved, other), settings(other), CPU, tmp_path / "cache")
    assert len(opened) == 6


def test_one_that_was_stopped_goes_on(tmp_path, image_encoder, monkeypatch):
    frozen = image_encoder
    folder = pictures(tmp_path / "data", 11)
    files, asked = listed(folder, frozen), settings(frozen)
    whole = features(frozen, folder, files, asked, CPU, tmp_path / "whole")

    computed = []
    features_of = module.features_of

    def dying(encoder, x, *rest):
        if len(computed) == 2:
            raise KeyboardInterrupt
        computed.append(len(x))
        return features_of(encoder, x, *rest)

    monkeypatch.setattr(module, "_SHARD_SECONDS", 0.0)
    monkeypatch.setattr(module, "features_of", dying)
    with pytest.raises(KeyboardInterrupt):
        features(frozen, folder, files, asked, CPU, tmp_path / "killed")
    assert computed == [4, 4]
    computed.clear()
    again = features(frozen, folder, files, asked, CPU, tmp_path / "killed")
    assert computed == [3]
    assert torch.equal(again.matrix(4, range(11)), whole.matrix(4, range(11)))


def test_a_signal_keeps_what_is_done(tmp_path, image_encoder, monkeypatch, capsys):
    import os
    import signal

    frozen = image_encoder
    folder = pictures(tmp_path / "data", 9)
    files, asked = listed(folder, frozen), settings(frozen)
    features_of = module.features_of

    def told_to_stop(*arguments):
        os.kill(os.getpid(), signal.SIGTERM)
        return features_of(*arguments)

    monkeypatch.setattr(module, "features_of", told_to_stop)
    with pytest.raises(StoppedBySignal):
        features(frozen, folder, files, asked, CPU, tmp_path / "cache")
    assert "features of 4 of 9 files are kept" in capsys.readouterr().out
    [folder] = (tmp_path / "cache").iterdir()
    assert (
        len(module.FeatureCache(tmp_path / "cache", module._way(frozen, asked, CPU.device)).keys())
        == 4
    )


def test_a_file_that_fails_is_named_and_left_out(tmp_path, image_encoder, capsys):
    frozen = image_encoder
    folder = pictures(tmp_path / "data")
    files = listed(folder, frozen)
    (folder / "3.png").write_bytes(b"gone")
    found = features(frozen, folder, files, settings(frozen, crops=2), CPU, tmp_path / "cache")
    assert sorted(found.rows) == [0, 1, 2, 4, 5]
    assert list(found.failed) == ["3.png"]
    assert "does not decode" in found.failed["3.png"]


def test_files_of_the_same_content_are_computed_once(tmp_path, image_encoder):
    frozen = image_encoder
    folder = pictures(tmp_path / "data", 2)
    shutil.copy(folder / "0.png", folder / "2.png")
    found = features(
        frozen, folder, listed(folder, frozen), settings(frozen), CPU, tmp_path / "cache"
    )
    assert torch.equal(found.matrix(4, [0]), found.matrix(4, [2]))
    assert len(list((tmp_path / "cache").glob("*/shard-*"))) == 1


def beeps(folder, hertz):
    """Recordings of one length that differ in their middle alone."""
    folder.mkdir(exist_ok=True)
    for i, one in enumerate(hertz):
        sound = np.zeros((6 * 16_000, 1), dtype=np.int16)
        time = np.arange(16_000) / 16_000
        sound[40_000:56_000, 0] = 20_000 * np.sin(2 * np.pi * one * time)
        with wave.open(str(folder / f"{i}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes(sound.tobytes())
    return folder


def test_files_with_equal_ends_have_features_of_their_own(tmp_path):
    frozen = untrained("audio")
    folder = beeps(tmp_path / "data", (300, 2000))
    files = listed(folder, frozen)
    assert files[0]["digest"] == files[1]["digest"]
    arguments = (settings(frozen), CPU, tmp_path / "cache")
    found = features(frozen, folder, files, *arguments)
    assert not torch.allclose(found.matrix(4, [0]), found.matrix(4, [1]))
    beeps(folder, (2000, 300))  # of the same size, and with the same ends
    swapped = features(frozen, folder, files, *arguments)
    assert torch.equal(swapped.matrix(4, [1, 0]), found.matrix(4, [0, 1]))


def test_members_of_a_tar_are_found_by_their_own_bytes(tmp_path, image_encoder):
    folder = pictures(tmp_path / "data", 3)
    whole = [content_key(Source(folder / f"{i}.png")) for i in range(3)]
    assert len(set(whole)) == 3
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        for i in range(3):
            shard.add(folder / f"{i}.png", f"{i}.png")
    with tarfile.open(tmp_path / "shard.tar") as shard:
        for member, key in zip(shard, whole, strict=True):
            source = Source(tmp_path / "shard.tar", member.offset_data, member.size)
            assert content_key(source) == key


def test_a_file_that_is_gone_is_named_and_left_out(tmp_path, image_encoder):
    frozen = image_encoder
    folder = pictures(tmp_path / "data", 3)
    files = listed(folder, frozen)
    (folder / "1.png").unlink()
    found = features(frozen, folder, files, settings(frozen), CPU, tmp_path / "cache")
    assert sorted(found.rows) == [0, 2]
    assert list(found.failed) == ["1.png"]


def test_others_may_write_into_a_cache_that_is_opened(tmp_path):
    cache = FeatureCache(tmp_path, {"a": 1})
    writing, left = (cache.path / f".shard-{n}.safetensors.{n}.tmp" for n in (1, 2))
    for path in (writing, left):
        path.write_bytes(b"a part")
    os.utime(left, (0, 0))
    FeatureCache(tmp_path, {"a": 1})
    assert writing.exists()
    assert not left.exists()


def test_a_damaged_shard_is_named(tmp_path, image_encoder):
    frozen = image_encoder
    folder = pictures(tmp_path / "data", 2)
    arguments = (frozen, folder, listed(folder, frozen), settings(frozen), CPU, tmp_path / "cache")
    features(*arguments)
    [shard] = (tmp_path / "cache").glob("*/shard-*")
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"shard-.* is damaged"):
        features(*arguments)


def test_products_in_bfloat16(tmp_path, image_encoder):
    frozen = image_encoder
    folder = pictures(tmp_path / "data", 3)
    files = listed(folder, frozen)
    whole, half = (
        features(
            frozen, folder, files, settings(frozen, precision=precision), CPU, tmp_path / "cache"
        ).matrix(4, range(3))
        for precision in ("float32", "bfloat16")
    )
    assert half.dtype == torch.float32
    assert 0 < (whole - half).abs().max() < 0.1


def test_the_digest_is_of_every_weight(image_encoder):
    import copy

    other = copy.deepcopy(image_encoder.encoder)
    assert digest_of(other.state_dict()) == image_encoder.digest
    with torch.no_grad():
        other.blocks[-1].mlp.fc2.bias[-1] += 1e-3
    assert digest_of(other.state_dict()) != image_encoder.digest
    assert digest_of(other.bfloat16().state_dict()) != digest_of(other.half().state_dict())


def test_none_is_like_the_first_encoder_that_is_something(tmp_path):
    """In architecture, clips and normalisation; positions that came with weights become a rule."""
    settings = VIDEOMAE.resized(
        dim=32, depth=2, heads=2, decoder_dim=16, decoder_depth=1, decoder_heads=2
    )
    given = replace(settings.encoder, patch=(2, 8, 8), class_token=False, positions="given")
    model = build_model(replace(settings, encoder=given), (3, 4, 32, 32), seed=5).encoder
    clip = {"clip": {"frames": 4, "size": 32, "stride": 3, "pixel_aspect": "ignore"}}
    more = {"mean": "[0.1, 0.2, 0.3]", "scale": "[0.4, 0.5, 0.6]", "preset": json.dumps(clip)}
    path = tmp_path / "encoder.safetensors"
    save_file(model.state_dict(), str(path), encoder_metadata(model, modality="video", **more))
    preset = PRESETS["video"]["base"]
    none, some, again, other = find_frozen(
        ["none", path, "none", path], "video", preset, 0, {"stride": None}
    )
    assert none.digest == again.digest != some.digest == other.digest
    for frozen in (none, some):
        assert frozen.encoder.input_size == (3, 4, 32, 32)
        assert (frozen.clip.frames, frozen.clip.size, frozen.clip.stride) == (4, 32, 3)
        assert frozen.clip.pixel_aspect == "ignore"
        assert frozen.input.mean == (0.1, 0.2, 0.3)
        assert frozen.input.scale == (0.4, 0.5, 0.6)
    assert none.encoder.pos_embed.abs().max() > 0.9
    start = build_model(
        replace(settings, encoder=replace(given, positions="axes")), (3, 4, 32, 32), seed=0
    )
    assert none.digest == digest_of(start.encoder.state_dict())
    [longer] = find_frozen([path], "video", preset, 0, {"frames": 8, "stride": 1})
    assert longer.encoder.input_size == (3, 8, 32, 32)
    assert longer.clip.stride == 1


def test_grey_and_colour_pictures_go_together(tmp_path, image_encoder):
    frozen = image_encoder
    folder = tmp_path / "data"
    folder.mkdir()
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(folder / "a.png")
    Image.fromarray(np.zeros((40, 40, 3), dtype=np.uint8)).save(folder / "b.png")
    found = features(
        frozen, folder, listed(folder, frozen), settings(frozen), CPU, tmp_path / "cache"
    )
    assert torch.allclose(found.matrix(4, [0]), found.matrix(4, [1]), atol=1e-6)
