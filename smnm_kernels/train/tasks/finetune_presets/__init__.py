"""Every number that decides a fine-tuning run, one file a modality.

A preset named after a method does what its public code does: `videomae` for Kinetics-400,
`videomae-ssv2` for Something-Something v2, `mae` for ImageNet, `audiomae-...` for AudioSet-20K,
AudioSet-2M and ESC-50, `maskspec-...` for AudioSet, ESC-50 and Speech Commands. `snm-video` and
`snm-audio` take the structured-noise paper's Tables A.10 and A.13 (arXiv 2503.16311), and from the
method's code what they leave out, augmentations aside. `tiny` is ours: it shows the whole path on
two CPU cores in a minute or two.

Known differences from the codes. Neighbours are mixed, each pair with a share of its own, where the
codes draw one for a whole batch. AudioMAE mixes waveforms, here powers of spectrograms are mixed.
On AudioSet-2M its balanced draw chooses the files of an epoch, and uniform chance whom each is
mixed with (its code notes that a balanced partner makes the results worse); here both of a pair
come from the balanced draw. Its patches are masked by columns of time and rows of mel bands that
are drawn apart; here our kind time_frequency masks as many. The head starts as N(0, 2e-5), which is
also what VideoMAE's code starts with (0.02 times 0.001). VideoMAE's num_sample reads each file so
many times for a batch, which then holds as many more samples, at the same rates and steps;
--repeats leaves the batch as large as it is, and a pass takes more steps. MAE's and MaskSpec's code
also train the position codes. Of what MaskSpec's code does to waveforms (mixing, gain, shifts,
effects) nothing is done, its balanced draw has weights of 1000 / (100 + count), and it leaves out
the same patches of all samples of a batch. CAV-MAE mixes half of the samples with any other file,
by waveforms; here powers, and neighbours. It rolls padding along; where padding is hidden, here
only what is real is rolled. The average of its checkpoints is what it tests; here the best on val
counts. Warm-up begins at its first step's share of the peak.

Sources, by the names in the comments. VideoMAE: MCG-NJU/VideoMAE, its scripts and code. MAE:
facebookresearch/mae, FINETUNE.md and code. AudioMAE: facebookresearch/AudioMAE. SNM: the
structured-noise paper. MaskSpec: WangHelin1997/MaskSpec. CAV-MAE: YuanGongND/cav-mae, its script
for VGGSound and code.
"""

from __future__ import annotations

from .audio import AUDIO
from .audio_video import AUDIO_VIDEO
from .image import IMAGE
from .preset import FinetunePreset
from .video import VIDEO

PRESETS: dict[str, dict[str, FinetunePreset]] = {
    "video": VIDEO,
    "audio": AUDIO,
    "image": IMAGE,
    "audio-video": AUDIO_VIDEO,
}
