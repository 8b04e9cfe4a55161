"""Every number that decides a pretraining run, one file a modality.

A preset named after a method does what the method's public code does; one named snm-... does what
the tables of the structured-noise paper say (arXiv 2503.16311), and takes from the code of the
method under it what they leave out, augmentations aside. `small` and `base` are the methods'
recipes with structured masks, for ViT-S and ViT-B. `tiny` is ours altogether: it shows the whole
path on two CPU cores in about a minute and is no recipe for good features.

Known differences. MAE's and AudioMAE's code also decays the class token and the mask token; here,
as in VideoMAE's code, only weight matrices decay. The warmup begins at its first step's share of
the peak, where the codes begin at 0.

Sources, by the names in the comments. VideoMAE: Tong et al. 2022 and MCG-NJU/VideoMAE. MAE: He et
al. 2022 and facebookresearch/mae. AudioMAE: Huang et al. 2022 and facebookresearch/AudioMAE.
CAV-MAE: Gong et al. 2023 and YuanGongND/cav-mae. SNM: the structured-noise paper. MaskSpec: Chong
et al. 2022 and WangHelin1997/MaskSpec. MSM-MAE: Niizumi et al. 2022 and nttcslab/msm-mae; M2D:
nttcslab/m2d, which trains it anew. DWM: the paper on dispersion-weighted masking (arXiv 2603.23810)
and its author's code, which adds to M2D's. SIGMA: Salehi et al. 2024 and QUVA-Lab/SIGMA.
"""

from __future__ import annotations

from .audio import AUDIO
from .audio_video import AUDIO_VIDEO
from .image import IMAGE
from .preset import Preset
from .video import VIDEO

PRESETS: dict[str, dict[str, Preset]] = {
    "video": VIDEO,
    "audio": AUDIO,
    "image": IMAGE,
    "audio-video": AUDIO_VIDEO,
}
