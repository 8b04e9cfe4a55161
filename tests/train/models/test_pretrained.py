"""What `--encoder X` reads: folders of transformers and files of the methods' own code."""

import json

import pytest
import torch
from families import shaken
from other_models import FAMILY, PATCH, SIZE, file_of, found, ours
from safetensors.torch import load_file, save_file
from testing import need_packages

from smnm_kernels.train.data.statistics import AUDIOSET_MEAN, AUDIOSET_STD, IMAGENET_MEAN
from smnm_kernels.train.models.encoder_file import encoder_metadata
from smnm_kernels.train.models.formats import encoder_state, to_mae, to_videomae
from smnm_kernels.train.models.mae import MaskedAutoencoder, build_model
from smnm_kernels.train.models.pretrained import read_weights

CLOSE = dict(rtol=1e-5, atol=1e-5)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


# transformers


def transformers():
    need_packages("transformers")
    import transformers

    return transformers


SMALL = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    image_size=16,
    patch_size=8,
)
SMALL_VIDEO = {**SMALL, "num_frames": 4, "tubelet_size": 2}
CLASSES = {
    "VideoMAEModel": ("VideoMAEConfig", {**SMALL_VIDEO, "use_mean_pooling": False}),
    "VideoMAEModel, no final norm": ("VideoMAEConfig", {**SMALL_VIDEO, "use_mean_pooling": True}),
    "VideoMAEModel, no biases": (
        "VideoMAEConfig",
        {**SMALL_VIDEO, "use_mean_pooling": False, "qkv_bias": False, "qv_bias": False},
    ),
    "VideoMAEModel, another shape": (
        "VideoMAEConfig",
        {
            **SMALL_VIDEO,
            "use_mean_pooling": False,
            "image_size": (16, 40),
            "num_frames": 9,
            "tubelet_size": 3,
            "num_attention_heads": 4,
            "layer_norm_eps": 1e-3,
        },
    ),
    "VideoMAEForVideoClassification": ("VideoMAEConfig", SMALL_VIDEO),
    "ViTMAEModel": ("ViTMAEConfig", {**SMALL, "mask_ratio": 0.0}),
    "ViTMAEModel, no biases": ("ViTMAEConfig", {**SMALL, "mask_ratio": 0.0, "qkv_bias": False}),
    "ViTModel": ("ViTConfig", SMALL),
    "ViTModel, another shape": (
        "ViTConfig",
        {**SMALL, "image_size": (16, 48), "layer_norm_eps": 1e-3},
    ),
    "ViTForImageClassification": ("ViTConfig", SMALL),
}  # fmt: skip


def theirs_of(name):
    module = transformers()
    config, settings = CLASSES[name]
    kind = getattr(module, name.split(",")[0])
    model = shaken(kind(getattr(module, config)(**settings)))
    with torch.no_grad():
        for table, t in model.named_parameters():
            if "position_embeddings" in table:
                t.normal_()  # whatever they are, they are taken over
    return model


def last_hidden_state(theirs, x):
    """Of our input [B, C, T, H, W]: [B, N, dim] without a class token."""
    base = getattr(theirs, "videomae", None) or getattr(theirs, "vit", None) or theirs
    kind = type(base).__name__
    if kind == "VideoMAEModel":
        return base(x.transpose(1, 2)).last_hidden_state
    if kind == "ViTMAEModel":
        n = base.embeddings.patch_embeddings.num_patches
        in_order = torch.arange(float(n)).expand(len(x), -1)
        return base(x[:, :, 0], noise=in_order).last_hidden_state[:, 1:]
    return base(x[:, :, 0]).last_hidden_state[:, 1:]


@pytest.mark.parametrize("name", CLASSES)
@torch.no_grad()
def test_folders_of_transformers_give_the_same_features(name, tmp_path):
    theirs = theirs_of(name)
    theirs.save_pretrained(tmp_path)
    modality = "video" if name.startswith("Video") else "image"
    config = theirs.config
    h, w = (config.image_size,) * 2 if isinstance(config.image_size, int) else config.image_size
    size = (3, config.num_frames if modality == "video" else 1, h, w)
    said = []
    got = found(tmp_path, modality, size, said)
    assert got.encoder.input_size == size
    assert not got.encoder.training
    assert got.encoder.settings.norm_eps == config.layer_norm_eps
    assert got.mean == IMAGENET_MEAN
    x = torch.randn(2, *size)
    assert torch.allclose(got.encoder(x), last_hidden_state(theirs, x), **CLOSE)
    heads = {n for n in theirs.state_dict() if n.startswith(("classifier", "fc_norm", "pooler"))}
    assert set(got.unmapped) == heads
    assert bool(heads) == any("are left out" in line for line in said)


@torch.no_grad()
def test_how_the_weights_are_stored_makes_no_difference(tmp_path):
    theirs = theirs_of("VideoMAEForVideoClassification")
    theirs.save_pretrained(tmp_path / "whole")
    theirs.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 2
    state = load_file(tmp_path / "whole/model.safetensors")
    for name, files in (
        ("bin", {"pytorch_model.bin": state}),
        (
            "bins",
            {
                f"pytorch_model-0000{i}-of-00002.bin": {
                    n: t for k, (n, t) in enumerate(state.items()) if k % 2 == i - 1
                }
                for i in (1, 2)
            },
        ),
    ):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_bytes((tmp_path / "whole/config.json").read_bytes())
        for file, part in files.items():
            torch.save(part, folder / file)
        if len(files) > 1:
            weight_map = {n: file for file, part in files.items() for n in part}
            index = folder / "pytorch_model.bin.index.json"
            index.write_text(json.dumps({"weight_map": weight_map}))
    expected = found(tmp_path / "whole", "video", (3, 4, 16, 16)).encoder.state_dict()
    for name in ("shards", "bin", "bins"):
        got = found(tmp_path / name, "video", (3, 4, 16, 16)).encoder.state_dict()
        assert all(torch.equal(got[n], t) for n, t in expected.items()), name


def test_a_preprocessor_says_how_pictures_are_normalised(tmp_path):
    theirs_of("ViTModel").save_pretrained(tmp_path)
    about = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.2, 0.3]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(about))
    got = found(tmp_path, "image", (3, 1, 16, 16))
    assert got.mean == (0.5, 0.4, 0.3)
    assert got.scale == (0.1, 0.2, 0.3)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}))
    assert found(tmp_path, "image", (3, 1, 16, 16)).scale == (1.0, 1.0, 1.0)


@torch.no_grad()
def test_a_norm_that_the_configuration_does_without_is_left_out(tmp_path):
    """So transformers does: mean pooling of an encoder that was pretrained with its norm."""
    theirs = theirs_of("VideoMAEModel")
    theirs.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"use_mean_pooling": True}))
    got = found(tmp_path, "video", (3, 4, 16, 16))
    assert got.unmapped == ("layernorm.bias", "layernorm.weight")
    again = type(theirs).from_pretrained(tmp_path)
    x = torch.randn(2, 3, 4, 16, 16)
    assert torch.allclose(got.encoder(x), last_hidden_state(again.eval(), x), **CLOSE)


def test_heads_are_those_of_the_configuration_and_a_known_mistake_is_named(tmp_path):
    """transformers' conversion gives VideoMAE's ViT-S 16 heads; it was trained with 6."""
    module = transformers()
    small = {**SMALL_VIDEO, "hidden_size": 384, "intermediate_size": 32, "num_hidden_layers": 1}
    config = module.VideoMAEConfig(**{**small, "num_attention_heads": 16})
    module.VideoMAEModel(config).save_pretrained(tmp_path)
    said = []
    assert found(tmp_path, "video", (3, 4, 16, 16), said).encoder.settings.heads == 16
    assert any("was trained with 6" in line for line in said)


# Files of the methods' own code


@pytest.mark.parametrize("modality", FAMILY)
@pytest.mark.parametrize("wrap", ["model", "module", "state_dict"])
@torch.no_grad()
def test_published_checkpoints_are_the_same_model(modality, wrap, tmp_path):
    model, path = ours(modality), tmp_path / "checkpoint.pth"
    file_of(model, modality, path, wrap)
    weights = read_weights(path, SIZE[modality])
    assert not weights.unmapped
    assert weights.model.encoder == weights.encoder
    for part in ("encoder", "decoder"):
        assert getattr(weights.model, part) == getattr(model.settings, part)
    again = MaskedAutoencoder(weights.model, weights.input_size).eval()
    again.load_state_dict(weights.state, strict=False)
    for name, t in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], t), name
    got = found(path, modality, SIZE[modality])
    x = torch.randn(2, *SIZE[modality])
    assert torch.equal(got.encoder(x), model.encoder(x))


@pytest.mark.parametrize("modality", FAMILY)
@torch.no_grad()
def test_fine_tuned_checkpoints_have_no_final_norm_and_a_head(modality, tmp_path):
    model, path = ours(modality, final_norm=False), tmp_path / "checkpoint.pth"
    state = encoder_state(model.encoder)
    if modality == "video":
        state = to_videomae(state, PATCH[modality])
        state = {name.removeprefix("encoder."): t for name, t in state.items()}
    else:
        state = to_mae(state, PATCH[modality])
    beside = {
        "fc_norm.weight": torch.ones(64),
        "fc_norm.bias": torch.ones(64),
        "head.weight": torch.ones(5, 64),
        "head.bias": torch.ones(5),
    }
    torch.save({"module": state | beside}, path)
    said = []
    got = found(path, modality, SIZE[modality], said)
    assert set(got.unmapped) == set(beside)
    assert "4 of its tensors are no part of the encoder and are left out: fc_norm" in said[-1]
    x = torch.randn(2, *SIZE[modality])
    assert torch.equal(got.encoder(x), model.encoder(x))


@torch.no_grad()
def test_sizes_that_weights_do_not_tell(tmp_path):
    """VideoMAE's files hold no positions; AudioMAE's do not say where a column ends."""
    path = tmp_path / "checkpoint.pth"
    file_of(ours("video"), "video", path)
    weights = read_weights(path, (3, 8, 32, 48))
    assert weights.input_size == (3, 8, 32, 48)
    assert "3 x 8 x 32 x 48 is taken, as was asked for" in weights.remarks[0]
    assert not read_weights(path, (3, 16, 224, 224)).remarks  # VideoMAE's own
    weights = read_weights(path)
    assert weights.input_size == (3, 16, 224, 224)
    assert "16 x 224 x 224 is taken" in weights.remarks[0]

    long = build_model(ours("audio").settings, (1, 1, 96, 128), seed=0)
    file_of(long, "audio", path)
    for like in (None, (1, 1, 512, 128)):
        weights = read_weights(path, like)
        assert weights.input_size == (1, 1, 96, 128)  # of 128 bands
        assert weights.encoder.positions == "rows_columns_transposed"
        assert weights.mean == (AUDIOSET_MEAN,)
        assert weights.scale == (2 * AUDIOSET_STD,)
    file_of(ours("image"), "image", path)
    assert read_weights(path).input_size == (3, 1, 32, 32)


@torch.no_grad()
def test_positions_are_those_of_the_file(tmp_path):
    model, path = ours("image"), tmp_path / "vit.safetensors"
    model.encoder.pos_embed.normal_()
    state = to_mae(encoder_state(model.encoder), PATCH["image"])
    save_file(state, path)  # as timm stores one
    got = found(path, "image", SIZE["image"])
    assert got.encoder.settings.positions == "given"
    assert torch.equal(got.encoder.pos_embed, model.encoder.pos_embed)
    # timm's no_embed_class: the class token gets none
    save_file({**state, "pos_embed": state["pos_embed"][:, 1:].contiguous()}, path)
    got = found(path, "image", SIZE["image"])
    assert torch.equal(got.encoder.pos_embed[1:], model.encoder.pos_embed[1:])
    assert not got.encoder.pos_embed[0].any()


@torch.no_grad()
def test_files_in_other_precisions_and_with_prefixes(tmp_path):
    model, path = ours("image"), tmp_path / "checkpoint.bin"
    state = to_mae(encoder_state(model.encoder), PATCH["image"])
    torch.save({f"module.{name}": t.bfloat16() for name, t in state.items()}, path)
    got = found(path, "image", SIZE["image"]).encoder.state_dict()
    for name, t in model.encoder.state_dict().items():
        assert got[name].dtype == torch.float32
        assert torch.equal(got[name], t.bfloat16().float())


def test_reading_draws_no_random_numbers(tmp_path):
    file_of(ours("image"), "image", tmp_path / "c.pth")
    before = torch.get_rng_state()
    found(tmp_path / "c.pth", "image", SIZE["image"])
    assert torch.equal(before, torch.get_rng_state())


def test_our_own_files(tmp_path):
    model, path = ours("audio"), tmp_path / "encoder.safetensors"
    metadata = dict(
        modality="audio", step="7", mean="[1.0]", scale="[2.0]", preset='{"clip": {"frames": 9}}'
    )
    save_file(model.encoder.state_dict(), path, encoder_metadata(model.encoder, **metadata))
    for given in (path, tmp_path):
        got = found(given, "audio", SIZE["audio"])
        assert got.clip == {"frames": 9}
        assert got.origin == f"{given}, step 7"
        assert (got.mean, got.scale) == ((1.0,), (2.0,))


def test_what_stands_beside_an_encoder_is_left_out_and_what_is_of_no_use_too(tmp_path):
    """SIGMA's checkpoints hold VideoMAE's encoder beside heads of their own."""
    model = shaken(ours("video"))
    state = to_videomae(model.state_dict(), (2, 8, 8))
    torch.save({"model": {**state, "prototypes.weight": torch.zeros(3, 2)}}, tmp_path / "c.pth")
    assert found(tmp_path / "c.pth", "video", SIZE["video"]).unmapped[0] == "prototypes.weight"


def test_a_decoder_with_more_in_it_than_maes_is_left_out_whole(tmp_path):
    path = tmp_path / "c.pth"
    file_of(ours("audio"), "audio", path)
    assert read_weights(path, SIZE["audio"]).model
    file_of(ours("audio"), "audio", path, **{"decoder_modality": torch.zeros(1, 1, 32)})
    weights = read_weights(path, SIZE["audio"])
    assert weights.model is None
    assert {"decoder_modality", "mask_token", "decoder_pred.bias"} <= set(weights.unmapped)
    assert not any(name.startswith("blocks") for name in weights.unmapped)
