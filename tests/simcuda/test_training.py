"""The engine on simulated CUDA devices: every behaviour of training.py."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import simulated  # noqa: E402
import training  # noqa: E402

pytestmark = simulated.not_built


@pytest.mark.parametrize(("allocator", "family", "name"), list(simulated.cases(training.FAMILIES, ("reprise",))))
def test_training(allocator, family, name):
    simulated.check("training.py", allocator, family, name)
