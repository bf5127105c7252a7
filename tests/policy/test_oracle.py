"""The planner and its bound beside an exact solver: made-up steps of 6 to some 20 operators and as many nodes of backward, two limits each. And the solver beside trying everything.

`--oracle-graphs N` (300 in `./dev test --all`): how many steps. `--oracle-json FILE`: what was found."""

import functools
import json
import os
import pathlib
import statistics
import subprocess

import optimum
import pytest

BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
TINY = (7, 19, 24, 31, 36, 43, 48, 55, 60)      # seeds of steps that are small enough to try everything


def oracle(*arguments):
    run = subprocess.run([BUILD / "tests/policy/reprise_oracle", *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True)
    return [json.loads(line) for line in run.stdout.splitlines()]


@functools.cache
def made_up(seed):
    return oracle(seed, 1)[0]


@pytest.mark.parametrize("seed", TINY)
def test_the_solver_finds_the_least_of_everything(seed):
    step = optimum.Step(made_up(seed))
    least = {}
    for peak, seconds in optimum.everything(step):
        least[peak] = min(seconds, least.get(peak, seconds))
    limits = sorted(least)
    assert optimum.optimum(made_up(seed), limits[0] - 1) is None
    for limit in limits:
        assert optimum.optimum(made_up(seed), limit) == pytest.approx(min(s for p, s in least.items() if p <= limit), abs=1e-6), limit


@pytest.mark.hangs_after(600)
def test_a_gpt_of_two_blocks_beside_the_optimum():
    """At limits from the smallest that carries it to near plain's peak: the planner is within 1 % of the exact solver, the bound below it."""
    step = oracle("gpt", 2, 0.75, 0.5, 0.25, 0.1, 0)[0]
    for answer in step["answers"]:
        least = optimum.optimum(step, answer["limit_bytes"])
        assert answer["bound_seconds"] <= least + 1e-6 <= answer["added_seconds"] + 2e-6
        assert answer["added_seconds"] <= 1.01 * least, answer["limit_bytes"]


def test_a_gpt_of_four_blocks_within_1_percent_of_the_bound():
    """No solver is needed where the bound meets the plan."""
    for answer in oracle("gpt", 4, 0.75, 0.5, 0.25)[0]["answers"]:
        assert 0 < answer["lower_bound_seconds"] <= answer["added_seconds"] <= 1.01 * answer["lower_bound_seconds"], answer["limit_bytes"]


@pytest.mark.hangs_after(3600)
def test_planner_and_bound_beside_the_optimum(request, record_property):
    """Bound <= optimum <= what the planner found, in every case; on average the planner is within 1 % of the optimum, and in 97 of 100 cases itself."""
    gaps, near, loose = [], [], []
    for seed in range(1, request.config.getoption("--oracle-graphs") + 1):
        step = made_up(seed)
        for answer in step["answers"]:
            least, found = optimum.optimum(step, answer["limit_bytes"]), answer["added_seconds"]
            assert least is not None and found is not None, (seed, answer["limit_bytes"])
            assert answer["bound_seconds"] <= least + 1e-6, (seed, answer["limit_bytes"])
            assert least <= found + 1e-6, (seed, answer["limit_bytes"])
            assert answer["peak_bytes"] <= answer["limit_bytes"]
            if least > 1e-9:
                gaps.append(found / least - 1)
                near.append(answer["bound_seconds"] / least)
            if found > 1.01 * least + 1e-9:
                choice = optimum.optimum(step, answer["limit_bytes"], like_a_choice=True)
                loose.append({"seed": seed, "limit_bytes": answer["limit_bytes"], "found": found, "optimum": least, "optimum_of_choices": choice})
    figures = {"limits": len(gaps), "within_1_percent": sum(g <= 0.01 for g in gaps), "mean_gap": statistics.mean(gaps), "largest_gap": max(gaps), "bound_over_optimum": statistics.mean(near),
               "not_within": loose}
    print(json.dumps({k: v for k, v in figures.items() if k != "not_within"}))
    record_property("figures", json.dumps(figures))
    if request.config.getoption("--oracle-json"):
        pathlib.Path(request.config.getoption("--oracle-json")).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    assert len(gaps) >= request.config.getoption("--oracle-graphs")
    # Measured: see policy/README.md. What is not within 1 % is either beyond a Choice's words ("optimum_of_choices" is what was found), or the search missed it.
    assert figures["mean_gap"] <= 0.01
    assert figures["within_1_percent"] >= 0.97 * len(gaps)
