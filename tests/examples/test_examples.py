"""Every example runs as it stands, and its loss falls."""

import os
import re
import subprocess
import sys

import pytest
import torch
from testing import ROOT, need_packages

EXAMPLES = ROOT / "examples"
#: What each prints besides its losses.
PRINTED = {
    "audio_video": "moments hidden in both, of 8: [4, 4, 4, 4, 4, 4, 4, 4]",
    "audiomae_rbn": "a bank shows 125 of 128 patches once each",
    "huggingface_videomae": "25 of 256 tokens visible in every clip",
    "mae_images": "16 of 64 patches visible in every picture",
    "point_cloud": "64 of 256 points visible in every cloud",
    "volume_3d": "43 of 216 patches visible in every volume",
}
NO_GPU = not torch.cuda.is_available()


def run(name):
    if name in ("huggingface_videomae", "mae_images"):
        need_packages("transformers", "accelerate")
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", PRINTED)
def test_an_example_trains(name):
    printed = run(name)
    assert PRINTED[name] in printed.splitlines()
    first, last = map(float, re.search(r"^loss (\S+) -> (\S+)$", printed, re.MULTILINE).groups())
    assert last < 0.6 * first


@pytest.mark.slow
@pytest.mark.skipif(not NO_GPU, reason="it runs where there is a CUDA device")
def test_the_cuda_graph_says_why_it_is_skipped():
    assert run("cuda_graph").startswith("skipped: a CUDA graph needs a CUDA device")


@pytest.mark.slow
@pytest.mark.skipif(NO_GPU, reason="needs a CUDA device")
def test_the_cuda_graph_draws_new_masks_in_every_replay():
    lines = run("cuda_graph").splitlines()
    assert [line.split()[-1] for line in lines] == [str(32 * (i + 1)) for i in range(20)]


def test_every_example_is_tested_short_and_says_what_it_shows():
    scripts = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert scripts.keys() == {*PRINTED, "cuda_graph"}
    for name, text in scripts.items():
        assert text.startswith('"""'), name
        assert f"python examples/{name}.py" in text.split('"""')[1], name
        assert len(text.splitlines()) < 80, name
