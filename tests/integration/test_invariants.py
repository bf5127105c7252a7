"""E1 … E5 of the engine and all of the allocator's invariants hold at every moment at which a program may look."""

import pytest
import torch

import reprise
from events import events_of
from models_basic import Block, Stack
from reprise import _core


@pytest.mark.parametrize("policy", ["none", "full", "chunks(2)", "per_block", "random(1)", "random(2)", "auto"])
def test_invariants_hold_throughout(policy):
    torch.manual_seed(0)
    model, x = Stack([Block(dropout=0.1) for _ in range(4)]), torch.randn(8, 32, 64)
    start = reprise.memory_stats()["live_bytes"]
    reprise.auto_checkpoint(model, start + (4 << 20) if policy == "auto" else "100%", policy=policy)
    try:
        for _ in range(4):
            broken = events_of(model, x, _core.check_invariants)
            assert len(broken) > 40 and set(broken) == {""}
            with torch.no_grad():
                for p in model.parameters():
                    p.sub_(p.grad, alpha=0.01)
            assert _core.check_invariants() == ""
        assert reprise.counters()["replayed"] > 0 or policy == "none"
    finally:
        reprise.undo()
