"""The constants that C++ repeats are Python's."""

import cpp_module
import pytest

from smnm_kernels import arguments
from smnm_kernels.tables import constants


@pytest.fixture(scope="module")
def cpp():
    return cpp_module.load()


def test_constants(cpp):
    ours = {**vars(arguments), **vars(constants)}
    theirs = cpp.constants()
    assert len(theirs) >= 9
    assert {name: ours[name] for name in theirs} == theirs


def test_purposes(cpp):
    assert cpp.purposes() == {purpose.name: int(purpose) for purpose in constants.Purpose}
