"""Wrong command lines are refused in one line, whatever tyro's boxes look like."""

import pytest
from testing import need_packages

need_packages("tyro", "av", "kaldi_native_fbank", "sklearn", "PIL")

from smnm_kernels.cli import main  # noqa: E402

_OUT = ("--out", "runs/a")
_CASES = {
    "--steps: got 'abc', a whole number is needed (smnm pretrain --help)": (
        "pretrain", "video", "x", *_OUT, "--steps", "abc",
    ),
    "--lr: got 'fast', a number is needed (smnm pretrain --help)": (
        "pretrain", "video", "x", *_OUT, "--lr", "fast",
    ),
    "--seed: got '1.5', a whole number is needed (smnm pretrain --help)": (
        "pretrain", "video", "x", *_OUT, "--seed", "1.5",
    ),
    "modality vidoe: is none of video, audio, image, audio-video; did you mean video? "
    "(smnm pretrain --help)": (
        "pretrain", "vidoe", "x", *_OUT,
    ),
    "--to onnx: is none of hf-videomae, hf-vitmae, timm, mae (smnm export --help)": (
        "export", "x", *_OUT, "--to", "onnx",
    ),
    "--modalities sound: is none of audio, both, video (smnm finetune --help)": (
        "finetune", "audio-video", "x", "--encoder", "none", *_OUT, "--modalities", "sound",
    ),
    "--out must be given (smnm pretrain --help)": ("pretrain", "video", "x"),
    "DATA and --out must be given (smnm pretrain --help)": ("pretrain", "video"),
    "there is no value after '--out' (smnm pretrain --help)": ("pretrain", "video", "x", "--out"),
    "there is no option --stepz; did you mean --steps? (smnm pretrain --help)": (
        "pretrain", "video", "x", *_OUT, "--stepz", "3",
    ),
    "more: is one argument too many (smnm pretrain --help)": (
        "pretrain", "video", "x", *_OUT, "more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", _CASES)
def test_one_line(message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(_CASES[message]) == 2
    assert capsys.readouterr() == ("", f"smnm: error: {message}\n")
    assert not list(tmp_path.iterdir())


def test_help_is_as_it_was(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pretrain", "--help"])
    assert ended.value.code in (None, 0)
    assert "--mask-ratio" in capsys.readouterr().out
