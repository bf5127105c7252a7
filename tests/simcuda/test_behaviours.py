"""Every behaviour of behaviours.py, on the simulated device, under each allocator. A family runs in one process of its own: the simulator must be there before torch."""

import functools
import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import behaviours  # noqa: E402
import simcuda  # noqa: E402

pytestmark = pytest.mark.skipif(not simcuda.built(), reason="the simulated CUDA libraries are not built: cmake says why")

ALLOCATORS = ("native", "reprise")


@functools.cache
def outcomes(allocator, family):
    """name -> "passed" or what failed."""
    command = [sys.executable, str(HERE / "behaviours.py"), allocator, family]
    run = subprocess.run(command, capture_output=True, text=True, timeout=170, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    found = dict(json.loads(line) for line in run.stdout.splitlines() if line.startswith("["))
    found["the process"] = "passed" if run.returncode == 0 else f"ended with {run.returncode}: {run.stderr[-2000:]}"
    return found


def cases():
    for allocator in ALLOCATORS:
        for family in behaviours.FAMILIES:
            together = pytest.mark.xdist_group(f"{allocator} {family}")  # one worker runs the process of a family
            for name in [*behaviours.names(family), "the process"]:
                yield pytest.param(allocator, family, name, marks=together, id=f"{allocator}-{family}-{name}")


@pytest.mark.parametrize(("allocator", "family", "name"), list(cases()))
def test_behaviour(allocator, family, name):
    found = outcomes(allocator, family)
    assert found.get(name, f"did not run; the process {found['the process']}") == "passed", found.get(name)
