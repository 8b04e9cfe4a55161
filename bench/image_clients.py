"""Image models of bench/clients.py."""

import importlib.metadata
import sys
import tempfile
from types import SimpleNamespace
from unittest import mock

import torch
from client_common import TINY, TINY_DECODER, client, no_cuda, package, step, stub, trained
from torch import nn
from torch.utils.data import DataLoader, Dataset

import smnm_kernels as smnm
from smnm_kernels.adapters import (
    JepaCollator,
    install,
)
from smnm_kernels.loading import WithSampleIds


@client("facebookresearch+mae", timm="0.3.2")
def mae(folder):
    from engine_pretrain import train_one_epoch
    from models_mae import MaskedAutoencoderViT

    no_cuda()
    model = MaskedAutoencoderViT(**TINY, **TINY_DECODER)
    images = [(torch.randn(3, 224, 224), 0) for _ in range(6)]
    older = model.state_dict()
    theirs = model.random_masking(torch.randn(2, 196, 48), 0.75)
    install(nn.DataParallel(model), smnm.MaskSampler("green2d", (14, 14), 0.75))
    model.load_state_dict(older, strict=True)
    ours = model.random_masking(torch.randn(2, 196, 48), 0.75)
    assert [(t.shape, t.dtype) for t in ours] == [(t.shape, t.dtype) for t in theirs]
    _, _, removed = model(torch.randn(2, 3, 224, 224), mask_ratio=0)
    assert not removed.any()
    arguments = SimpleNamespace(
        accum_iter=1, mask_ratio=0.75, lr=1e-3, min_lr=0, warmup_epochs=0, epochs=1
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)

    def scaler(loss, optimizer, parameters, update_grad):
        loss.backward()
        optimizer.step()

    stats = train_one_epoch(
        model, DataLoader(images, 2), optimizer, torch.device("cpu"), 0, scaler, args=arguments
    )
    assert int(model.mask_sampler.next_id) == 2 + 6
    return {
        "ran": "engine_pretrain.train_one_epoch, strict load of an older checkpoint, mask_ratio=0",
        "visible": [theirs[0].shape[1], ours[0].shape[1]],
        "losses": [round(stats["loss"], 4)],
    }


@client("carlosh93+ColorMAE", timm=None)
def colormae(folder):
    sys.modules.setdefault("importlib_metadata", importlib.metadata)
    from mmengine.runner import Runner

    package("colormae_models", folder / "models")
    from colormae_models.colormae import ColorMAEViT

    def pictures(batch):
        from mmpretrain.structures import DataSample

        return {"inputs": torch.stack(batch), "data_samples": [DataSample() for _ in batch]}

    size = {"embed_dims": 48, "num_layers": 1, "num_heads": 2, "feedforward_channels": 96}
    backbone = {"type": ColorMAEViT, "arch": size, "patch_size": 16, "mask_type": "random"}
    neck = {"type": "MAEPretrainDecoder", "embed_dim": 48, "mlp_ratio": 2.0}
    loss = {"type": "PixelReconstructionLoss", "criterion": "L2"}
    loader = DataLoader(list(torch.randn(6, 3, 224, 224)), 2, collate_fn=pictures)
    with tempfile.TemporaryDirectory() as work_dir:
        runner = Runner(
            model={
                "type": "MAE",
                "backbone": backbone,
                "neck": {**neck, **TINY_DECODER, "decoder_num_heads": 2},
                "head": {
                    "type": "MAEPretrainHead",
                    "norm_pix": True,
                    "patch_size": 16,
                    "loss": loss,
                },
            },
            work_dir=work_dir,
            train_dataloader=loader,
            train_cfg={"by_epoch": True, "max_epochs": 1},
            optim_wrapper={"optimizer": {"type": "SGD", "lr": 1e-3}},
            default_scope="mmpretrain",
            default_hooks={"logger": {"type": "LoggerHook", "interval": 1}},
        )
        model = runner.model
        theirs = model.backbone.random_masking(torch.randn(2, 196, 48), 0.75)[0].shape[1]
        install(runner, smnm.MaskSampler("green2d", (14, 14), 0.75))
        runner.train()
        logged, _ = runner.message_hub.get_scalar("train/loss").data
        losses = [round(float(value), 4) for value in logged]
    assert int(model.backbone.mask_sampler.next_id) == 6
    ours = model.backbone.color_masking(torch.randn(2, 196, 48))[0].shape[1]
    return {
        "ran": "MMEngine's Runner.train, MMPretrain's MAE over ColorMAEViT, install(runner, ...)",
        "visible": [theirs, ours],
        "losses": losses,
    }


@client("facebookresearch+hiera")
def hiera(folder):
    package("hiera", folder / "hiera")
    stub("hiera.hfhub")
    sys.modules["hiera.hfhub"].has_config = lambda made: made
    sys.modules["hiera.hfhub"].PyTorchModelHubMixin = type("Mixin", (), {})
    from hiera.hiera_mae import MaskedAutoencoderHiera

    small = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 1, 1), "decoder_num_heads": 1}
    image = MaskedAutoencoderHiera(
        input_size=(224, 224), q_pool=2, **small, decoder_embed_dim=32, decoder_depth=1
    )
    video = MaskedAutoencoderHiera(
        input_size=(16, 224, 224),
        q_stride=(1, 2, 2),
        mask_unit_size=(1, 8, 8),
        patch_kernel=(3, 7, 7),
        patch_stride=(2, 4, 4),
        patch_padding=(1, 3, 3),
        sep_pos_embed=True,
        q_pool=2,
        **small,
        decoder_embed_dim=32,
        decoder_depth=1,
    )
    found, visible = {}, []
    for name, model, kind, ratio, x in (
        ("image", image, "green2d", 0.6, torch.randn(2, 3, 224, 224)),
        ("video", video, "green3d", 0.9, torch.randn(1, 3, 16, 224, 224)),
    ):
        theirs = int(model.get_random_mask(x, ratio)[0].sum())
        sampler = smnm.MaskSampler(kind, model.mask_spatial_shape, n_keep=theirs)
        kept = sampler(len(x)).hiera_kept
        loss = model(x, mask_ratio=ratio, mask=kept)[0]
        install(model, sampler)
        found[name] = [
            round(float(loss), 4),
            *trained(model, lambda m, x=x, ratio=ratio: m(x, mask_ratio=ratio)[0], 2),
        ]
        visible.append([theirs, int(model.get_random_mask(x, ratio)[0].sum())])
    return {
        "ran": "MaskedAutoencoderHiera.forward, mask= and installed; units "
        f"{image.mask_spatial_shape} and {video.mask_spatial_shape}",
        "visible": visible,
        "losses": found,
    }


@client("facebookresearch+ijepa")
def ijepa(folder):
    import src.datasets.imagenet1k as imagenet
    from src.masks.multiblock import MaskCollator as Theirs
    from src.masks.utils import apply_masks
    from src.models.vision_transformer import VisionTransformer, VisionTransformerPredictor

    class Pictures(Dataset):
        def __len__(self):
            return 8

        def __getitem__(self, index):
            return torch.randn(3, 64, 64), index

    collator = JepaCollator(smnm.MaskSampler("green2d", (4, 4), 0.75))
    with mock.patch.object(imagenet, "ImageNet", return_value=WithSampleIds(Pictures())):
        dataset, loader, _ = imagenet.make_imagenet1k(
            None, 4, collator=collator, num_workers=2, pin_mem=False
        )
    encoder = VisionTransformer(img_size=[64], **TINY)
    predictor = VisionTransformerPredictor(
        16, embed_dim=48, predictor_embed_dim=24, depth=1, num_heads=2
    )
    target = VisionTransformer(img_size=[64], **TINY)
    losses, shapes = [], set()
    for epoch in range(2):
        dataset.set_epoch(epoch)
        for (images, _), masks_enc, masks_pred in loader:
            h = apply_masks(target(images).detach(), masks_pred)
            z = predictor(encoder(images, masks_enc), masks_enc, masks_pred)
            losses.append(
                step(nn.ModuleList([encoder, predictor]), nn.functional.smooth_l1_loss(z, h))
            )
            shapes.add((masks_enc[0].shape[1], masks_pred[0].shape[1]))
    form = [
        type(part).__name__
        for part in Theirs(input_size=64, nenc=1, npred=1, min_keep=0)([(0, 0)] * 2)
    ]
    assert form[1:] == ["list", "list"]
    [(context, targets)] = shapes
    return {
        "ran": "make_imagenet1k with 2 workers, encoder, predictor, apply_masks; 2 epochs",
        "visible": [f"{context} + {targets} of 16 tokens"],
        "losses": losses,
    }


@client(None, timm="1")
def lightly(folder):
    from lightly.models import utils
    from lightly.models.modules import MAEDecoderTIMM, MaskedVisionTransformerTIMM
    from timm.models.vision_transformer import VisionTransformer

    vit = VisionTransformer(img_size=64, patch_size=16, embed_dim=48, depth=1, num_heads=2)
    backbone = MaskedVisionTransformerTIMM(vit=vit)
    decoder = MAEDecoderTIMM(
        num_patches=16,
        patch_size=16,
        embed_dim=48,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    sampler = smnm.MaskSampler("green2d", (4, 4), 0.75)
    theirs, _ = utils.random_token_mask(size=(2, 17), mask_ratio=0.75)

    def loss(model):
        images = torch.randn(2, 3, 64, 64)
        masks = sampler(2).with_prefix(1)
        idx_keep, idx_mask = masks.ids_keep, masks.ids_masked
        encoded = backbone.encode(images=images, idx_keep=idx_keep)
        tokens = utils.repeat_token(decoder.mask_token, (2, 17))
        tokens = utils.set_at_index(tokens, idx_keep, decoder.embed(encoded).type_as(tokens))
        predicted = decoder.predict(utils.get_at_index(decoder.decode(tokens), idx_mask))
        target = utils.get_at_index(utils.patchify(images, 16), idx_mask - 1)
        return nn.functional.mse_loss(predicted, target)

    losses = trained(nn.ModuleList([backbone, decoder]), loss)
    ours = sampler(2).with_prefix(1).ids_keep
    return {
        "ran": "MaskedVisionTransformerTIMM.encode, MAEDecoderTIMM, utils, as lightly's example",
        "visible": [theirs.shape[1], ours.shape[1]],
        "losses": losses,
    }


@client(None, timm="1")
def timm_vit(folder):
    from timm.models.vision_transformer import VisionTransformer

    found, visible = {}, []
    for registers in (0, 4):
        model = VisionTransformer(
            img_size=64, patch_size=16, embed_dim=48, depth=1, num_heads=2, reg_tokens=registers
        )
        sampler = smnm.MaskSampler("green2d", (4, 4), 0.75)

        def loss(model, sampler=sampler):
            x = model._pos_embed(model.patch_embed(torch.randn(2, 3, 64, 64)))
            ids = sampler(2).with_prefix(model.num_prefix_tokens).ids_keep
            x = model.blocks(x.gather(1, ids[..., None].expand(-1, -1, x.shape[2])))
            assert x.shape[1] == model.num_prefix_tokens + 4
            return model.norm(x).square().mean()

        found[f"{registers} registers"] = trained(model, loss)
        visible.append(model.num_prefix_tokens + 4)
    return {"ran": "VisionTransformer, by hand", "visible": visible, "losses": found}
