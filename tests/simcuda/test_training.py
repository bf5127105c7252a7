"""The engine on simulated CUDA devices: every behaviour of training.py."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import named_tests  # noqa: E402
import training  # noqa: E402

pytestmark = named_tests.not_built


@pytest.mark.parametrize(("allocator", "family", "name"), list(named_tests.cases(training.FAMILIES, ("reprise",))))
def test_training(allocator, family, name):
    named_tests.check("training.py", allocator, family, name)
