"""Steps of many sizes under one budget: a new size follows the Plan of a larger one, is learned when it comes often, and few kinds are remembered."""

import gc

import pytest
import torch
import torch.nn.functional as F

import reprise
from models_basic import Block, Language


def make():
    torch.manual_seed(0)
    model = Language([Block(64, 4, dropout=0.1) for _ in range(4)], width=64, vocabulary=256)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return model


def step(model, length, seed, extra=False):
    """Loss and gradients, outside torch's memory. extra: one more operator."""
    torch.manual_seed(seed)
    ids = torch.randint(0, 256, (8, length))
    logits = model(ids)
    if extra:
        logits = logits.tanh()
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    seen = [loss.item(), *(p.grad.numpy().copy() for p in model.parameters())]
    model.zero_grad(set_to_none=False)
    return seen


def equal(some, others):
    return all(torch.equal(torch.as_tensor(a), torch.as_tensor(b)) for a, b in zip(some, others, strict=True))


@pytest.fixture
def learned():
    """A model under half of what a step of length 128 adds, that step learned, planned and settled; and the budget."""
    model = make()
    gc.collect()
    reprise.reset_peaks()
    start = reprise.memory_stats()["live_bytes"]
    step(model, 128, 0)
    budget = start + (reprise.memory_stats()["peak_live_bytes"] - start) // 2
    reprise.auto_checkpoint(model, budget)
    for seed in range(6):
        step(model, 128, seed)
    yield model, budget
    reprise.undo()


def gained(run):
    before = reprise.counters()
    result = run()
    return result, {name: value - before[name] for name, value in reprise.counters().items()}


def plain(length, seed, extra=False):
    reprise.undo()
    return step(make(), length, seed, extra)


def test_a_smaller_step_follows_the_larger_ones_plan(learned):
    model, budget = learned
    seen = []
    for seed, length in enumerate((96, 64, 112)):
        reprise.reset_peaks()
        result, gain = gained(lambda: step(model, length, seed))
        assert (gain["lent"], gain["learned"], gain["broken_plans"]) == (1, 0, 0)
        assert gain["replayed"] > 0
        assert reprise.memory_stats()["peak_reserved_bytes"] <= budget
        seen.append((length, seed, result))
    for length, seed, result in seen:
        assert equal(result, plain(length, seed)), length


def test_a_size_that_comes_often_is_learned(learned):
    model, _ = learned
    gains = [gained(lambda: step(model, 80, seed))[1] for seed in range(6)]
    assert [gain["lent"] for gain in gains] == [1, 1, 1, 0, 0, 0]
    assert [gain["learned"] for gain in gains] == [0, 0, 0, 1, 0, 0]
    assert gains[-1]["broken_plans"] == 0


def test_a_larger_step_is_learned_at_once(learned):
    model, _ = learned
    _, gain = gained(lambda: step(model, 136, 0))
    assert (gain["lent"], gain["learned"]) == (0, 1)


def test_another_structure_borrows_once(learned):
    """The operators differ from the Plan's after a while: equal numbers, and the next step of that kind is learned."""
    model, _ = learned
    first, gain = gained(lambda: step(model, 72, 3, extra=True))
    assert (gain["lent"], gain["broken_plans"]) == (1, 1)
    second, gain = gained(lambda: step(model, 72, 3, extra=True))
    assert (gain["lent"], gain["learned"]) == (0, 1)
    expected = plain(72, 3, extra=True)
    assert equal(first, expected) and equal(second, expected)


def test_few_kinds_are_remembered(learned):
    """Of 90 lengths the 64 used last; the one that is used all the time is not forgotten."""
    model, _ = learned
    for length in range(20, 110):
        step(model, length, length)
        _, gain = gained(lambda: step(model, 128, length))
        assert (gain["lent"], gain["learned"]) == (0, 0)
        assert reprise.counters()["kinds"] <= 64
    assert reprise.counters()["kinds"] == 64
