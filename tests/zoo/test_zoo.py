"""Every model under every policy: loss, all gradients, buffers and RNG state equal to plain, bit for bit. A missing gradient fails."""

import fresh
import pytest

import reprise
from running import budget_at, differences, plain_outcome, run_case
from zoo import EVERYTHING, KINDS, MODELS, WRITES

SCHEMES = ["none", "full", "sqrt", "per_block"]
FRACTIONS = [pytest.param(0.8, marks=pytest.mark.thorough), pytest.param(0.6, marks=pytest.mark.thorough), 0.4]
PAGES = 256 << 10      # most programs of WRITES and KINDS are a few KiB: less than the whole pages that their tensors lie in


def by_case(cases):
    """One xdist group per case, so that its plain run is made once."""
    return [pytest.param(c, id=c.name, marks=pytest.mark.xdist_group(c.name)) for c in cases]


def plain_of(case):
    plain = plain_outcome(case)
    assert plain.error is None, f"not a legal program: {plain.error}"
    return plain


def check(case, plain, other):
    """Equal; or, where a write was made that nobody can see, an error that says where. Wrong numbers never."""
    if case.unseen and other.error is not None:
        assert "reprise" in other.error, other.error
        return
    assert differences(plain, other) == []


def run_within(case, plain, policy, fraction, pages=0):
    """Runs at a fraction of plain's activation bytes (and so many bytes for pages), in a process of its own. If that is named infeasible, the smallest budget it names has to work there.
    Returns the Outcome and that smallest budget, or None."""
    budget = budget_at(plain, fraction, pages)
    try:
        return fresh.call(run_case, case, policy, budget), None
    except reprise.Infeasible as error:
        smallest = error.smallest_budget
        assert smallest > budget(0)
    return fresh.call(run_case, case, policy, smallest), smallest


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("case", by_case(MODELS))
def test_scheme(case, scheme):
    plain = plain_of(case)
    other = run_case(case, scheme)
    check(case, plain, other)
    assert other.counters["recorded"] > 0
    if scheme == "none":
        assert other.counters["replayed"] == 0
    if scheme == "full" and case.replays:
        assert other.counters["replayed"] > 0


@pytest.mark.parametrize("fraction", FRACTIONS)
@pytest.mark.parametrize("case", by_case(MODELS))
def test_auto(case, fraction, record_property):
    """Within the budget from the learning Pass on: reserved bytes never exceed it."""
    plain = plain_of(case)
    other, smallest = run_within(case, plain, "auto", fraction)
    record_property("overflow_bytes", other.counters["overflow_bytes"])
    record_property("smallest_budget", smallest)
    check(case, plain, other)
    assert other.peak_reserved_bytes <= (smallest or budget_at(plain, fraction)(other.base_bytes))


@pytest.mark.parametrize("case", by_case(MODELS))
def test_random_plan(case, random_seed):
    check(case, plain_of(case), run_case(case, f"random({random_seed})"))


@pytest.mark.parametrize("case", by_case(WRITES + KINDS))
def test_write_kind_or_setting(case, write_policy):
    plain = plain_of(case)
    other = run_within(case, plain, "auto", 0.6, PAGES)[0] if write_policy == "auto" else run_case(case, write_policy)
    check(case, plain, other)


@pytest.mark.parametrize("case", by_case(EVERYTHING))
def test_verified(case, monkeypatch):
    """REPRISE_VERIFY=1: everything kept, everything replayed and compared; the first Op that differs is named."""
    monkeypatch.setenv("REPRISE_VERIFY", "1")
    check(case, plain_of(case), run_case(case, "full"))


def test_the_comparison_sees_one_bit():
    """The comparison itself: one flipped bit in one gradient, a missing gradient, another random state."""
    plain = plain_of(MODELS[0])
    for key, other in [("step 1 gradient 0.weight", [("torch.float32", (128, 128), "0" * 32, None)]), ("step 1 gradient 0.weight", None), ("end RNG state", None)]:
        changed = run_case(MODELS[0])
        assert differences(plain, changed) == []
        changed.seen[key] = other
        assert len(differences(plain, changed)) == 1
    changed = run_case(MODELS[0])
    del changed.seen["step 2 gradient 0.bias"]
    assert differences(plain, changed) == ["only in one run: step 2 gradient 0.bias"]
