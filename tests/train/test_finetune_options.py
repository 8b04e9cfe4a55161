"""smnm finetune: what its options, and their sum with the labels, are refused for."""

import labelled_sets as sets
import pytest
from labelled_sets import finetune


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return sets.pictures(tmp_path_factory.mktemp("sets") / "pictures")


@pytest.fixture(scope="module")
def numbered(tmp_path_factory):
    return sets.pictures_with_numbers(tmp_path_factory.mktemp("sets") / "numbered")


WRONG = [
    (("--mask-ratio", 0.3), "--mask-ratio 0.3: is for audio"),
    (("--frames", 8), "--frames 8: image has no such option"),
    (("--stride", 2), "--stride 2: image has no such option"),
    (("--padding", "see"), "--padding see: image has no such option"),
    (("--size", 40), "patch"),
    (("--views", "0x1"), "--views must be CLIPSxCROPS"),
    (("--views", "5"), "--views must be CLIPSxCROPS"),
    (("--label-smoothing", 1), "--label-smoothing must be in [0, 1), got 1"),
    (("--layer-decay", 0), "--layer-decay must be in (0, 1], got 0"),
    (("--drop-path", 1), "--drop-path must be in [0, 1), got 1"),
    (("--mixup", "nan"), "--mixup must be in [0, inf), got nan"),
    (("--mixup", 0.8, "--batch-size", 5), "--batch-size 5: mixing takes pairs of neighbours"),
    (("--cutmix", 1, "--accumulate", 4), "and 1 samples go through the model at a time"),
    (("--preset", "videomae"), "--preset videomae: is of video; image has tiny, mae"),
    (("--evaluate-every", 0), "--evaluate-every must be at least 1, got 0"),
    (("--epochs", 2, "--steps", 3), "--epochs 2: and --steps 3; give one"),
    (("--repeats", 2, "--balanced", 3), "--repeats 2: and --balanced; give one"),
    (("--repeats", 0), "--repeats must be at least 1, got 0"),
    (("--val-share", 1), "--val-share must be in [0, 1), got 1"),
    (("--lr", -1), "--lr must be a finite number >= 0"),
    (("--device", "tpu"), "--device tpu: not there"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_wrong_options_are_refused_before_any_work(pictures, tmp_path, capsys, given, said):
    run = tmp_path / "run"
    assert finetune("image", pictures, run, *given) == 2
    assert said in capsys.readouterr().err
    assert not run.exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--label-smoothing", 0.1), "--label-smoothing 0.1: is for one class a file"),
        (("--cutmix", 1.0), "--cutmix 1.0: is for classes, and labels are numbers"),
        (("--balanced", 5), "--balanced 5: is for classes, and labels are numbers"),
    ],
)
def test_what_numbers_cannot_have_is_refused(numbered, tmp_path, capsys, given, said):
    run = tmp_path / "run"
    named = ("--labels", "number", "--label-column", "brightness")
    assert finetune("image", numbered, run, *named, *given) == 2
    assert said in capsys.readouterr().err
    assert not (run / "config.json").exists()
