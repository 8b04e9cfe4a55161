"""Pretraining with structured masks, from a folder of ordinary files.

The command line is `smnm pretrain` and `smnm demo`; `loop.pretrain` is the same job from Python,
and `model.load_encoder` loads what a run exports. `smnm finetune` is
`tasks.finetune.finetune`, and `model.load_classifier` loads what it keeps. All of it needs
`pip install 'smnm_kernels[train]'`. `decode` gives a whole file as the trainer sees it; it is
imported when it is asked for, so that help answers at once.

data/    kinds of data: from files to batches
models/  models, what they learn, their file formats
run/     the run folder and the resumable loop, for any task
tasks/   what can be trained: options, recipes, what a step is
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .data.decoding import decode as decode

__all__ = ["decode"]


def __getattr__(name: str) -> Any:
    if name == "decode":
        from .data.decoding import decode

        return decode
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
