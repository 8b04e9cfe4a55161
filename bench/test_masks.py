"""The masks section of ``smnm bench`` under pytest-benchmark: ``pytest bench/``.

Absolute times of this machine; ratios of paired times are what ``smnm bench`` prints.
"""

import pytest
import torch

from smnm_kernels.timing.mask_making import SHAPES, check_ops, contenders

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH = 64
CASES = [(shape, c) for shape in SHAPES for c in contenders(shape, BATCH, DEVICE)]
NAMES = [f"{shape.name}-{contender.what}" for shape, contender in CASES]


@pytest.fixture(scope="module", autouse=True)
def _ops_equal_their_definition():
    check_ops(DEVICE)


@pytest.mark.parametrize(("shape", "contender"), CASES, ids=NAMES)
def test_masks(benchmark, shape, contender):
    benchmark.group = f"{shape}, B={BATCH}, {torch.get_num_threads()} threads, {DEVICE}"

    def call():
        contender.run()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()

    benchmark.pedantic(call, rounds=10, warmup_rounds=2)
