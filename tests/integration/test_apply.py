"""apply(): a Plan followed by the engine, or by torch.utils.checkpoint around its Blocks."""

import pytest
import torch
import torch.nn as nn

import reprise


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x):
        return x + self.down(torch.nn.functional.gelu(self.up(x)))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = nn.Sequential(*[Block() for _ in range(6)])
    yield model
    reprise.undo(model)


def step(model):
    torch.manual_seed(3)
    model.zero_grad()
    reprise.reset_peaks()
    start = reprise.memory_stats()["live_bytes"]
    loss = model(torch.randn(512, 64)).square().mean()
    loss.backward()
    return [loss.detach(), *[p.grad.clone() for p in model.parameters()]], reprise.memory_stats()["peak_live_bytes"] - start


def plan_of(model, policy):
    reprise.auto_checkpoint(model, None)
    step(model)
    return reprise.plan(policy=policy)


def test_torch_wraps_the_blocks(model):
    plain, plain_bytes = step(model)
    calls = []
    for block in model:
        block.up.register_forward_hook(lambda *_: calls.append(1))
    plan = plan_of(model, "per_block")
    assert reprise.apply(plan, model, executor="torch") is model
    before, calls[:] = reprise.counters(), []
    found, found_bytes = step(model)
    assert all(map(torch.equal, plain, found))
    assert len(calls) == 12                       # each Block's forward, and once more in backward
    assert found_bytes < plain_bytes
    assert reprise.counters()["recorded"] == before["recorded"]
    reprise.undo(model)
    calls.clear()
    step(model)
    assert len(calls) == 6
    assert "forward" not in vars(model[0])


def test_torch_wraps_nothing_where_nothing_runs_again(model):
    reprise.apply(plan_of(model, "none"), model, executor="torch")
    assert not any("forward" in vars(block) for block in model)


def test_blocks_that_are_no_modules_are_refused():
    weights = [torch.randn(64, 64, requires_grad=True) for _ in range(6)]

    def functional():
        x = torch.randn(512, 64)
        for w in weights:
            x = torch.nn.functional.gelu(x @ w)
        x.square().mean().backward()
    reprise.auto_checkpoint(None, None)
    functional()
    plan = reprise.plan(policy="full")
    with pytest.raises(ValueError, match="argument plan: .* Blocks are no module of this model"):
        reprise.apply(plan, nn.Linear(2, 2), executor="torch")
    with pytest.raises(TypeError, match="argument model: NoneType is no torch.nn.Module"):
        reprise.apply(plan, executor="torch")
    reprise.undo()
