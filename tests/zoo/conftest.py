"""Every process of the zoo runs under our allocator from the start, as `REPRISE=1 python script.py` does."""

import os
import warnings

os.environ["REPRISE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")


def pytest_addoption(parser):
    parser.addoption("--random-plans", type=int, default=2, help="random Plans per model")
    parser.addoption("--every-policy-for-writes", action="store_true", help="all policies also for writes, kinds and settings")


def pytest_generate_tests(metafunc):
    if "random_seed" in metafunc.fixturenames:
        metafunc.parametrize("random_seed", range(metafunc.config.getoption("--random-plans")))
