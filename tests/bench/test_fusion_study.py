"""The study of fusion and retrieval: what it draws, compares and counts, and a tiny one whole."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from testing import need_packages

need_packages("av", "tqdm", "PIL", "sklearn")

import fusion_report  # noqa: E402
import fusion_study  # noqa: E402
import sounding_sprites  # noqa: E402
from fusion_study import Setting  # noqa: E402

TINY = {"size": 16, "frames": 2, "sound": 32, "patch": 8, "dim": 12, "blocks": 2, "batch-size": 2}
TINY |= {"steps": 2, "pretraining": 2}


def test_no_batch_holds_two_clips_of_a_group():
    groups = [np.arange(4 * k, 4 * k + 4) for k in range(6)] + [np.array([24])]
    batches = [fusion_study.draw(groups, 5, 0, step) for step in range(100)]
    assert all(len(set(batch // 4)) == 5 for batch in batches)
    assert set(np.concatenate(batches)) == set(range(25))
    assert (fusion_study.draw(groups, 5, 0, 7) == batches[7]).all()


def test_pictures_are_turned_whole_and_by_their_seed():
    video = torch.arange(8 * 2 * 9).view(1, 1, 8, 2, 9).repeat(16, 1, 1, 1, 1)[..., :2]
    out = fusion_study.turned(video, 0, 3)
    assert torch.equal(out, fusion_study.turned(video, 0, 3))
    ways = set()
    for clip in out:  # of each frame the same way: what lies where, but for the frame
        places = clip[0] - clip[0].flatten(1).min(1).values[:, None, None]
        assert (places == places[0]).all()
        ways.add(tuple(places[0].flatten().tolist()))
        assert set(clip.flatten().tolist()) == set(video[0].flatten().tolist())
    assert 4 <= len(ways) <= 8


def test_equivalence_is_two_one_sided_tests():
    from scipy import stats

    ours = [0.97, 0.98, 0.99, 0.975, 0.985]
    theirs = [0.975, 0.97, 0.985, 0.98, 0.985]
    off = np.subtract(ours, theirs)
    above = stats.ttest_1samp(off, -0.02, alternative="greater").pvalue
    below = stats.ttest_1samp(off, 0.02, alternative="less").pvalue
    interval, p = fusion_report.equivalence(ours, theirs)
    assert p == pytest.approx(max(above, below))
    assert interval.value == pytest.approx(off.mean())
    assert fusion_report.equivalence([0.9, 0.9], [0.9, 0.9])[1] == 0
    assert fusion_report.equivalence([0.9, 0.9], [0.8, 0.8])[1] == 1


def test_attention_is_counted():
    setting = Setting()
    video, audio = 4 * 6 * 6, 12 * 4
    wanted = {
        "bottleneck": 2 * ((video + 4) ** 2 + (audio + 4) ** 2),
        "concat": 2 * (video + audio) ** 2,
        "late": 2 * (video**2 + audio**2),
    }
    assert {f: fusion_report.attention_pairs(setting, f) for f in wanted} == wanted


@pytest.mark.slow
def test_a_study_goes_on_and_says_what_it_found(tmp_path, monkeypatch):
    folders = [tmp_path / "a", tmp_path / "b"]
    for seed, folder in enumerate(folders):
        folder.mkdir()
        sounding_sprites.make(folder, groups=7, single=3, frames=15, size=16, seed=seed)
    words = ["fusion_study.py", "--data", *map(str, folders), "--out", str(tmp_path / "out")]
    words += [f"--{name}={value}" for name, value in TINY.items()]
    words += ["--weights", "avt", "--arms", "bottleneck", "concat", "audio", "--seeds", "0"]
    rows = tmp_path / "out" / "rows.jsonl"
    monkeypatch.setattr(sys, "argv", words)
    fusion_study.main()
    assert len(rows.read_text().splitlines()) == 6
    with monkeypatch.context() as patch:  # everything is there
        patch.delattr(fusion_study, "train")
        patch.delattr(fusion_study, "_read")
        fusion_study.main()
    monkeypatch.setattr(sys, "argv", [*words[:-1], "1"])
    fusion_study.main()
    assert len(rows.read_text().splitlines()) == 12

    said = tmp_path / "said.md"
    monkeypatch.setattr(sys, "argv", [*words, "--report", str(said)])
    fusion_study.main()
    text = Path(said).read_text()
    for what in (
        "| bottleneck | 2 |",
        "| untrained features | 2 |",
        "over 2 seeds",
        "than the rule",
    ):
        assert what in text


def test_sizes_of_the_bottleneck_stand_in_one_table(tmp_path):
    row = {**vars(Setting()), "loss": 1.0, "seconds": 0.1}
    rows = [
        {**row, "tokens": tokens, "seed": seed, "arm": arm, "accuracy": value + seed / 100}
        for tokens, arm, value in ((4, "bottleneck", 0.9), (1, "bottleneck", 0.8), (4, "late", 0.7))
        for seed in (0, 1)
    ]
    text = fusion_report.report(Setting(), rows, tmp_path, "")
    table = text[text.index("Sizes of the bottleneck") :].split("\n\n")[1].splitlines()[2:]
    names, gains = zip(
        *((line.split(" | ")[0], line.split(" | ")[3]) for line in table), strict=True
    )
    assert names == ("| late", "| bottleneck of 1", "| bottleneck of 4")
    assert [gain[:6] for gain in gains] == ["+0.200", "+0.100", ""]
    one_size = [row for row in rows if row["tokens"] == 4]
    assert "Sizes" not in fusion_report.report(Setting(), one_size, tmp_path, "")
