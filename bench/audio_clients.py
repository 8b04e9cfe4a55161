"""Audio models of bench/clients.py, and fairseq's loaders."""

import dataclasses
import functools
import sys
from types import SimpleNamespace
from unittest import mock

import torch
from client_common import TINY, TINY_DECODER, client, no_cuda, package, stub, trained
from torch import nn

import smnm_kernels as smnm
from smnm_kernels.adapters import (
    ClonedMasks,
    install,
)


@client("facebookresearch+AudioMAE", timm="0.3.2")
def audiomae(folder):
    import timm.models.vision_transformer  # noqa: F401, before the rest of timm is a stub

    no_cuda()
    stub("timm.models.swin_transformer")
    import models_mae

    small = {
        "img_size": (1024, 128),
        "in_chans": 1,
        "audio_exp": True,
        **TINY,
        **TINY_DECODER,
        "decoder_mode": 0,
    }
    found, visible = {}, []
    for name, more, n_keep in (
        ("random_masking", {}, 102),
        ("random_masking_2d", {"mask_2d": True, "mask_t_prob": 0.3, "mask_f_prob": 0.3}, 44 * 5),
    ):
        model = models_mae.MaskedAutoencoderViT(**small, **more)
        x = torch.randn(2, 512, 48)
        theirs = model.random_masking_2d(x, 0.3, 0.3) if more else model.random_masking(x, 0.8)
        install(model, smnm.MaskSampler("rbn", (64, 8), n_keep=n_keep))
        losses = trained(model, lambda m: m(torch.randn(2, 1, 1024, 128), mask_ratio=0.8)[0])
        found[name] = losses
        assert int(model.mask_sampler.next_id) == 6
        visible.append([theirs[0].shape[1], n_keep])
    return {
        "ran": "MaskedAutoencoderViT.forward, both methods",
        "visible": visible,
        "losses": found,
    }


@client("YuanGongND+cav-mae", timm="0.3.2")
def cav_mae(folder):
    package("cav_models", folder / "src" / "models")
    from cav_models.cav_mae import CAVMAE

    model = CAVMAE(
        audio_length=1024,
        embed_dim=48,
        modality_specific_depth=11,
        num_heads=2,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    audio = smnm.MaskSampler("rbn", (64, 8), 0.75, freq_major=True)
    a, v = torch.randn(2, 512, 48), torch.randn(2, 196, 48)
    theirs = [model.random_masking_unstructured(x, 0.75)[0].shape[1] for x in (a, v)]
    wrapped = nn.DataParallel(model)
    install(wrapped, audio, smnm.MaskSampler("green2d", (14, 14), 0.75))
    ours = [model.random_masking_unstructured(x, 0.75)[0].shape[1] for x in (a, v)]
    losses = {}
    for mode in ("unstructured", "time", "freq", "tf"):

        def loss(_, mode=mode):
            spectrogram, frame = torch.randn(2, 1024, 128), torch.randn(2, 3, 224, 224)
            return wrapped(
                spectrogram,
                frame,
                0.75,
                0.75,
                mae_loss_weight=1,
                contrast_loss_weight=0.01,
                mask_mode=mode,
            )[0]

        losses[mode] = trained(model, loss, 2)
    return {
        "ran": "CAVMAE in nn.DataParallel (on the CPU: no copies)",
        "visible": [theirs, ours],
        "losses": losses,
    }


@client("nttcslab+m2d", timm="0.3.2")
def m2d(folder):
    """Its README patches MAE's files: ``folder`` here is a copy where that is done."""
    sys.path.insert(0, str(folder / "m2d"))
    stub("nnAudio", "nnAudio.features")
    import models_mae

    name = next(n for n in ("M2D", "MaskedAutoencoderViT") if hasattr(models_mae, n))
    model = getattr(models_mae, name)(
        img_size=(80, 608),
        patch_size=(16, 16),
        in_chans=1,
        embed_dim=48,
        depth=1,
        num_heads=2,
        decoder_embed_dim=32,
        decoder_depth=1,
        decoder_num_heads=2,
    )
    theirs = model._random_mask_fn((2, 5, 38), 0.7, "cpu")
    install(model, smnm.MaskSampler("rbn", (38, 5), 0.7, freq_major=True))
    ours = model._random_mask_fn((2, 5, 38), 0.7, "cpu")
    assert ours[0].shape == theirs[0].shape
    losses = trained(model, lambda m: m(torch.randn(2, 1, 80, 608), mask_ratio=0.7)[0])
    return {"ran": f"{name}.forward", "visible": [theirs[1], ours[1]], "losses": losses}


def fairseq(folder):
    """fairseq without what its __init__ imports (hydra and its compiled parts)."""
    package("fairseq", folder / "fairseq")
    package("fairseq.data", folder / "fairseq" / "data")
    stub("fairseq.file_io", "fairseq.utils", "fairseq.modules")
    from fairseq.data.fairseq_dataset import FairseqDataset

    sys.modules["fairseq.data"].FairseqDataset = FairseqDataset


@client("facebookresearch+fairseq", timm=None)
def data2vec(folder):
    fairseq(folder)
    from fairseq.data.iterators import EpochBatchIterator

    package("data2vec_data", folder / "examples" / "data2vec" / "data")
    from data2vec_data.mae_image_dataset import MaeImageDataset

    for name in ("", ".data2vec", ".data2vec.data", ".data2vec.models"):
        package(f"examples{name}", folder / f"examples{name}".replace(".", "/"))
    package("modalities", folder / "examples" / "data2vec" / "models" / "modalities")
    # Python 3.11 refuses defaults without a hash, which its dataclasses have.
    hashed = functools.partial(dataclasses.dataclass, unsafe_hash=True)
    with mock.patch("dataclasses.dataclass", hashed):
        from modalities.base import ModalitySpecificEncoder

    row = precomputed(MaeImageDataset, EpochBatchIterator)
    model = SimpleNamespace(modality_cfg=SimpleNamespace(keep_masked_pct=0))
    masked = row.pop("masked")
    info = ModalitySpecificEncoder.make_maskinfo(model, torch.randn(len(masked), 196, 4), masked)
    assert not masked.gather(1, info.ids_keep[..., 0]).any()
    assert info.x_unmasked.shape[1] == row["visible"][0]
    return {**row, "ran": row["ran"] + ", ModalitySpecificEncoder.make_maskinfo"}


@client("cwx-worst-one+EAT", timm=None)
def eat(folder):
    fairseq(folder.parent / "facebookresearch+fairseq")
    stub("h5py", "torchaudio", "soundfile")
    from fairseq.data.iterators import EpochBatchIterator

    package("eat", folder)
    package("eat.data", folder / "data")
    stub("eat.data.raw_audio_dataset", "eat.utils.data_utils")
    from eat.data.mae_image_dataset import MaeImageDataset

    row = precomputed(MaeImageDataset, EpochBatchIterator)
    row.pop("masked")
    return row


def precomputed(images, iterator):
    """fairseq's own iterator over the dataset, with our masks in the place of its computed ones."""

    class Ours(images):
        def __init__(self):
            self.key, self.is_compute_mask, self.shuffle, self.clone_batch = "imgs", True, False, 3
            self.masks = ClonedMasks(smnm.MaskSampler("green2d", (14, 14), 0.8), self.clone_batch)

        def __len__(self):
            return 8

        def __getitem__(self, index):
            return {
                "id": index,
                "imgs": torch.zeros(3, 2, 2),
                "precomputed_mask": self.masks(index),
            }

        def set_epoch(self, epoch):
            self.masks.set_epoch(epoch)

    dataset = Ours()
    found = {}
    for persistent in (True, False):
        epochs = iterator(
            dataset=dataset,
            collate_fn=dataset.collater,
            batch_sampler=[[0, 1], [2, 3], [4, 5], [6, 7]],
            num_workers=2,
            reuse_dataloader=persistent,
            persistent_workers=persistent,
        )
        found[persistent] = []
        for _ in range(3):
            batches = list(epochs.next_epoch_itr(shuffle=False, fix_batches_to_gpus=False))
            inputs = [batch["net_input"]["precomputed_mask"] for batch in batches]
            found[persistent].append(torch.cat(inputs))
    assert all(torch.equal(a, b) for a, b in zip(found[True], found[False], strict=True))
    different = torch.cat(found[True]).unique(dim=0).shape[0]
    assert different == 3 * 8 * 3
    return {
        "ran": "EpochBatchIterator with persistent workers and a reused loader: 3 epochs, all "
        f"{different} masks differ, and equal those without persistent workers; collater",
        "visible": [int((found[True][0][0] == 0).sum())],
        "losses": [],
        "masked": found[True][0],
    }
