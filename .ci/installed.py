"""Checks the package that is installed outside this tree: python .ci/installed.py [FOLDER]

The masks of what runs must equal the reference's. With FOLDER the package must lie in it.
--reference: no library was built.
"""

import argparse
from importlib.metadata import version
from pathlib import Path

import torch

import smnm_kernels as smnm

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path, nargs="?")
parser.add_argument("--reference", action="store_true")
options = parser.parse_args()

where = Path(smnm.__file__).resolve()
tree = Path(__file__).resolve().parent.parent
assert not where.is_relative_to(tree), where
assert options.folder is None or where.is_relative_to(options.folder.resolve()), where
backend = "reference" if options.reference else "cpu"
assert smnm.backends()[backend] == "active", smnm.backends()
assert (smnm.build_info() is None) == options.reference, smnm.build_info()
assert smnm.__version__ == version("smnm_kernels")

ids = torch.arange(-3, 3)
for make, reference, call in (
    (smnm.noise_masks, smnm.reference.noise_masks, ((8, 14, 14), "green", 0.9)),
    (smnm.rbn_masks, smnm.reference.rbn_masks, ((1, 64, 8), 0.8)),
):
    for ours, theirs in zip(make(ids, *call), reference(ids, *call), strict=True):
        assert torch.equal(ours, theirs), call
print(f"smnm_kernels {smnm.__version__} runs from {where.parent}: {smnm.backends()}")
