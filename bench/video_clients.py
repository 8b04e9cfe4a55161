"""Video models of bench/clients.py."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from client_common import TINY, TINY_DECODER, client, no_cuda, package, step, stub, trained
from torch import nn
from torch.utils.data import DataLoader, Dataset

import smnm_kernels as smnm
from smnm_kernels.adapters import JepaCollator, MaskingGenerator, Vjepa2Collator, install
from smnm_kernels.loading import WithSampleIds


class Clips(Dataset):
    """What a dataset of VideoMAE gives: the transform's clip, and the generator's mask or masks."""

    def __init__(self, *generators):
        self.generators = generators

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.randn(3, 16, 224, 224), *(generator() for generator in self.generators)


VIDEOMAE = {
    "encoder_embed_dim": 48,
    "encoder_depth": 1,
    "encoder_num_heads": 2,
    "decoder_embed_dim": 32,
    "decoder_depth": 1,
    "decoder_num_heads": 2,
    "decoder_num_classes": 1536,
}


def engine_arguments(model):
    """Of train_one_epoch in VideoMAE and what descends from it."""
    optimizer = torch.optim.SGD([{"params": model.parameters(), "lr_scale": 1.0}], lr=1e-3)

    class Scaler:
        def __call__(self, loss, optimizer, **more):
            loss.backward()
            optimizer.step()
            return torch.tensor(1.0)

        def state_dict(self):
            return {"scale": 1.0}

    return optimizer, torch.device("cpu"), 0, Scaler()


@client("MCG-NJU+VideoMAE")
def videomae(folder):
    from engine_for_pretraining import train_one_epoch
    from masking_generator import TubeMaskingGenerator
    from modeling_pretrain import PretrainVisionTransformer

    no_cuda()
    size = (8, 14, 14)
    ours, theirs = MaskingGenerator(size, 0.9), TubeMaskingGenerator(size, 0.9)
    assert (ours().shape, ours().dtype) == (theirs().shape, theirs().dtype)
    model = PretrainVisionTransformer(**VIDEOMAE)
    loader = DataLoader(Clips(ours), 2, num_workers=2)
    stats = train_one_epoch(model, loader, *engine_arguments(model), start_steps=0)
    return {
        "ran": "engine_for_pretraining.train_one_epoch, 2 workers",
        "visible": [int((g() == 0).sum()) for g in (theirs, ours)],
        "losses": [round(stats["loss"], 4)],
    }


@client("OpenGVLab+VideoMAEv2")
def videomaev2(folder):
    package("dataset", folder / "dataset")
    from dataset.masking_generator import RunningCellMaskingGenerator, TubeMaskingGenerator
    from engine_for_pretraining import train_one_epoch
    from models.modeling_pretrain import PretrainVisionTransformer

    no_cuda()
    size = (8, 14, 14)
    theirs = [TubeMaskingGenerator(size, 0.9), RunningCellMaskingGenerator(size, 0.5)]
    ours = [
        MaskingGenerator(size, 0.9, per_frame=True),
        MaskingGenerator(size, 0.5, "random", per_frame=True, seed=1),
    ]
    assert [g().shape for g in ours] == [g().shape for g in theirs]
    model = PretrainVisionTransformer(**VIDEOMAE)
    arguments = list(engine_arguments(model))
    arguments[3] = None
    stats = train_one_epoch(
        model, DataLoader(Clips(*ours), 2), *arguments, max_norm=None, start_steps=0
    )
    return {
        "ran": "engine_for_pretraining.train_one_epoch, encoder and decoder masks",
        "visible": [[int((g() == 0).sum()) for g in pair] for pair in (theirs, ours)],
        "losses": [round(stats["loss"], 4)],
    }


@client("QUVA-Lab+SIGMA")
def sigma(folder):
    stub("visualize_masks")
    from engine_for_pretraining import train_one_epoch
    from masking_generator import TubeMaskingGenerator
    from modeling_pretrain import PretrainVisionTransformer

    no_cuda()
    size = (8, 14, 14)
    ours, theirs = MaskingGenerator(size, 0.9), TubeMaskingGenerator(size, 0.9)
    model = PretrainVisionTransformer(
        **{**VIDEOMAE, "decoder_num_classes": 32},
        target_type="mlp",
        num_prototypes=50,
        world_size=1,
    )
    given = {"target_type": "mlp", "loss_func": "SWAV", "start_steps": 0}
    loader = DataLoader(Clips(ours), 2)
    stats = train_one_epoch(model, None, loader, *engine_arguments(model), **given)
    return {
        "ran": "engine_for_pretraining.train_one_epoch, its loss with prototypes",
        "visible": [int((g() == 0).sum()) for g in (theirs, ours)],
        "losses": [round(stats["loss"], 4)],
    }


@client("MCG-NJU+MGMAE")
def mgmae(folder):
    no_cuda()
    stub("flow_utils.flow_model", "flow_utils.softsplat", "cupy")
    package("flow_utils", folder / "flow_utils")
    package("dataset", folder / "dataset")
    import engine_for_mgmae as engine
    from models.modeling_pretrain import PretrainVisionTransformer

    model = PretrainVisionTransformer(**VIDEOMAE)
    sampler = smnm.MaskSampler("green3d", (8, 14, 14), n_keep=19 * 8)
    arguments = SimpleNamespace(
        warp_type="backward",
        base_frame="middle",
        hole_filling="none",
        exposure_chance=False,
        window_size=(8, 14, 14),
        mask_ratio=0.9,
        topk_on_all=False,
        flow_iter=1,
        decoder_mask_type="none",
    )

    def still(first, second, iters, test_mode):
        return None, torch.zeros(len(first), 2, *first.shape[-2:])

    with mock.patch.object(engine, "BackWarp", lambda mask, flow, device=None: mask):
        build = engine.get_build_mask_volume_func(still, torch.device("cpu"), arguments)
        theirs = build(torch.randn(2, 3, 16, 224, 224), torch.rand(2, 1, 224, 224))

    class Batch(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return torch.randn(3, 16, 224, 224), np.zeros((224, 224)), np.zeros(1568)

    made = []

    def ours(flow_model, device, args):
        def build_mask_volume(nimgs, init_mask_map):
            made.append(sampler(len(nimgs)).masked.to(device))
            return made[-1]

        return build_mask_volume

    given = list(engine_arguments(model))
    given[3] = None
    with mock.patch.object(engine, "get_build_mask_volume_func", ours):
        import inspect

        names = inspect.signature(engine.train_one_epoch).parameters
        more = {"flow_model": None, "args": arguments, "start_steps": 0, "max_norm": None}
        more = {name: value for name, value in more.items() if name in names}
        stats = engine.train_one_epoch(
            model,
            data_loader=DataLoader(Batch(), 2),
            optimizer=given[0],
            device=given[1],
            epoch=0,
            loss_scaler=None,
            **more,
        )
    assert (made[0].shape, made[0].dtype) == (theirs.shape, theirs.dtype)
    return {
        "ran": "engine_for_mgmae.train_one_epoch with build_mask_volume replaced",
        "visible": [int((~m[0]).sum()) for m in (theirs, made[0])],
        "losses": [round(stats["loss"], 4)],
    }


@client("wgcban+adamae")
def adamae(folder):
    from models.pretrain.vit import PretrainVisionTransformer

    changed = {**VIDEOMAE, "encoder_num_heads": 8, "encoder_embed_dim": 64}
    model = PretrainVisionTransformer(**changed)
    theirs = model.encoder.get_mask(torch.randn(2, 1568, 64))
    install(model, smnm.MaskSampler("green3d", (8, 14, 14), n_keep=model.encoder.visible_patches))
    ours = model.encoder.get_mask(torch.randn(2, 1568, 64))
    assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in theirs]

    def loss(model):
        return model(torch.randn(1, 3, 16, 224, 224))[0].square().mean()

    return {
        "ran": "PretrainVisionTransformer.forward",
        "visible": [theirs[1].shape[1], ours[1].shape[1]],
        "losses": trained(model, loss),
    }


@client("facebookresearch+mae_st")
def mae_st(folder):
    package("mae_st", folder)
    stub("iopath.common.file_io")
    from mae_st.models_mae import MaskedAutoencoderViT

    model = MaskedAutoencoderViT(
        **TINY,
        **TINY_DECODER,
        num_frames=16,
        t_patch_size=2,
        sep_pos_embed=True,
        cls_embed=True,
        pred_t_dim=16,
    )
    theirs = model.random_masking(torch.randn(2, 1568, 48), 0.9)
    install(model, smnm.MaskSampler("green3d", (8, 14, 14), 0.9))
    ours = model.random_masking(torch.randn(2, 1568, 48), 0.9)
    assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in theirs]

    def loss(model):
        return model(torch.rand(1, 3, 16, 224, 224), mask_ratio=0.9)[0]

    return {
        "ran": "MaskedAutoencoderViT.forward, four values",
        "visible": [theirs[0].shape[1], ours[0].shape[1]],
        "losses": trained(model, loss),
    }


class VideoFrames(Dataset):
    """Random frames in the form of V-JEPA's VideoDataset: clips, label, indices of each clip."""

    def __init__(self, lengths, weights=None):
        self.lengths, self.sample_weights = lengths, weights

    def __len__(self):
        return len(self.lengths)

    def __getitem__(self, index):
        n = self.lengths[index]
        return [torch.randn(3, n, 64, 64)], index, [np.arange(n)]


@client("facebookresearch+jepa")
def vjepa(folder):
    stub("decord")
    import src.datasets.video_dataset as videos
    from src.masks.utils import apply_masks
    from src.models.predictor import VisionTransformerPredictor
    from src.models.utils.multimask import MultiMaskWrapper, PredictorMultiMaskWrapper
    from src.models.vision_transformer import VisionTransformer

    size = {"img_size": 64, "num_frames": 4, "tubelet_size": 2}
    encoder = MultiMaskWrapper(VisionTransformer(**size, **TINY))
    target = VisionTransformer(**size, **TINY)
    predictor = VisionTransformerPredictor(
        **size,
        embed_dim=48,
        predictor_embed_dim=24,
        depth=1,
        num_heads=2,
        use_mask_tokens=True,
        num_mask_tokens=2,
    )
    predictor = PredictorMultiMaskWrapper(predictor)
    collator = JepaCollator(
        smnm.MaskSampler("green3d", (2, 4, 4), 0.75, seed=0),
        smnm.MaskSampler("green3d", (2, 4, 4), 0.5, seed=1),
    )
    frames = WithSampleIds(VideoFrames([4] * 8, [0.25, 0.25, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05]))
    with mock.patch.object(videos, "VideoDataset", return_value=frames):
        _, loader, _ = videos.make_videodataset(
            ["none"], 2, collator=collator, num_workers=2, pin_mem=False, datasets_weights=[1.0]
        )
    losses, masks = [], []
    for epoch in range(2):
        loader.dataset.set_epoch(epoch)
        for (clips, labels, _), masks_enc, masks_pred in loader:
            masks.append((epoch, labels, masks_enc[0]))
            h = target(clips[0])
            h = apply_masks(h.detach(), masks_pred, concat=False)
            z = predictor(encoder(clips[0], masks_enc), h, masks_enc, masks_pred)
            loss = sum((a - b).abs().mean() for a, b in zip(z, h, strict=True)) / len(z)
            losses.append(step(nn.ModuleList([encoder, predictor]), loss))
    for epoch, labels, context in masks:
        expected = collator.samplers[0].masks(epoch * 8 + labels).ids_keep
        assert torch.equal(context, expected)
    return {
        "ran": "make_videodataset with datasets_weights and 2 persistent workers, encoder, "
        "predictor; 2 epochs, each with the masks of its ids",
        "visible": [[m.shape[1] for m in masks_enc], [m.shape[1] for m in masks_pred]],
        "losses": losses,
    }


@client("facebookresearch+vjepa2")
def vjepa2(folder):
    stub("decord", "psutil")
    import src.datasets.video_dataset as videos
    from src.masks.multiseq_multiblock3d import MaskCollator as Theirs
    from src.masks.utils import apply_masks
    from src.models.predictor import VisionTransformerPredictor
    from src.models.utils.patch_embed import PatchEmbed3D  # noqa: F401
    from src.models.vision_transformer import VisionTransformer
    from src.utils.wrappers import MultiSeqWrapper, PredictorMultiSeqWrapper

    size = {"img_size": (64, 64), "num_frames": 8, "tubelet_size": 2, "use_rope": True}
    encoder = MultiSeqWrapper(VisionTransformer(**size, **TINY))
    target = MultiSeqWrapper(VisionTransformer(**size, **TINY))
    predictor = PredictorMultiSeqWrapper(
        VisionTransformerPredictor(
            **size,
            embed_dim=48,
            predictor_embed_dim=48,
            depth=1,
            num_heads=2,
            use_mask_tokens=True,
            num_mask_tokens=1,
        )
    )
    collator = Vjepa2Collator(
        {n: [smnm.MaskSampler("green3d", (n // 2, 4, 4), 0.75)] for n in (4, 8)}
    )
    block = {
        "spatial_scale": (0.5, 0.5),
        "temporal_scale": (1.0, 1.0),
        "aspect_ratio": (1.0, 1.0),
        "num_blocks": 1,
    }
    theirs = Theirs([block], [4, 8], crop_size=(64, 64))
    frames = VideoFrames([4, 8, 4, 8, 8, 4, 4, 8])
    batch = [frames[i] for i in range(4)]
    form = [[len(part) for part in (triple[1], triple[2])] for triple in theirs(batch)]
    ours = collator([WithSampleIds(frames)[i] for i in range(4)])
    assert form == [[len(part) for part in (triple[1], triple[2])] for triple in ours]
    with mock.patch.object(videos, "VideoDataset", return_value=WithSampleIds(frames)):
        dataset, loader, _ = videos.make_videodataset(
            ["none"], 4, collator=collator, num_workers=2, pin_mem=False, deterministic=True
        )
    losses = []
    for epoch in range(2):
        dataset.set_epoch(epoch)
        for sample in loader:
            clips = [triple[0][0][0] for triple in sample]
            masks_enc, masks_pred = [t[1] for t in sample], [t[2] for t in sample]
            with torch.no_grad():
                h = target(clips)
                h = [
                    apply_masks(hi, mi, concat=False) for hi, mi in zip(h, masks_pred, strict=True)
                ]
            z = predictor(encoder(clips, masks_enc), masks_enc, masks_pred)
            terms = [
                (zij - hij).abs().mean()
                for zi, hi in zip(z, h, strict=True)
                for zij, hij in zip(zi, hi, strict=True)
            ]
            losses.append(step(nn.ModuleList([encoder, predictor]), sum(terms) / len(terms)))
    return {
        "ran": "make_videodataset with 2 workers, their wrappers of encoder and predictor, clips "
        "of 4 and 8 frames",
        "visible": [f"{len(form)} triples, theirs and ours"],
        "losses": losses,
    }
