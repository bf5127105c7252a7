"""Every behaviour of behaviours.py, on the simulated device, under each allocator."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import behaviours  # noqa: E402
import running  # noqa: E402

pytestmark = running.not_built


@pytest.mark.parametrize(("allocator", "family", "name"), list(running.cases(behaviours.FAMILIES, ("native", "reprise"))))
def test_behaviour(allocator, family, name):
    running.check("behaviours.py", allocator, family, name)
