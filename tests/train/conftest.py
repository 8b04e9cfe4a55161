import shutil
import subprocess

import pytest
from testing import need_packages

need_packages("av", "kaldi_native_fbank", "safetensors", "tqdm", "tyro", "PIL")

import torch  # noqa: E402
from clips import pretrain, write_picture, write_sound, write_video  # noqa: E402


def pytest_collection_modifyitems(items):
    for item in items:
        if "straight" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    for i in range(4):
        write_video(folder / f"clip{i}.mp4", n=40 + 4 * i)
    return folder


@pytest.fixture(scope="session")
def sounds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sounds")
    for i in range(4):
        write_sound(folder / f"{i}.wav", 6.0, rate=(16000, 44100)[i % 2], hertz=300 + 100 * i)
    return folder


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    for i in range(4):
        write_picture(folder / f"{i}.{('png', 'jpg')[i % 2]}", i)
    return folder


@pytest.fixture(scope="session")
def straight(videos, tmp_path_factory):
    """A run of 12 steps that nothing disturbed."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert pretrain(videos, "--out", run, "--steps", 12, "--checkpoint-every", 3) == 0
    return run


@pytest.fixture(scope="session")
def ffmpeg():
    """The program, which gives its output; skips where it is missing."""
    program = shutil.which("ffmpeg")
    if not program:
        pytest.skip("the program ffmpeg is not installed")

    def run(*arguments):
        words = [program, "-v", "quiet", "-threads", "1", *map(str, arguments)]
        return subprocess.run(words, stdout=subprocess.PIPE, check=False).stdout

    return run
