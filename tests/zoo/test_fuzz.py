"""Pairs of a model and a Plan drawn at random: loss, all gradients, buffers and random state equal to plain, bit for bit.

`--fuzz-plans N` (10 in `./dev test --all`: over 500 pairs): Plans for each model; in `./dev test` every sixth model has one."""

import json

import pytest
from random_plans import RandomPlan
from running import differences, plain_outcome, run_case
from zoo import MODELS

import reprise


def cases(config):
    count = config.getoption("--fuzz-plans")
    return [(c, seed) for i, c in enumerate(MODELS) for seed in range(count)] if count else [(c, 0) for c in MODELS[::6]]


def pytest_generate_tests(metafunc):
    if "pair" in metafunc.fixturenames:
        metafunc.parametrize("pair", [pytest.param(p, id=f"{p[0].name}-{p[1]}", marks=pytest.mark.xdist_group(p[0].name)) for p in cases(metafunc.config)])


def test_random_plan_in_random_groups(pair, record_property):
    case, seed = pair
    plain = plain_outcome(case)
    assert plain.error is None, f"not a legal program: {plain.error}"
    followed = {}

    def before_step(index):
        """The Plan is drawn for what the first step was, and followed from the second on."""
        if index != 1:
            return
        try:
            profile = json.loads(reprise.profile().to_json())
        except RuntimeError:    # this model saves nothing
            return
        plan = reprise.Plan.from_json(RandomPlan(profile, seed).plan())
        reprise.apply(plan)
        followed.update(groups=len(plan.data["body"]["groups"]), packed=len(plan.data["body"]["pack"]))
    other = run_case(case, "none", before_step=before_step)
    record_property("figures", json.dumps({**followed, **{k: other.counters[k] for k in ("replays", "replayed", "unplanned", "packed", "broken_plans")}}))
    if case.unseen and other.error is not None:
        assert "reprise" in other.error, other.error
        return
    assert differences(plain, other) == []
