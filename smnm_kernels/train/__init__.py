"""Pretraining with structured masks, from a folder of ordinary files.

The command line is `smnm pretrain` and `smnm demo`; `loop.pretrain` is the same job from Python,
and `model.load_encoder` loads what a run exports. All of it needs
`pip install 'smnm_kernels[train]'`. Nothing is imported here, so that help answers at once.

data/    kinds of data: from files to batches
models/  models, what they learn, their file formats
run/     the run folder and the resumable loop, for any task
tasks/   what can be trained: options, recipes, what a step is
"""
