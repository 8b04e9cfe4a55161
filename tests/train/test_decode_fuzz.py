"""Damaged files are used as the program ffmpeg decodes them, or named; nothing crashes or hangs."""

import shutil

import decode_fuzz
import pytest


@pytest.fixture(scope="module")
def examiner(tmp_path_factory):
    examiner = decode_fuzz.Examiner(tmp_path_factory.mktemp("fuzz"))
    yield examiner
    examiner.close()


FAMILIES = list(decode_fuzz.FAMILIES)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_few_damaged_files_of_each_family(family, examiner, exhaustive):
    row = decode_fuzz.fuzz_family(family, 60 if exhaustive else 4, [], 1, examiner)
    assert row.get("errors", 0) == 0, row["troubles"]


@pytest.mark.exhaustive
@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_used_is_what_ffmpeg_decodes(family, examiner):
    if not shutil.which("ffmpeg"):
        pytest.skip("the program ffmpeg is not installed")
    row = decode_fuzz.fuzz_family(family, 40, ["ffmpeg"], 2, examiner)
    # Versions of FFmpeg differ in what they make of damage that they do not mark.
    assert row.get("differ", 0) <= 0.1 * row.get("compared", 0), row["troubles"]
