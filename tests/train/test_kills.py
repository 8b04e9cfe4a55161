"""A run that is killed at random moments; bench/kills.py does it many times."""

import pytest
from kills import kills


@pytest.mark.exhaustive
@pytest.mark.parametrize("modality", ["video", "audio"])
def test_killed_at_random_moments_the_losses_are_those_of_a_run_that_was_not(modality, tmp_path):
    assert kills(modality, 4, seed=1, out=tmp_path / "kills").total() == 5
