"""Every example runs as it stands, and its loss falls."""

import itertools
import re
import subprocess
import sys

import pytest
import torch
from testing import ROOT, made_once, need_packages, with_path

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


#: Each script in a process of its own, for which nothing is imported again (so one that lacks an
#: import of these would not be noticed).
PROGRAM = """
import os, runpy, sys
import torch._dynamo, transformers, smnm_kernels
for script, output in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.fork() == 0:
        file = os.open(output, os.O_WRONLY | os.O_CREAT)
        os.dup2(file, 1)
        os.dup2(file, 2)
        sys.argv = [script]
        runpy.run_path(script, run_name="__main__")
        sys.exit()
    status = os.waitstatus_to_exitcode(os.wait()[1])
    with open(output, "a") as file:
        file.write(f"exit code {status}\\n")
"""


def python(*words):
    environment = {**with_path(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def output_folder(tmp_path_factory):
    need_packages("transformers", "accelerate")

    def run_all(folder):
        pairs = [(EXAMPLES / f"{name}.py", folder / f"{name}.txt") for name in PRINTED]
        python("-c", PROGRAM, *itertools.chain.from_iterable(pairs))

    return made_once(tmp_path_factory, "examples", run_all)


@pytest.mark.exhaustive
@pytest.mark.parametrize("name", PRINTED)
def test_an_example_trains(output_folder, name):
    printed = (output_folder / f"{name}.txt").read_text()
    assert printed.splitlines()[-1] == "exit code 0", printed
    assert PRINTED[name] in printed.splitlines(), printed
    first, last = map(float, re.search(r"^loss (\S+) -> (\S+)$", printed, re.MULTILINE).groups())
    assert last < 0.6 * first


@pytest.mark.slow
@pytest.mark.skipif(not NO_GPU, reason="it runs where there is a CUDA device")
def test_the_cuda_graph_says_why_it_is_skipped():
    assert python(EXAMPLES / "cuda_graph.py").startswith(
        "skipped: a CUDA graph needs a CUDA device"
    )


@pytest.mark.slow
@pytest.mark.skipif(NO_GPU, reason="needs a CUDA device")
def test_the_cuda_graph_draws_new_masks_in_every_replay():
    lines = python(EXAMPLES / "cuda_graph.py").splitlines()
    assert [line.split()[-1] for line in lines] == [str(32 * (i + 1)) for i in range(20)]


def test_every_example_is_tested_short_and_says_what_it_shows():
    scripts = {path.stem: path.read_text() for path in EXAMPLES.glob("*.py")}
    assert scripts.keys() == {*PRINTED, "cuda_graph"}
    for name, text in scripts.items():
        assert text.startswith('"""'), name
        assert f"python examples/{name}.py" in text.split('"""')[1], name
        assert len(text.splitlines()) < 80, name
