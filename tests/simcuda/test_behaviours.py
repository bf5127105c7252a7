"""Every behaviour of behaviours.py, refused_by_pluggable.py and allocator_cases.py, on the simulated device, under each allocator."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import allocator_cases  # noqa: E402
import behaviours  # noqa: E402
import named_tests  # noqa: E402
import refused_by_pluggable  # noqa: E402

pytestmark = named_tests.not_built


@pytest.mark.parametrize(("allocator", "family", "name"), list(named_tests.cases(behaviours.FAMILIES, ("native", "reprise"))))
def test_behaviour(allocator, family, name):
    named_tests.check("behaviours.py", allocator, family, name)


@pytest.mark.parametrize(("allocator", "family", "name"), list(named_tests.cases(allocator_cases.FAMILIES, ("native", "reprise"))))
def test_what_torch_tries_of_its_own(allocator, family, name):
    named_tests.check("allocator_cases.py", allocator, family, name)


@pytest.mark.parametrize(("allocator", "family", "name"), list(named_tests.cases(refused_by_pluggable.FAMILIES, ("native", "reprise"))))
def test_what_the_pluggable_allocator_refuses(allocator, family, name):
    named_tests.check("refused_by_pluggable.py", allocator, family, name)
