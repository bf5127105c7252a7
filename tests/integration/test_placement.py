"""Planned placement: once a step repeats, each of its allocations lies at its planned place, and little more is reserved than is live."""

import pytest
import torch
import torch.nn.functional as F

import reprise
from models_basic import Block, Stack

KIB = 1 << 10
STEPS = 14


@pytest.fixture(autouse=True)
def disarmed():
    yield
    reprise.undo()


def transformer():
    torch.manual_seed(0)
    return Stack([Block(128) for _ in range(6)])


def train(model, steps, budget=None, policy="auto", freed=False, between=None, half_way=None):
    """Losses, final parameters, and what memory_stats said at each step's end. half_way: what the step does between forward and backward."""
    if budget is not None:
        reprise.auto_checkpoint(model, budget, policy=policy)
    inputs = torch.Generator().manual_seed(1)
    losses, stats = [], []
    for number in range(steps):
        x = torch.randn(8, 64, 128, generator=inputs)
        reprise.reset_peaks()
        loss = F.mse_loss(model(x), x)
        if half_way:
            half_way(model)
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                p -= 0.01 * p.grad
        if not half_way:
            model.zero_grad(set_to_none=freed)
        losses.append(loss.item())
        stats.append(reprise.memory_stats())
        if between:
            between(number)
    return losses, [p.detach().clone() for p in model.parameters()], stats


def plain_budget(freed, share):
    """A budget that leaves `share` of plain's activation bytes."""
    model = transformer()
    reprise.auto_checkpoint(model, "100%", policy="none")
    start = reprise.memory_stats()["live_bytes"]
    stats = train(model, 3, freed=freed)[2]
    reprise.undo()
    return int(1.02 * (start + share * (stats[-1]["peak_live_bytes"] - start))) + 256 * KIB


def served(stats, first):
    """(hits, misses) of the steps from `first` on."""
    return tuple(stats[-1][k] - stats[first - 1][k] for k in ("planned_hits", "planned_misses"))


@pytest.mark.parametrize("freed", [False, True])
@pytest.mark.parametrize("share", [1.5, 0.6])
def test_what_is_reserved_is_what_is_live(share, freed):
    budget = plain_budget(freed, share)
    plain = train(transformer(), STEPS, freed=freed)
    losses, parameters, stats = train(transformer(), STEPS, budget, freed=freed)
    assert losses == plain[0] and all(torch.equal(a, b) for a, b in zip(parameters, plain[1]))
    assert max(s["peak_reserved_bytes"] for s in stats) <= budget
    late = stats[4:]
    # 64 KiB for each of the small classes' slabs, which the page is small for: what is counted here are pieces.
    assert max(s["peak_reserved_bytes"] - 1.005 * s["peak_live_bytes"] for s in late) <= 512 * KIB
    assert late[-1]["device_calls"] == late[0]["device_calls"]


def test_every_request_of_a_step_that_repeats_is_a_hit():
    stats = train(transformer(), STEPS, plain_budget(False, 0.6))[2]
    hits, misses = served(stats, STEPS - 2)
    assert hits > 20 and misses == 0


def test_gradients_freed_between_forward_and_backward_keep_their_places():
    stats = train(transformer(), STEPS, plain_budget(True, 1.5), half_way=lambda model: model.zero_grad(set_to_none=True))[2]
    hits, misses = served(stats, STEPS - 2)
    assert hits > 20 and misses == 0


def test_a_step_that_leaves_its_trace_stops_using_the_places_and_the_numbers_stay():
    class Branching(Stack):
        calls = 0

        def forward(self, x):
            self.calls += 1
            for number, block in enumerate(self.layers):
                x = block(x)
                if number == 2 and self.calls == 9:
                    x = torch.sin(x) * 1.5
            return x

    def branching():
        torch.manual_seed(0)
        return Branching([Block(128) for _ in range(6)])

    plain = train(branching(), STEPS)
    losses, parameters, stats = train(branching(), STEPS, plain_budget(False, 1.5))
    assert losses == plain[0] and all(torch.equal(a, b) for a, b in zip(parameters, plain[1]))
    before = stats[8]["planned_hits"] - stats[7]["planned_hits"]   # of the step that left it
    usual = stats[7]["planned_hits"] - stats[6]["planned_hits"]
    assert 0 < before < usual


def test_a_survivor_of_every_step_costs_nothing_but_itself():
    kept = []
    stats = train(transformer(), STEPS, plain_budget(False, 1.5), between=lambda number: kept.append(torch.zeros(4096)))[2]
    assert served(stats, STEPS - 3)[0] > 20
    assert max(s["peak_reserved_bytes"] - 1.01 * s["peak_live_bytes"] for s in stats[4:]) <= 1024 * KIB
