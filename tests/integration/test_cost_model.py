"""Seconds of operators: medians over several Passes, shared between equal operators; and a Plan that stays until another is clearly better."""

import collections

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import reprise
from models_basic import Stack


class Layer(nn.Module):
    def __init__(self, width=128):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + F.gelu(self.linear(x))


@pytest.fixture
def step():
    torch.manual_seed(0)
    model = Stack([Layer() for _ in range(12)])

    def one(index):
        torch.manual_seed(index)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.zero_()
        loss = model(torch.randn(512, 128)).square().mean()
        loss.backward()
        return loss.item()
    yield one
    reprise.undo()


def test_medians_over_nine_passes_and_equal_operators_share_them(step):
    plain = [step(index) for index in range(14)]
    before = reprise.memory_stats()["live_bytes"]
    reprise.reset_peaks()
    step(0)
    peak = reprise.memory_stats()["peak_live_bytes"] - before
    reprise.auto_checkpoint(None, before + int(0.6 * peak) + (1 << 20))
    passes, plans = [], []
    for index in range(14):
        assert step(index) == plain[index]
        body = reprise.profile().data["body"]
        passes.append(body["passes"])
        plans.append(reprise.report().data["plan"]["kept_values"] if "plan" in reprise.report().data else None)
    assert passes == [1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9, 9]    # learned, settled under a Plan, seven more, and then no more
    seconds = collections.defaultdict(set)
    for op in body["ops"]:
        seconds[op["name"], op["signature"]].add((op["forward_seconds"], op["replay_seconds"]))
        assert len(op["samples"]) == 9
    assert all(len(s) == 1 for s in seconds.values())
    assert max(collections.Counter(op["signature"] for op in body["ops"]).values()) >= 12
    assert len(set(plans[10:])) == 1


def test_the_report_says_what_replays_took(step):
    """Measured beside predicted: nothing where nothing runs again, a part of the Pass where it does."""
    took = {}
    for policy in ("none", "full"):
        reprise.auto_checkpoint(None, "100%", policy=policy)
        for index in range(4):
            step(index)
        report = reprise.report()
        took[policy] = report.data["measured"]
        assert f"measured {1e3 * took[policy]['added_seconds']:.1f} ms" in str(report)
    assert took["none"]["added_seconds"] == 0
    assert 0 < took["full"]["added_seconds"] < took["full"]["seconds"]


def test_useful_work_is_what_autograd_asks_for():
    """The first layer needs no gradient of its input, a frozen one none of its weight, the last one needs both."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 32))
    for parameter in model[2].parameters():
        parameter.requires_grad = False
    reprise.auto_checkpoint(model, "100%", policy="none")
    try:
        for _ in range(2):
            model(torch.randn(128, 64)).square().mean().backward()
        wide, narrow = 2 * 128 * 64 * 64, 2 * 128 * 64 * 32
        assert reprise.report().data["utilization"]["useful_flops"] == (1 + 1) * wide + (1 + 1) * wide + (1 + 2) * narrow
    finally:
        reprise.undo()
