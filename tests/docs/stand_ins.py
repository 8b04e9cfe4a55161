"""What the reader of a page has already: small models, datasets and tensors for its blocks.

A page names the stand-ins of a block in a comment above it, ``<!-- stand-ins: hf_vitmae -->``. Each
is a generator here. It puts its names into those of the page, yields while the block runs, and then
looks at what the block made.
"""

import math
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import torch
from mae_models import AdaMae, AudioMae, CavMae, ColorMae, Hiera, M2d, Mae, MaeSt
from testing import need_packages
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import smnm_kernels as smnm
from smnm_kernels.adapters import MaskingGenerator
from smnm_kernels.loading import WithSampleIds, sample_id_of_key
from smnm_kernels.reference import rbn_score

WIDTH = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 32,
}
VIT = {**WIDTH, "intermediate_size": 32, "patch_size": 8}


def page(names):
    """Every page begins with these."""
    names.update(smnm=smnm, torch=torch, DataLoader=DataLoader, device="cpu", batch_size=4)
    names.update(x=torch.randn(4, 1568, 3), epoch=2, index=3)


def hf_videomae(names):
    need_packages("transformers")
    from transformers import VideoMAEConfig, VideoMAEForPreTraining

    config = VideoMAEConfig(**VIT, **DECODER, image_size=32, num_frames=4, tubelet_size=2)
    names.update(model=VideoMAEForPreTraining(config), pixel_values=torch.randn(2, 4, 3, 32, 32))
    given = _arguments_of(names["model"])
    yield
    assert given["bool_masked_pos"].sum(1).tolist() == [29, 29]
    assert names["loss"].requires_grad


def hf_vitmae(names):
    need_packages("transformers")
    from transformers import ViTMAEConfig, ViTMAEForPreTraining

    config = ViTMAEConfig(**VIT, **DECODER, image_size=32)
    names.update(model=ViTMAEForPreTraining(config), pixel_values=torch.randn(2, 3, 32, 32))
    given = _arguments_of(names["model"])
    yield
    masks = names["sampler"].masks(torch.arange(2))
    assert torch.equal(given["noise"].argsort(dim=1)[:, :4], masks.ids_keep)
    assert names["loss"].requires_grad


def hf_vjepa2(names):
    need_packages("transformers")
    from transformers import VJEPA2Config, VJEPA2Model

    config = VJEPA2Config(
        **WIDTH,
        **{f"pred_{name}": size for name, size in WIDTH.items()},
        crop_size=32,
        patch_size=8,
        frames_per_clip=4,
        tubelet_size=2,
    )
    names.update(model=VJEPA2Model(config), pixel_values_videos=torch.randn(2, 4, 3, 32, 32))
    yield
    assert names["predicted"].last_hidden_state.shape == (2, 24, 16)


def hf_vit(names):
    need_packages("transformers")
    from transformers import ViTConfig, ViTForMaskedImageModeling

    config = ViTConfig(**VIT, image_size=32, encoder_stride=8)
    names.update(model=ViTForMaskedImageModeling(config), pixel_values=torch.randn(2, 3, 32, 32))
    given = _arguments_of(names["model"])
    yield
    assert given["bool_masked_pos"].sum(1).tolist() == [10, 10]
    assert names["loss"].requires_grad


def _arguments_of(model):
    """Keyword arguments of its last call, in a dict that is filled as it is called."""
    given = {}
    model.register_forward_pre_hook(lambda _, args, named: given.update(named), with_kwargs=True)
    return given


def hf_trainer(names):
    need_packages("transformers", "accelerate")
    from transformers import Trainer, TrainingArguments

    names.update(_clips(names), Trainer=Trainer)
    with tempfile.TemporaryDirectory() as folder:
        names["args"] = TrainingArguments(
            folder,
            max_steps=2,
            per_device_train_batch_size=2,
            report_to=[],
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        yield
        assert names["trainer"].train().global_step == 2


def _clips(names):
    """A VideoMAE that is small, its sampler and four clips for it."""
    setup = hf_videomae(names)
    next(setup)
    clips = [{"pixel_values": pixels} for pixels in torch.randn(4, 4, 3, 32, 32)]
    return {"clips": clips, "sampler": smnm.MaskSampler("green3d", (2, 4, 4), 0.9)}


def videomae_transform(names):
    size = {"window_size": (8, 14, 14), "mask_ratio": 0.9, "decoder_mask_ratio": 0.5}
    transform = SimpleNamespace()
    names.update(self=transform, args=SimpleNamespace(**size))
    yield
    assert isinstance(transform.masked_position_generator, MaskingGenerator)
    assert (transform.masked_position_generator() == 0).sum() == 160
    assert transform.encoder_mask_map_generator().shape == (8, 196)
    assert transform.decoder_mask_map_generator().sum() == 8 * 98


def mgmae(names):
    names.update(args=SimpleNamespace(window_size=(8, 14, 14)), images=torch.zeros(3, 1))
    yield
    assert (names["mask_volume"].shape, names["mask_volume"].dtype) == ((3, 1568), torch.bool)
    assert (~names["mask_volume"]).sum(1).tolist() == [152] * 3


def adamae(names):
    model = nn.Module()
    model.encoder = AdaMae()
    model.encoder.visible_patches = int(1568 * (1 - 0.9))
    names.update(model=model)
    yield
    x = torch.randn(2, 1568, 3)
    probability, ids, mask = model.encoder.get_mask(x)
    torch.testing.assert_close(probability.sum(1), torch.ones(2))
    assert x[~mask].reshape(2, -1, 3).shape[1] == ids.shape[1] == model.encoder.visible_patches


def mae(names):
    names.update(model=Mae())
    yield
    _expect_mae_triple(names["model"].random_masking(torch.randn(2, 196, 3), 0.75), 49, 196)


def audiomae(names):
    names.update(model=AudioMae())
    yield
    x = torch.randn(2, 512, 3)
    _expect_mae_triple(names["model"].random_masking_2d(x, 0.3, 0.3), 44 * 5, 512)


def cav_mae(names):
    names.update(model=nn.DataParallel(CavMae()))
    yield
    masking = names["model"].module.random_masking_unstructured
    _expect_mae_triple(masking(torch.randn(2, 512, 3), 0.75), 128, 512)
    _expect_mae_triple(masking(torch.randn(2, 196, 3), 0.75), 49, 196)


def colormae(names):
    model = nn.Module()
    model.backbone = ColorMae()
    names.update(runner=SimpleNamespace(model=model))
    yield
    _expect_mae_triple(model.backbone.color_masking(torch.randn(2, 196, 3)), 49, 196)


def mae_st(names):
    names.update(model=MaeSt())
    yield
    x = torch.randn(2, 1568, 3)
    *triple, ids_keep = names["model"].random_masking(x, 0.9)
    _expect_mae_triple(triple, 156, 1568)
    assert torch.equal(triple[0][1], x[1, ids_keep[1]])


def _expect_mae_triple(triple, n_keep, n_tokens):
    visible, removed, ids_restore = triple
    assert visible.shape[1] == n_keep
    assert removed.sum(1).tolist() == [n_tokens - n_keep] * len(removed)
    assert torch.equal((ids_restore >= n_keep).float(), removed)


def m2d(names):
    names.update(model=M2d())
    yield
    ids, n_keep = names["model"]._random_mask_fn((2, 5, 38), 0.7, "cpu")
    assert (ids.shape, n_keep) == ((2, 190), 57)


def data2vec(names):
    names.update(self=SimpleNamespace(clone_batch=2), v={})
    yield
    masked = names["v"]["precomputed_mask"]
    ids = 2 * (names["epoch"] * 2**40 + names["index"]) + torch.arange(2)
    assert torch.equal(masked, smnm.rbn_masks(ids, (1, 64, 8), 0.8).masked.byte())


def jepa(names):
    names["dataset"] = TensorDataset(torch.randn(6, 2), torch.arange(6))
    yield
    _, [context], [target] = names["mask_collator"]([names["dataset"][0], names["dataset"][5]])
    assert (context.shape, target.shape) == ((2, 49), (2, 147))


def vjepa(names):
    yield
    _, contexts, _ = names["mask_collator"]([names["dataset"][1], names["dataset"][4]])
    assert [context.shape[1] for context in contexts] == [392, 156]


def vjepa2(names):
    yield
    clips = WithSampleIds([([torch.zeros(16)], i, [torch.arange(16)]) for i in range(3)])
    [(batch, [context], [target])] = names["mask_collator"]([clips[i] for i in range(3)])
    assert (batch[1].tolist(), context.shape, target.shape) == ([0, 1, 2], (3, 512), (3, 1536))


def hiera(names):
    class Units(Hiera):
        mask_spatial_shape = [7, 7]  # noqa: RUF012, a list there

        def forward(self, x, mask):
            assert (mask.shape, mask.sum().item()) == ((4, 49), 4 * 19)
            return x.sum(), *[None] * 3

    names.update(model=Units(), x=torch.randn(4, 3, 224, 224))
    yield
    assert names["model"].get_random_mask(names["x"], 0.6).sum(1).tolist() == [19] * 4


def lightly(names):
    names.update(sampler=smnm.MaskSampler("green2d", (1, 14, 14), 0.75))
    yield
    both = torch.cat([names["idx_keep"], names["idx_mask"]], dim=1).sort(dim=1).values
    assert names["idx_keep"].shape == (4, 50)
    assert not names["idx_keep"][:, 0].any()
    assert torch.equal(both, torch.arange(197).expand(4, 197))


def timm_vit(names):
    class Vit(nn.Module):
        """As timm's VisionTransformer, with a class token and four registers."""

        num_prefix_tokens = 5

        def __init__(self):
            super().__init__()
            self.blocks, self.norm = nn.Identity(), nn.Identity()

        def patch_embed(self, x):
            return nn.functional.unfold(x, 16, stride=16).transpose(1, 2)

        def _pos_embed(self, x):
            return torch.cat([x.new_zeros(len(x), 5, x.shape[2]), x], 1)

    names.update(model=Vit(), x=torch.randn(4, 3, 224, 224))
    yield
    assert names["encoded"].shape == (4, 5 + 49, 768)
    assert not names["encoded"][:, :5].any()
    assert names["encoded"][:, 5:].any(2).all()


def hf_ast(names):
    need_packages("transformers")
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(**WIDTH, intermediate_size=32, max_length=96, num_mel_bins=64)
    names.update(model=ASTModel(config), input_values=torch.randn(2, 96, 64))
    yield
    assert names["sampler"].grid == (1, 9, 5)
    assert names["visible"].shape == (2, 2 + 11, 16)


def streams(names):
    class Stream(IterableDataset):
        def __init__(self, key):
            self.key = key

        def __iter__(self):
            yield from ({self.key: f"clip{i}", "x": i} for i in range(4))

    names.update(shards=Stream("__key__"), stream=Stream("id"))
    yield
    ids = [example["sample_id"] for example in names["dataset"]]
    assert ids == [sample_id_of_key(f"clip{i}") for i in range(4)]


def loader(names):
    clips = [{"pixel_values": pixels} for pixels in torch.randn(8, 2)]
    names.update(dataset=clips, sampler=smnm.MaskSampler("green3d", (2, 4, 4), 0.9))
    yield
    assert [batch["bool_masked_pos"].shape for batch in names["loader"]] == [(4, 32)] * 2


def own_loop(names):
    names.update(sampler=smnm.MaskSampler("green3d", (8, 14, 14), 0.9), x=torch.randn(4, 1568, 3))
    names.update(encoded=torch.ones(4, 156, 3), mask_tokens=torch.zeros(4, 1412, 3))
    yield
    assert names["visible"].shape == (4, 156, 3)
    assert torch.equal(names["in_order"][..., 0].bool(), names["masks"].visible)


def functions(names):
    names.update(my_noise=torch.rand(4, 1568), order=torch.arange(512).repeat(2, 1))
    yield


def spectrogram_tokens(names):
    names["x"] = torch.randn(4, 512, 3)
    yield
    assert names["x_visible"].shape == (4, 102, 3)


def data_driven(names):
    names.update(
        log_mel=torch.randn(2, 1, 1, 1024, 128),
        clips=torch.randn(2, 3, 4, 32, 32),
        features=torch.randn(2, 40, 8),
        sample_ids=torch.arange(2),
        weights=torch.rand(2, 40),
    )
    yield
    assert len(names["masks"].visible) == 2


def padded(names):
    names["n_rows"] = torch.tensor([64, 30, 13])
    yield
    visible = names["masks"].visible
    assert (visible.sum(1) == 102).all()
    assert names["hidden"].sum(1).tolist() == [512 - 102, 240 - 102, 104 - 102]


def masks_from_elsewhere(names):
    names.update(visible=names["masks"].visible, masked=names["masks"].masked)
    yield
    assert torch.equal(names["theirs"].ids_keep, names["masks"].ids_keep)


def checkpointed(names):
    names.update(block=lambda x: x * names["sampler"](4).visible[..., None])
    names["x"] = torch.randn(4, 1568, 3, requires_grad=True)
    before = int(names["sampler"].next_id)
    yield
    assert int(names["sampler"].next_id) == before + 4


def loaders(names):
    names.update(_clips(names))
    yield


def some_recordings(names):
    """Files that are only looked at."""
    with _recordings():
        yield
        assert names["samples"].shape == (128_000,)


def labelled_recordings(names):
    need_packages("av", "kaldi_native_fbank", "tqdm", "sklearn")
    from smnm_kernels.train.tasks.demo import write_recording

    with _new_folder():
        for i, label in enumerate("aabb"):
            path = Path("DATA") / label / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_recording(path, i)
        yield
        assert names["targets"].tolist() == [0, 0, 1, 1]
        assert len(names["to_train_on"]) == 2


def predictions(names):
    logits = torch.randn(2, 60, 8)
    targets = torch.arange(60) % 8
    need_packages("sklearn", "scipy")
    names.update(logits=logits[0], targets=targets, episodes=[i // 6 for i in range(60)])
    from smnm_kernels.train.metrics.measures import judge

    names["theirs"] = judge("class", logits[1], targets)
    yield
    assert names["ours"].measures().keys() == {"top1", "top5", "mean_class"}


def paired_vectors(names):
    need_packages("scipy")
    videos = torch.randn(30, 8).numpy()
    names.update(videos=videos, sounds=videos + 0.5 * torch.randn(30, 8).numpy())
    yield
    assert names["found"].measures()["recall@1"] > 1 / 30


def two_recordings(names):
    with _recordings():
        yield
        assert len(Path("RUN/metrics.jsonl").read_text().splitlines()) == 1


def finished_run(names):
    from smnm_kernels.cli import main

    with _recordings():
        size = ["--steps", "1", "--batch-size", "2", "--workers", "0", "--device", "cpu"]
        assert main(["pretrain", "audio", "DATA", "--out", "RUN", *size]) == 0
        names["path"] = min(Path("DATA").iterdir())
        yield
        assert names["features"].shape == (1, 256, 192)
        assert abs(names["x"].mean()) < 3


def audio_video_run(names):
    need_packages("safetensors", "av", "kaldi_native_fbank")
    from smnm_kernels.train.tasks.presets import PRESETS

    preset = PRESETS["audio-video"]["tiny"]
    objective, inputs = preset.objective, preset.clip.inputs
    with _new_folder():
        Path("RUN").mkdir()
        objective.export(objective.build(inputs, seed=0), Path("RUN/encoder.safetensors"), {})
        names["clips"] = torch.randn(2, *inputs["video"].size)
        names["spectrograms"] = torch.randn(2, *inputs["audio"].size)
        yield
        shapes = {name: x.shape for name, x in names["features"].items()}
        assert shapes == {"video": (2, 288, 192), "audio": (2, 64, 192)}
        assert names["likeness"].abs().max() <= 1.001


def video_encoder(names):
    need_packages("transformers", "safetensors")
    from safetensors.torch import save_file

    from smnm_kernels.train.models.encoder_file import encoder_metadata
    from smnm_kernels.train.models.settings import VIDEOMAE
    from smnm_kernels.train.models.vit import Encoder

    settings = VIDEOMAE.tiny().encoder
    encoder = Encoder(settings, (3, 16, 96, 96)).eval()
    with _new_folder():
        Path("RUN").mkdir()
        state = {name: t.contiguous() for name, t in encoder.state_dict().items()}
        about = {"modality": "video", "mean": "[0.5, 0.5, 0.5]", "scale": "[1.0, 1.0, 1.0]"}
        save_file(state, "RUN/encoder.safetensors", encoder_metadata(encoder, **about))
        yield
    clip = torch.randn(2, 3, 16, 96, 96)
    with torch.no_grad():
        theirs = names["model"].eval()(clip.transpose(1, 2)).last_hidden_state
        torch.testing.assert_close(theirs, encoder(clip), rtol=1e-4, atol=1e-5)


def tuned(names):
    need_packages("av", "tyro", "tqdm", "safetensors", "sklearn", "PIL")
    from PIL import Image

    from smnm_kernels.cli import main

    names["x"] = torch.randn(2, 3, 1, 32, 32)
    with _new_folder():
        for i in range(8):
            path = Path("DATA", "ab"[i % 2], f"{i}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 40), (200 * (i % 2), 20 * i, 0)).save(path)
        size = ["--steps", "1", "--batch-size", "2", "--workers", "0", "--size", "32"]
        words = ["finetune", "image", "DATA", "--encoder", "none", "--out", "TUNED", *size]
        assert main([*words, "--device", "cpu"]) == 0
        yield
    assert names["p"].shape == (2, 2)
    assert names["found"].values.shape == (8, 2)


@contextmanager
def _recordings():
    """In a new folder: DATA with two recordings."""
    need_packages("av", "tyro", "tqdm", "safetensors", "matplotlib", "PIL")
    from smnm_kernels.train.tasks.demo import write_recording

    with _new_folder():
        Path("DATA").mkdir()
        for i in range(2):
            write_recording(Path(f"DATA/{i}.wav"), i)
        yield


@contextmanager
def _new_folder():
    """Where the process works meanwhile."""
    was = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(was)


def colors(names):
    """G(s) * w is a filtered noise, for any s. The noise that is sorted below is a real field."""
    need_packages("scipy")
    from scipy.ndimage import gaussian_filter

    class G:
        def __init__(self, sigma):
            self.sigma = sigma

        def __mul__(self, w):
            return torch.from_numpy(gaussian_filter(w.numpy(), self.sigma, mode="wrap"))

    noise = smnm.noise(torch.arange(3), (4, 6, 6), "green")
    masks = smnm.threshold(noise, 0.75)
    tokens = torch.arange(144.0)[None, :, None].expand(3, -1, 2)
    names.update(G=G, w=torch.randn(32, 32, 32), s=1.0, s1=0.6, s2=1.8)
    names.update(noise=noise, B=3, N=144, D=2, n_keep=36)
    ids = [masks.ids_keep, masks.ids_masked]
    names["x_visible"], names["mask_tokens"] = (
        tokens.gather(1, i[..., None].expand(-1, -1, 2)) for i in ids
    )
    yield
    # Smoothing leaves little of white noise, most of it the rest; green is smooth and has mean 0.
    assert names["red"].std() < 0.3 < 0.9 < names["blue"].std()
    assert names["green"].std() < 0.5
    assert torch.equal(names["visible"], masks.visible)
    assert torch.equal(names["ids_keep"], masks.ids_keep)
    assert torch.equal(names["ids_restore"], masks.ids_restore)
    assert torch.equal(names["x"], tokens)


def rbn_lines(names):
    visible = torch.rand(6, 8) < 0.4
    position = (2, 1)

    def line(j, window, position):
        dy, dx = [(0, 1), (1, 0), (1, 1), (1, -1)][j]
        steps = [step for step in range(-(window // 2), window // 2 + 1) if step]
        places = [(position[0] + step * dy, position[1] + step * dx) for step in steps]
        inside = [(y, x) for y, x in places if 0 <= y < 6 and 0 <= x < 8]
        return tuple(torch.tensor(inside).T)

    names.update(visible=[visible], k=0, line=line, position=position, weights=(0.4, 0.4, 0.1, 0.1))
    yield
    thousandths = rbn_score(visible.numpy(), *position, (3, 5), (400, 400, 100, 100))
    assert math.isclose(names["score"] * 1000, thousandths, rel_tol=1e-5)  # of float32
