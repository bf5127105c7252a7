"""Every behaviour of behaviours.py, on the simulated device, under each allocator."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import behaviours  # noqa: E402
import simulated  # noqa: E402

pytestmark = simulated.not_built


@pytest.mark.parametrize(("allocator", "family", "name"), list(simulated.cases(behaviours.FAMILIES, ("native", "reprise"))))
def test_behaviour(allocator, family, name):
    simulated.check("behaviours.py", allocator, family, name)
