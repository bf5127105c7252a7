"""pytest's side of named behaviours (simulated.py): one test each."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import simcuda  # noqa: E402
from simulated import THE_PROCESS, outcomes  # noqa: E402

not_built = pytest.mark.skipif(not simcuda.built(), reason="the simulated CUDA libraries are not built: cmake says why")


def cases(families, allocators):
    for allocator in allocators:
        for family, behaviours in families.items():
            together = pytest.mark.xdist_group(f"{allocator} {family}")  # one worker runs the process of a family
            for name in [*behaviours.functions, THE_PROCESS]:
                yield pytest.param(allocator, family, name, marks=together, id=f"{allocator}-{family}-{name}")


def check(module, allocator, family, name):
    found = outcomes(module, allocator, family)
    assert found.get(name, f"did not run; the process {found[THE_PROCESS]}") == "passed", found.get(name)
