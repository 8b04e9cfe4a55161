"""A run that is killed at random moments; bench/kills.py does it many times."""

import pytest
from kills import kills


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("command", "modality"), [("pretrain", "video"), ("pretrain", "audio"), ("finetune", "image")]
)
def test_killed_at_random_moments_a_run_is_one_that_was_not(command, modality, tmp_path):
    assert kills(command, modality, 4, seed=1, out=tmp_path / "kills").total() == 5
