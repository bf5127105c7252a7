"""Over the cap: a spike drops kept values and goes on; where that cannot be enough Infeasible is raised, and the next step works."""

import gc
import re

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import reprise
from models_basic import Block, Language

MIB = 1 << 20


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Language([Block(128, 4, dropout=0.1) for _ in range(6)], width=128, vocabulary=256)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    yield model
    reprise.undo()


def step(model, length, batch=8):
    ids = torch.randint(0, 256, (batch, length))
    loss = F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters()]


def plain_peak(model, length):
    """(bytes live before, bytes a plain step adds)."""
    gc.collect()
    reprise.reset_peaks()
    start = reprise.memory_stats()["live_bytes"]
    step(model, length)
    model.zero_grad(set_to_none=False)
    return start, reprise.memory_stats()["peak_live_bytes"] - start


def test_spike_goes_on(model):
    """A step of twice the length under a Plan made for the shorter one: equal to plain, inside the cap."""
    start, added = plain_peak(model, 128)
    torch.manual_seed(5)
    expected = [step(model, length) for length in (128, 128, 256, 128)]
    model.zero_grad(set_to_none=False)
    gradients = sum(p.numel() * 4 for p in model.parameters())
    budget = int(1.02 * (reprise.memory_stats()["live_bytes"] + added + 4 * gradients))
    reprise.auto_checkpoint(model, budget)
    torch.manual_seed(5)
    for length, (loss, wanted) in zip((128, 128, 256, 128), expected):
        reprise.reset_peaks()
        found_loss, found = step(model, length)
        assert found_loss == loss
        assert all(map(torch.equal, wanted, found))
        assert reprise.memory_stats()["peak_reserved_bytes"] <= budget


def test_a_tensor_above_the_cap_says_what_holds_the_memory(model):
    """Outside any step, a checkpoint being loaded say: nobody has a Plan to name then, but the allocator knows what lives."""
    start, added = plain_peak(model, 64)
    reprise.auto_checkpoint(model, int(1.05 * (start + added)))
    step_alone(model, 64)
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    with pytest.raises(torch.OutOfMemoryError) as caught:
        torch.zeros(start + added)
    held = re.search(r"live now: .*?parameter ([\d.]+) MiB", str(caught.value))
    assert held and abs(float(held[1]) * MIB - parameters) <= 0.06 * MIB, str(caught.value)


def test_impossible_spike_raises_and_the_next_step_works(model):
    start, added = plain_peak(model, 64)
    budget = int(1.05 * (start + added))
    reprise.auto_checkpoint(model, budget)
    reprise.reset_peaks()
    for _ in range(3):
        step_alone(model, 64)
    with pytest.raises(reprise.Infeasible) as caught:
        step_alone(model, 64, batch=400)
    text, smallest = str(caught.value), caught.value.smallest_budget
    for word in ("asked for", "reserved", "cap", "smallest"):
        assert word in text, text
    assert "blocks." in text, f"top holders by Region are missing: {text}"
    assert smallest > budget
    del caught
    model.zero_grad(set_to_none=False)
    for _ in range(2):
        step_alone(model, 64)
    assert reprise.memory_stats()["peak_reserved_bytes"] <= budget


def step_alone(model, length, batch=8):
    """A step that keeps nothing for the test."""
    ids = torch.randint(0, 256, (batch, length))
    F.cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()


def test_the_smallest_budget_works(model):
    start, added = plain_peak(model, 128)
    with pytest.raises(reprise.Infeasible) as caught:
        reprise.auto_checkpoint(model, start + added // 50)
        for _ in range(3):
            step_alone(model, 128)
    smallest = caught.value.smallest_budget
    del caught
    model.zero_grad(set_to_none=False)
    reprise.auto_checkpoint(model, smallest)
    for _ in range(3):
        reprise.reset_peaks()
        step_alone(model, 128)
        assert reprise.memory_stats()["peak_reserved_bytes"] <= smallest


def test_infeasible_is_an_out_of_memory_error():
    assert issubclass(reprise.Infeasible, torch.OutOfMemoryError)
    assert issubclass(reprise.Infeasible, RuntimeError)


def test_a_tensor_beyond_the_cap(model):
    """Not only steps: any allocation over the cap is refused in words, and smaller ones go on."""
    reprise.auto_checkpoint(model, reprise.memory_stats()["live_bytes"] + 32 * MIB)
    with pytest.raises(torch.OutOfMemoryError, match="cap"):
        torch.empty(64 * MIB)
    assert torch.ones(MIB).sum() == MIB


def test_gradients_appearing_later_pick_another_plan():
    """Optimizer state after the first step, gradients set to None, accumulation: one budget holds in all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Sequential(nn.Linear(256, 256), nn.GELU()) for _ in range(10)])
    optimizer = torch.optim.AdamW(model.parameters())
    parameters = sum(p.numel() * 4 for p in model.parameters())
    budget = int(reprise.memory_stats()["live_bytes"] + 3.2 * parameters + 14 * MIB)
    reprise.auto_checkpoint(model, budget)
    for index in range(8):
        reprise.reset_peaks()
        for _ in range(2 if index > 4 else 1):
            model(torch.randn(1024, 256)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=index % 2 == 0)
        assert reprise.memory_stats()["peak_reserved_bytes"] <= budget
    reprise.undo()


def test_an_infeasible_plan_names_what_can_be_asked_for(model):
    """plan() of less than any Plan needs: reprise.Infeasible with the smallest limit, which plan() then answers, and less than which it refuses."""
    reprise.auto_checkpoint(model, "100%", policy="none")
    for _ in range(2):
        step(model, 128)
    with pytest.raises(reprise.Infeasible, match=r"nothing found within 65536 bytes; the smallest limit found is \d+ bytes") as error:
        reprise.plan(65536)
    smallest = error.value.smallest_budget
    assert reprise.plan(smallest).data["body"]["predicted_live_bytes"] <= smallest
    with pytest.raises(reprise.Infeasible):
        reprise.plan(smallest // 2)
