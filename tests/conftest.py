import os

import pytest
import torch
from hypothesis import HealthCheck, settings

# Without a GPU the Triton kernels run in Triton's interpreter, on CPU tensors. Triton looks at this
# once, when it is imported.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

# Processes that share the cores, and what they start, compute on one each.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)

#: More processes than this wait for memory rather than compute.
MOST_PROCESSES = 16

# The same examples on every run, so that a red test is the change's fault and not the draw's.
# HYPOTHESIS_PROFILE=explore looks for new ones.
settings.register_profile(
    "exhaustive",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.register_profile("fixed", settings.get_profile("exhaustive"), max_examples=25)
settings.register_profile(
    "explore", settings.get_profile("exhaustive"), derandomize=False, max_examples=500
)


def pytest_addoption(parser):
    parser.addoption(
        "--exhaustive",
        action="store_true",
        help="also run the tests marked exhaustive, and four times as many examples of the others",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Where pytest-xdist is installed, the whole suite runs on all cores: ``-n`` in addopts would
    be an error without it, and would start processes for a single file, too."""
    option = config.option
    if not hasattr(option, "numprocesses") or hasattr(config, "workerinput"):
        return
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if option.numprocesses is None and whole and not option.collectonly and not option.usepdb:
        option.numprocesses = "logical"
        option.maxprocesses = option.maxprocesses or MOST_PROCESSES
    if option.numprocesses and option.dist == "no":
        option.dist = "worksteal"  # neighbours, who share fixtures, stay together


def pytest_configure(config):
    tier = "exhaustive" if config.getoption("exhaustive") else "fixed"
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", tier))


def pytest_collection_modifyitems(config, items):
    if not config.getoption("exhaustive"):
        left = [item for item in items if item.get_closest_marker("exhaustive")]
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left)
    if hasattr(config, "workerinput"):
        # What takes long comes first, so that no process is left with it at the end.
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def exhaustive(pytestconfig):
    """Whether --exhaustive was given: tests that it does not leave out do more then, too."""
    return pytestconfig.getoption("exhaustive")


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
