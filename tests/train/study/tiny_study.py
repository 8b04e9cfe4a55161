"""A study of seconds: pictures of two classes, a small ViT, a step or three."""

import numpy as np
import PIL.Image

PLAN = """
about = "A study of seconds."
modality = "image"
n_keep = 4
seeds = 2

[pretrain]
preset = "tiny"
size = 64
steps = 3
batch_size = 2

[data.colours]
make = "paint them"

[runs]
random = { mask = "random" }
green2d = { mask = "green2d", mask_options = ["sigma=variant-3"] }
untrained = { untrained = true, seeds = 1 }

[measures.loss]
with = "loss"
common = "blue2d"
clips = 3
masks = 2

[measures.class]
with = "probe"
probes = ["linear"]
few_shot = [2]
draws = 2
at = [2]

[[tables]]
title = "Table 6"
rows = ["random", "green2d"]
columns = ["loss.own", "loss.common", "class.linear", "class.linear@2"]
reference = "random"
source = "Table 6"
paper = { "loss.own" = "audio loss" }

[[orderings]]
claim = "random is easier"
value = "loss.own"
ascending = ["random", "green2d"]
source = "Table 6"
"""


def write_pictures(folder, n=6):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number, name in enumerate(("dark", "bright")):
            (folder / split / name).mkdir(parents=True)
            for i in range(n):
                pixels = rng.integers(0, 120, (32, 32, 3)) + 100 * number
                PIL.Image.fromarray(pixels.astype(np.uint8)).save(
                    folder / split / name / f"{i:02}.png"
                )
