"""Every number that decides a pretraining run, in one table per modality.

Where the numbers come from. `base` follows the recipes of the two methods as they were published:
VideoMAE (Tong et al. 2022, Kinetics-400 settings of its appendix and scripts) and AudioMAE (Huang
et al. 2022, AudioSet-2M settings of its appendix and scripts). The structured-noise paper (arXiv
2503.16311) trains on top of these two methods and changes the mask; its own Tables A.9 and A.12
were not available to us, so a value there may differ from the one here.
`small` is the same recipe with ViT-S: VideoMAE publishes its decoder (192 wide, 4 blocks), AudioMAE
publishes none, so that one is ours. `tiny` is ours altogether: it shows the whole path on two CPU
cores in about a minute and is no recipe for good features.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """Model, mask and optimisation of one run."""

    # Input: video [3, frames, size, size] (pixels), audio [1, 1, frames, size] (mel frames, bands).
    frames: int
    size: int
    patch: tuple[int, int, int]  # along (T, H, W)
    stride: int  # video: every stride-th frame of the file; audio: not used
    # Mask.
    mask: str
    mask_ratio: float
    # Encoder and decoder (ViT, pre-norm, MLP ratio 4).
    dim: int
    depth: int
    heads: int
    decoder_dim: int
    decoder_depth: int
    decoder_heads: int
    # Optimisation: AdamW, linear warmup to base_lr * batch_size / 256, cosine down to min_lr.
    batch_size: int
    base_lr: float
    min_lr: float
    weight_decay: float
    betas: tuple[float, float]
    epochs: int
    warmup_epochs: int
    # Lengths in steps replace the epochs where they are given.
    steps: int | None
    warmup_steps: int | None
    checkpoint_every: int

    def grid(self, modality: str) -> tuple[int, int, int]:
        """Patches of one sample, (T, H, W); audio is time-major: H = time, W = mel band."""
        t, h, w = self.patch
        if modality == "video":
            return self.frames // t, self.size // h, self.size // w
        return 1, self.frames // h, self.size // w


_VIDEO_COMMON = dict(
    frames=16,  # VideoMAE
    patch=(2, 16, 16),  # VideoMAE: tubes of 2 x 16 x 16
    mask="green3d",  # the structured-noise paper's mask for video
    mask_ratio=0.9,  # VideoMAE
    weight_decay=0.05,  # VideoMAE
    betas=(0.9, 0.95),  # VideoMAE
    epochs=800,  # VideoMAE on Kinetics-400 (2400 on Something-Something v2)
    warmup_epochs=40,  # VideoMAE
)

# Stride 4 is VideoMAE on Kinetics-400; it takes 2 on Something-Something v2.
VIDEO: dict[str, Preset] = {
    "tiny": Preset(
        **_VIDEO_COMMON,
        stride=2, size=96,
        dim=192, depth=4, heads=3,
        decoder_dim=128, decoder_depth=2, decoder_heads=4,
        batch_size=8, base_lr=3.2e-2, min_lr=1e-5,
        steps=300, warmup_steps=30, checkpoint_every=50,
    ),
    "small": Preset(
        **_VIDEO_COMMON,
        stride=4, size=224,
        dim=384, depth=12, heads=6,
        decoder_dim=192, decoder_depth=4, decoder_heads=3,
        batch_size=1024, base_lr=1.5e-4, min_lr=1e-5,
        steps=None, warmup_steps=None, checkpoint_every=500,
    ),
    "base": Preset(
        **_VIDEO_COMMON,
        stride=4, size=224,
        dim=768, depth=12, heads=12,
        decoder_dim=384, decoder_depth=4, decoder_heads=6,
        batch_size=1024, base_lr=1.5e-4, min_lr=1e-5,
        steps=None, warmup_steps=None, checkpoint_every=500,
    ),
}  # fmt: skip

_AUDIO_COMMON = dict(
    size=128,  # AudioMAE: 128 mel bands
    patch=(1, 16, 16),  # AudioMAE
    stride=1,
    mask="rbn",  # the structured-noise paper's mask for audio
    mask_ratio=0.8,  # AudioMAE
    weight_decay=1e-4,  # AudioMAE's scripts
    betas=(0.9, 0.95),  # AudioMAE
    epochs=32,  # AudioMAE on AudioSet-2M
    warmup_epochs=3,  # AudioMAE
)

AUDIO: dict[str, Preset] = {
    "tiny": Preset(
        **_AUDIO_COMMON,
        frames=512,
        dim=192, depth=4, heads=3,
        decoder_dim=128, decoder_depth=2, decoder_heads=4,
        batch_size=8, base_lr=3.2e-2, min_lr=1e-5,
        steps=300, warmup_steps=30, checkpoint_every=50,
    ),
    "small": Preset(
        **_AUDIO_COMMON,
        frames=1024,
        dim=384, depth=12, heads=6,
        decoder_dim=256, decoder_depth=8, decoder_heads=8,
        batch_size=512, base_lr=2e-4, min_lr=1e-6,
        steps=None, warmup_steps=None, checkpoint_every=500,
    ),
    # AudioMAE's decoder has 16 blocks of 512. Its blocks attend in shifted local windows; these
    # attend globally, which its ablation compares with that.
    "base": Preset(
        **_AUDIO_COMMON,
        frames=1024,
        dim=768, depth=12, heads=12,
        decoder_dim=512, decoder_depth=16, decoder_heads=16,
        batch_size=512, base_lr=2e-4, min_lr=1e-6,
        steps=None, warmup_steps=None, checkpoint_every=500,
    ),
}  # fmt: skip

PRESETS: dict[str, dict[str, Preset]] = {"video": VIDEO, "audio": AUDIO}

# Input normalisation. Video: ImageNet channel mean and std of RGB in [0, 1], as VideoMAE.
VIDEO_MEAN = (0.485, 0.456, 0.406)
VIDEO_STD = (0.229, 0.224, 0.225)
# Audio: (x - mean) / (2 std) of the log-mel, AudioSet's figures, as AudioMAE.
AUDIO_MEAN = -4.2677393
AUDIO_STD = 4.5689974
