"""The constants that C++ repeats are Python's."""

import cpp_module
import pytest

from smnm_kernels import arguments, noise_table, rbn_arguments
from smnm_kernels.reference import Stream, fields


@pytest.fixture(scope="module")
def cpp():
    return cpp_module.load()


def test_constants(cpp):
    ours = {**vars(arguments), **vars(noise_table), **vars(rbn_arguments), **vars(fields)}
    constants = cpp.constants()
    assert len(constants) >= 9
    assert {name: ours[name] for name in constants} == constants


def test_purposes(cpp):
    assert cpp.purposes() == {purpose.name: int(purpose) for purpose in Stream}
