import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))   # ranks import `programs` by that name too
os.environ["PYTHONPATH"] = os.pathsep.join([str(pathlib.Path(__file__).parent), os.environ.get("PYTHONPATH", "")])

from world import World  # noqa: E402


def pytest_generate_tests(metafunc):
    everything = metafunc.config.getoption("--all-policies")
    for fixture, jobs in (("job_of_two", "TWO"), ("job_of_four", "FOUR")):
        if fixture in metafunc.fixturenames:
            module = metafunc.module
            metafunc.parametrize(fixture, [name for name in getattr(module, jobs) if everything or name not in module.THOROUGH])
    if "steps" in metafunc.fixturenames:
        metafunc.parametrize("steps", [20 if everything else 5])
    if "repeat" in metafunc.fixturenames:    # of faults, to find a hang that comes now and then
        metafunc.parametrize("repeat", range(12 if everything else 1))


@pytest.fixture(scope="session")
def two():
    world = World(2, OMP_NUM_THREADS=1, REPRISE_LOG=0)
    yield world
    world.close()


@pytest.fixture(scope="session")
def four():
    world = World(4, OMP_NUM_THREADS=1, REPRISE_LOG=0)
    yield world
    world.close()
