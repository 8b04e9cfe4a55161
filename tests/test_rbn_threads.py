"""The rounds on real threads: ThreadSanitizer sees no race, and the masks are right."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from testing import compiled, kept

import smnm_kernels as smnm

pytestmark = pytest.mark.exhaustive

SOURCE = Path(__file__).parent / "cpp/rbn_rounds_threads.cpp"
WEIGHTS = (400, 400, 100, 100)


FLAGS = ("-O0", "-g", "-fsanitize=thread", "-pthread")


def compile_threads(folder):
    what = "a C++ compiler with ThreadSanitizer"
    compiled(SOURCE, folder / SOURCE.stem, *FLAGS, what=what)


@pytest.fixture(scope="module")
def threads():
    """The compiled program."""
    program = kept("ThreadSanitizer", FLAGS, compile_threads) / SOURCE.stem
    # ThreadSanitizer does not start under some kernels' layouts of a process.
    setarch = shutil.which("setarch")
    return [setarch, "-R", str(program)] if setarch else [str(program)]


@pytest.mark.parametrize("random_ties", [False, True])
@pytest.mark.parametrize(
    ("sides", "n_keep", "n_candidates", "batch", "weights"),
    [
        ((64, 8), 102, 5, 10, WEIGHTS),
        ((9, 7), 40, 6, 12, WEIGHTS),  # several sweeps
        ((1, 3), 1, 2, 300, WEIGHTS),  # more rows than share a run
        ((6, 5), 2, 40, 41, WEIGHTS),
        ((9, 7), 40, 6, 12, (10**7, 10**7, 5 * 10**6, 5 * 10**6)),  # pairs of 64 bits
        ((1, 1), 1, 1, 2, WEIGHTS),
    ],
)
def test_no_races(threads, sides, n_keep, n_candidates, batch, weights, random_ties):
    numbers = (*sides, n_keep, n_candidates, int(random_ties), 3, batch, *weights)
    done = subprocess.run([*threads, *map(str, numbers)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:4000]
    assert done.stderr == ""
    n_tokens = sides[0] * sides[1]
    rule = (None, 3, [1, *sides], n_keep, n_candidates, [3, 5], list(weights), random_ties)
    if smnm.build_info() is None:
        pytest.skip("without the C++ extension there is nothing fast to compare with")
    rows = torch.cat([m.long() for m in torch.ops.smnm.rbn_masks(torch.arange(batch), *rule)], 1)
    bank = torch.ops.smnm.rbn_bank(torch.arange(n_tokens).flip(0)[None], *rule)
    expected = [*rows.flatten().tolist(), *bank.flatten().long().tolist()]
    assert [int(number) for number in done.stdout.split()] == expected
