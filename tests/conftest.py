"""Every test process runs under our allocator from the start, as `REPRISE=1 python script.py` does; tests of other ways in start processes of their own."""

import faulthandler
import fnmatch
import os
import sys

import pytest

os.environ["REPRISE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

QUICK_POLICIES = ["full", "random(1)"]
ALL_POLICIES = ["none", "full", "sqrt", "per_block", "auto", *[f"random({seed})" for seed in range(1, 6)]]


def pytest_addoption(parser):
    parser.addoption("--random-plans", type=int, default=1, help="random Plans per model")
    parser.addoption("--fuzz-plans", type=int, default=0, help="Plans in random Groups for each model of the zoo; 0: one for every sixth model")
    parser.addoption("--fuzz-steps", type=int, default=60, help="steps of random lengths under one cap")
    parser.addoption("--fuzz-json", metavar="FILE", help="what those steps came to")
    parser.addoption("--sweep-models", nargs="+", default=["unet"], help="recorded models of benchmarks/models.py for sweeps of 20 budgets")
    parser.addoption("--oracle-graphs", type=int, default=40, help="made-up steps on which the planner is held against an exact solver")
    parser.addoption("--oracle-json", metavar="FILE", help="what was found there")
    parser.addoption("--all-policies", action="store_true", help="every policy also for writes, kinds and settings, and what is marked as thorough")


def pytest_generate_tests(metafunc):
    if "random_seed" in metafunc.fixturenames:
        metafunc.parametrize("random_seed", range(metafunc.config.getoption("--random-plans")))
    if "write_policy" in metafunc.fixturenames:
        metafunc.parametrize("write_policy", ALL_POLICIES if metafunc.config.getoption("--all-policies") else QUICK_POLICIES)


def pytest_configure(config):
    config.addinivalue_line("markers", "thorough: left out of the 15 minutes of ./dev test; --all-policies runs it")
    config.addinivalue_line("markers", "hangs_after(seconds): how long the test may take on a crowded machine; 180 without it")


@pytest.fixture(autouse=True)
def not_forever(request):
    """A test that hangs, even inside C++, ends its process with a traceback; xdist counts it and goes on."""
    marker = request.node.get_closest_marker("hangs_after")
    faulthandler.dump_traceback_later(marker.args[0] if marker else 180, exit=True, file=sys.__stderr__)
    yield
    faulthandler.cancel_dump_traceback_later()


def open_items():
    """Pairs of a pattern of test ids and why it is open."""
    path = os.path.join(os.path.dirname(__file__), "open_items.txt")
    with open(path, encoding="utf-8") as file:
        return [line.strip().split(" # ", 1) for line in file if line.strip() and not line.startswith("#")]


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--all-policies"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("thorough")])
        items[:] = [item for item in items if not item.get_closest_marker("thorough")]
    if os.environ.get("REPRISE_OPEN_ITEMS") == "1":
        return
    patterns = open_items()
    for item in items:
        for pattern, reason in patterns:
            # fnmatch would read the brackets of a parameter as a set; patterns write ? for them.
            if fnmatch.fnmatchcase(item.nodeid, pattern):
                item.add_marker(pytest.mark.skip(reason=f"open: {reason}"))
