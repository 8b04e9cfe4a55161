"""What `--encoder` refuses: each with a line that names the file and the cause."""

import json
import os
import pickle
import random

import pytest
import torch
from families import sized
from other_models import FAMILY, SIZE, file_of, found, ours
from safetensors.torch import save_file

from smnm_kernels.errors import UsageError
from smnm_kernels.train.models.encoder_file import encoder_metadata
from smnm_kernels.train.models.formats import encoder_state, to_hf_videomae, to_mae
from smnm_kernels.train.models.mae import build_model

HF_CONFIG = {
    "model_type": "videomae",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 1,
    "intermediate_size": 256,
    "image_size": [16, 24],
    "patch_size": 8,
    "num_frames": 4,
    "use_mean_pooling": False,
}


def mae_state():
    return to_mae(encoder_state(ours("image").encoder), (1, 8, 8))


def hf_folder(path, change=None, **config):
    path.mkdir()
    state = to_hf_videomae(encoder_state(ours("video").encoder), (2, 8, 8))
    (path / "config.json").write_text(json.dumps(HF_CONFIG | config))
    save_file(change(state) if change else state, path / "model.safetensors")


def saved(state, path):
    torch.save(state, path)


def cut(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


class RunsCode:
    def __reduce__(self):
        return os.system, ("touch /tmp/smnm_was_here",)


def not_there(path):
    pass


def empty_file(path):
    path.write_bytes(b"")


def text_file(path):
    path.write_text("not a checkpoint, a few words\n" * 3)


def cut_torch_checkpoint(path):
    saved(mae_state(), path)
    cut(path)


def cut_legacy_checkpoint(path):
    torch.save(mae_state(), path, _use_new_zipfile_serialization=False)
    cut(path)


def cut_safetensors(path):
    save_file(mae_state(), path)
    cut(path)


def pickle_with_code(path):
    torch.save({"model": mae_state(), "extra": RunsCode()}, path)


def plain_pickle_with_code(path):
    path.write_bytes(pickle.dumps({"model": RunsCode()}, protocol=2))


def no_tensors(path):
    saved({"epoch": 3, "model": {"lr": 0.1}}, path)


def names_of_a_resnet(path):
    saved({"conv1.weight": torch.zeros(8, 3, 7, 7), "layer1.0.bn1.weight": torch.ones(8)}, path)


def wrong_prefix(path):
    saved({f"student.{name}": t for name, t in mae_state().items()}, path)


def missing_block(path):
    saved({n: t for n, t in mae_state().items() if not n.startswith("blocks.0.")}, path)


def missing_bias(path):
    saved({n: t for n, t in mae_state().items() if n != "blocks.1.mlp.fc2.bias"}, path)


def missing_attention_bias(path):
    saved({n: t for n, t in mae_state().items() if n != "blocks.0.attn.qkv.bias"}, path)


def missing_positions(path):
    saved({n: t for n, t in mae_state().items() if n != "pos_embed"}, path)


def layer_scale(path):
    saved(mae_state() | {"blocks.0.ls1.gamma": torch.ones(64)}, path)


def register_tokens(path):
    saved(mae_state() | {"reg_token": torch.ones(1, 4, 64)}, path)


def two_tensors_of_other_widths(path):
    saved(mae_state() | {"blocks.1.norm1.weight": torch.ones(32)}, path)


def positions_of_no_square(path):
    saved(mae_state() | {"pos_embed": torch.zeros(1, 15, 64)}, path)


def a_width_without_heads(path):
    settings = sized(FAMILY["image"], (1, 8, 8), 24)
    file_of(build_model(settings, SIZE["image"], 0), "image", path)


def not_finite(path):
    state = mae_state()
    state["norm.bias"][3] = float("nan")
    saved(state, path)


def of_another_modality(path):
    file_of(ours("audio"), "audio", path)


def a_video_model(path):
    file_of(ours("video"), "video", path)


def of_grey_pictures(path):
    model = build_model(ours("image").settings, (4, 1, 32, 32), 0)
    file_of(model, "image", path)


def our_file_of_another_modality(path):
    model = ours("audio").encoder
    more = dict(modality="audio", mean="[0]", scale="[1]")
    save_file(model.state_dict(), path, encoder_metadata(model, **more))


def our_file_without_its_data(path):
    model = ours("image").encoder
    save_file(model.state_dict(), path, encoder_metadata(model))


def our_file_of_a_later_format(path):
    model = ours("image").encoder
    save_file(model.state_dict(), path, encoder_metadata(model) | {"format": "smnm-encoder-9"})


def our_file_cut(path):
    our_file_of_another_modality(path)
    cut(path)


def our_checkpoint(path):
    saved({"format": 3, "model": ours("image").state_dict()}, path)


def folder_without_weights(path):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(HF_CONFIG))


def folder_with_two_files(path):
    path.mkdir()
    saved(mae_state(), path / "a.pth")
    saved(mae_state(), path / "b.pth")


def unfinished_run(path):
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "last.pt").write_bytes(b"PK")


def config_that_is_no_json(path):
    hf_folder(path)
    (path / "config.json").write_text("{")


def config_of_another_model(path):
    hf_folder(path, model_type="vivit")


def config_without_a_type(path):
    hf_folder(path)
    (path / "config.json").write_text(json.dumps({"hidden_size": 64}))


def config_of_another_width(path):
    hf_folder(path, hidden_size=128)


def config_of_another_depth(path):
    hf_folder(path, num_hidden_layers=3)


def config_of_another_activation(path):
    hf_folder(path, hidden_act="relu")


def config_with_a_norm_that_is_missing(path):
    hf_folder(path, lambda state: {n: t for n, t in state.items() if ".layernorm." not in n})


def config_of_another_patch(path):
    hf_folder(path, patch_size=4)


def config_with_heads_that_do_not_divide(path):
    hf_folder(path, num_attention_heads=5)


def config_of_a_size_that_patches_do_not_fill(path):
    hf_folder(path, image_size=[17, 24])


def config_with_words_for_sizes(path):
    hf_folder(path, num_frames="many")


def keys_missing_in_hf(path):
    hf_folder(
        path, lambda state: {n: t for n, t in state.items() if "1.attention.attention.key" not in n}
    )


def index_of_missing_shards(path):
    hf_folder(path)
    (path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def index_of_a_file_elsewhere(path):
    hf_folder(path)
    (path / "model.safetensors").unlink()
    index = {"weight_map": {"a": "../../secret.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))


def timm_of_another_family(path):
    path.mkdir()
    save_file(mae_state(), path / "model.safetensors")
    (path / "config.json").write_text(json.dumps({"architecture": "swin_base_patch4_window7_224"}))


def timm_of_another_size(path):
    path.mkdir()
    save_file(mae_state(), path / "model.safetensors")
    config = {
        "architecture": "vit_base_patch16_224",
        "pretrained_cfg": {"input_size": [3, 224, 224]},
    }
    (path / "config.json").write_text(json.dumps(config))


def timm_with_another_activation(path):
    path.mkdir()
    save_file(mae_state(), path / "model.safetensors")
    config = {"architecture": "vit_base_patch16_224", "model_args": {"act_layer": "silu"}}
    (path / "config.json").write_text(json.dumps(config))


#: (what is made, what the line says). All are asked for pictures, but those of transformers.
TABLE = [
    (not_there, "is not there"),
    (empty_file, "x: is empty"),
    (text_file, "x: is neither a safetensors file nor a torch checkpoint"),
    (cut_torch_checkpoint, "x: is a cut or damaged torch checkpoint"),
    (cut_legacy_checkpoint, "x: is a cut or damaged torch checkpoint"),
    (cut_safetensors, "x: is a cut or damaged safetensors file"),
    (pickle_with_code, "x: is not loaded, for it holds more than weights: posix.system"),
    (plain_pickle_with_code, "x: is not loaded, for it holds more than weights: posix.system"),
    (no_tensors, "x: holds no tensors"),
    (names_of_a_resnet, "timm's ViT.*got conv1.weight, layer1.0.bn1.weight"),
    (wrong_prefix, "its names must be .*got student.cls_token"),
    (missing_block, "got none for blocks.0.norm1.weight"),
    (missing_bias, "got none for blocks.1.mlp.fc2.bias"),
    (missing_attention_bias, "got none for blocks.0.attn.qkv.bias"),
    (missing_positions, r"lack positions \(pos_embed\)"),
    (layer_scale, "unknown blocks.0.ls1.gamma"),
    (register_tokens, "unknown reg_token"),
    (two_tensors_of_other_widths, r"blocks.1.norm1.weight must have the shape \(64,\)"),
    (positions_of_no_square, "14 positions are of no square"),
    (a_width_without_heads, "how many heads its width of 24 has"),
    (not_finite, "x: norm.bias holds values that are not finite"),
    (of_another_modality, "is of audio, and image was asked for"),
    (a_video_model, "is of video, and image was asked for"),
    (of_grey_pictures, "takes inputs of 4 channels, and image has 3"),
    (our_file_of_another_modality, "is of audio, and image was asked for"),
    (our_file_without_its_data, "x: does not say what it was trained on"),
    (our_file_of_a_later_format, "of format 'smnm-encoder-9'"),
    (our_file_cut, "x: is a cut or damaged safetensors file"),
    (our_checkpoint, "is a checkpoint of a run of smnm; give the run's folder"),
    (folder_without_weights, "holds no weights: none of model.safetensors"),
    (folder_with_two_files, "holds several files of weights: a.pth, b.pth"),
    (unfinished_run, "is a run without encoder.safetensors, which is written when it is finished"),
    (config_that_is_no_json, "config.json: is no JSON"),
    (config_of_another_model, "config.json: is of a model of type vivit; there are vit, vit_mae"),
    (config_without_a_type, "config.json: names neither a model_type"),
    (config_of_another_width, "its configuration has hidden_size 128, its weights 64"),
    (config_of_another_depth, "its configuration has num_hidden_layers 3, its weights 2"),
    (config_of_another_activation, "config.json: has hidden_act relu, and gelu is needed"),
    (config_with_a_norm_that_is_missing, "a norm after the last block, its weights none"),
    (config_of_another_patch, "its configuration has patch_size 4, its weights 8"),
    (config_with_heads_that_do_not_divide, "heads must divide dim 64, got 5"),
    (config_of_a_size_that_patches_do_not_fill, "17 along H is not a multiple of patch 8"),
    (config_with_words_for_sizes, "num_frames must be a whole number above 0, got 'many'"),
    (keys_missing_in_hf, "layer.1.attention.attention.key.weight"),
    (index_of_missing_shards, "names model-00001-of-00002.safetensors, which is not there"),
    (index_of_a_file_elsewhere, "names a file outside the folder, secret.safetensors"),
    (timm_of_another_family, "timm's swin_base_patch4_window7_224, and of timm's models vit_"),
    (timm_of_another_size, "its positions are of 16 patches, and an input of 3 x 1 x 224 x 224"),
    (timm_with_another_activation, "config.json: has act_layer 'silu' in model_args"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "cause"), TABLE, ids=lambda value: getattr(value, "__name__", ""))
def test_each_is_refused_by_name(make, cause, tmp_path):
    path = tmp_path / "x"
    make(path)
    modality = "video" if "config" in make.__name__ or "hf" in make.__name__ else "image"
    before = os.path.exists("/tmp/smnm_was_here")
    with pytest.raises(UsageError, match=cause) as raised:
        found(path, modality, SIZE[modality])
    assert str(raised.value).startswith(f"--encoder {path}: ")
    assert "\n" not in str(raised.value)
    assert os.path.exists("/tmp/smnm_was_here") == before


STRANGE = [None, -1, 0, 3, 2.5, "x", [], [1], [-8, 8], {}, True, float("inf"), "gelu"]


@pytest.mark.parametrize("seed", range(30))
def test_damaged_at_random_they_are_read_or_refused_in_one_line(seed, tmp_path):
    chance = random.Random(seed)
    if seed % 2:
        path = tmp_path / "x"
        save = saved if seed % 4 == 1 else save_file
        save(mae_state(), path)
        content = bytearray(path.read_bytes())
        for _ in range(chance.choice([1, 3, 20])):
            content[chance.randrange(min(len(content), 3000))] = chance.randrange(256)
        path.write_bytes(content[: chance.choice([None, chance.randrange(len(content))])])
    else:
        hf_folder(tmp_path / "x")
        config = tmp_path / "x/config.json"
        held = json.loads(config.read_text())
        held[chance.choice(list(held))] = chance.choice(STRANGE)
        config.write_text(json.dumps(held))
    modality = "image" if seed % 2 else "video"
    try:
        found(tmp_path / "x", modality, SIZE[modality])
    except UsageError as error:
        assert str(error).startswith(f"--encoder {tmp_path / 'x'}: ")  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017
