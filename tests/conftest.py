import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# Without a GPU the Triton kernels run in Triton's interpreter, on CPU tensors. Triton looks at this
# once, when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# The same examples on every run, so that a red test is the change's fault and not the draw's.
# HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile(
    "explore", settings.get_profile("fixed"), derandomize=False, max_examples=500
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))


@pytest.fixture(scope="module")
def poisoned_memory():
    """Every torch.empty, new_empty and resize_, those of C++ ops too, comes filled with NaN, True
    or the largest integer: a value that nobody wrote cannot pass for one that was."""
    was = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(was[0], warn_only=was[1])
    torch.utils.deterministic.fill_uninitialized_memory = was[2]


@pytest.fixture
def n_threads():
    """torch.set_num_threads, undone after the test."""
    was = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(was)
