"""Every public name has a docstring and stands on the API page."""

import inspect
import re

import pytest
from testing import ROOT

import smnm_kernels as smnm
from smnm_kernels import adapters, loading, reference, schedules

API = (ROOT / "docs" / "api.md").read_text()
#: Names of each public module that the API page lists one by one.
LISTED = {
    "smnm_kernels": [n for n in smnm.__all__ if n not in ("schedules", "__version__")],
    "smnm_kernels.adapters": adapters.__all__,
    "smnm_kernels.loading": ["MaskCollator", "WithSampleIds"],
    "smnm_kernels.schedules": ["cosine", "hint", "linear", "stages"],
}
MODULES = {
    "smnm_kernels": smnm,
    "smnm_kernels.adapters": adapters,
    "smnm_kernels.loading": loading,
    "smnm_kernels.reference": reference,
    "smnm_kernels.schedules": schedules,
}


@pytest.mark.parametrize("module", LISTED)
def test_the_api_page_lists_every_public_name(module):
    listed = re.findall(rf"^::: {re.escape(module)}\.(\w+)$", API, flags=re.MULTILINE)
    assert sorted(listed) == sorted(LISTED[module])


def public_objects():
    for module, object_ in MODULES.items():
        yield module, object_
        for name in (*LISTED.get(module, ()), *getattr(object_, "__all__", ())):
            made = getattr(object_, name)
            if inspect.isfunction(made) or inspect.isclass(made):
                yield f"{module}.{name}", made
            if inspect.isclass(made):
                yield from members(f"{module}.{name}", made)


def members(place, class_):
    """Methods and properties of the class, from bases of this package, too."""
    for base in class_.__mro__:
        if not base.__module__.startswith("smnm_kernels"):
            continue
        for name, made in vars(base).items():
            if isinstance(made, (classmethod, staticmethod)):
                made = made.__func__
            if not name.startswith("_") and (
                inspect.isfunction(made) or isinstance(made, property)
            ):
                yield f"{place}.{name}", made


def test_every_public_name_has_a_docstring():
    objects = dict(public_objects())
    assert len(objects) > 80
    # NamedTuples and dataclasses without a docstring get one that repeats their signature.
    missing = [
        place
        for place, made in objects.items()
        if not inspect.getdoc(made) or inspect.getdoc(made).startswith(f"{place.split('.')[-1]}(")
    ]
    assert not missing
