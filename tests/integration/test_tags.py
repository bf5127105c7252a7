"""Every live allocation carries a tag: what it is for, its Region, and whether autograd saved it."""

import pytest
import torch

import reprise
from events import events_of
from models_basic import Block, Stack


class SavedByTorch:
    """Bytes that autograd holds in a run without reprise: the storages of the tensors it packed and has not released."""

    def __init__(self):
        self.held = {}

    def pack(self, tensor):
        counter = self

        class Packed:
            def __init__(self, tensor):
                self.tensor = tensor.detach()
                counter.held[id(self)] = (self.tensor.untyped_storage().data_ptr(), self.tensor.untyped_storage().nbytes())

            def __del__(self):
                del counter.held[id(self)]
        return Packed(tensor)

    def bytes(self):
        return sum(dict(self.held.values()).values())


def saved_bytes():
    return sum(h["bytes"] for h in reprise.holders() if h["saved"])


@pytest.fixture
def model():
    torch.manual_seed(0)
    yield Stack([Block(dropout=0.1) for _ in range(4)])
    reprise.undo()


def torchs_events(model, x):
    counter = SavedByTorch()
    with torch.autograd.graph.saved_tensors_hooks(counter.pack, lambda packed: packed.tensor):
        return events_of(model, x, counter.bytes)


def ours(model, x, policy, steps=3):
    reprise.auto_checkpoint(model, "100%", policy=policy)
    for _ in range(steps):
        events = events_of(model, x, saved_bytes)
    return events


def test_saved_bytes_are_what_autograd_holds(model):
    x = torch.randn(8, 32, 64)
    expected = torchs_events(model, x)
    assert len(expected) > 40 and max(expected) > 1 << 20 and expected[-1] == 0
    assert ours(model, x, "none") == expected


def test_what_is_dropped_is_not_held(model):
    x = torch.randn(8, 32, 64)
    expected = torchs_events(model, x)
    events = ours(model, x, "per_block")
    dropped = sum(d["dropped_bytes"] for d in reprise.report().data["decisions"])
    middle = len(events) // 2 - 1                      # the loss is made; nothing was released so far
    assert expected[middle] == max(expected) and dropped > max(expected) / 2
    assert events[middle] == expected[middle] - dropped
    assert events[-1] == 0


def test_tags_add_up_and_name_regions(model):
    x = torch.randn(8, 32, 64)
    sums = []

    def measure():
        sums.append(sum(h["bytes"] for h in reprise.holders()) == reprise.memory_stats()["live_bytes"])
        return reprise.holders()
    reprise.auto_checkpoint(model, "100%", policy="none")
    for _ in range(3):
        events = events_of(model, x, measure)
    assert all(sums)
    at_the_loss = events[len(events) // 2 - 1]
    parameters = {h["region"]: h["bytes"] for h in at_the_loss if h["category"] == "parameter" and not h["saved"]}
    assert parameters["layers.0.mlp.0"] == 256 * 4     # its bias: autograd saved the weight
    gelu = 8 * 32 * 256 * 4
    assert sum(h["bytes"] for h in at_the_loss if h["category"] == "activation" and h["region"].startswith("layers.2.mlp") and h["saved"]) >= 2 * gelu
    after = {h["category"]: h["bytes"] for h in events[-1] if h["category"] == "backward"}
    assert after["backward"] >= sum(p.nbytes for p in model.parameters())
