"""Malformed input: an ordinary error with a text that says argument, value and limit, and training goes on as if we were not there.

The table is tests/data/bad_input.json: what is called, with what, and the exact error."""

import json
import pathlib

import pytest
import torch
import torch.nn as nn

import reprise

TABLE = json.loads((pathlib.Path(__file__).parent.parent / "data" / "bad_input.json").read_text(encoding="utf-8"))
VALUES = {"nan": float("nan"), "inf": float("inf"), "true": True, "list": [], "half": 0.5, "class": nn.Linear, "tensor": torch.zeros(1), "set": {1}}


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16), nn.Tanh())


def gradients(model):
    torch.manual_seed(1)
    for p in model.parameters():
        p.grad = None
    model(torch.randn(8, 16)).square().mean().backward()
    return [p.grad for p in model.parameters()]


@pytest.fixture(scope="module")
def documents():
    """A Plan and a Profile of the small model, as JSON."""
    model = small()
    reprise.auto_checkpoint(model, "100%", policy="full")
    for _ in range(2):
        gradients(model)
    profile = reprise.profile()
    plan = reprise.plan("100%", policy="full")
    reprise.undo()
    return {"Profile": profile.to_json(), "Plan": plan.to_json()}


def value_of(row):
    return VALUES[row["special"]] if "special" in row else row["value"]


def act(row, model, documents):
    """Makes the call of one row."""
    call = row["call"]
    if call == "budget":
        reprise.auto_checkpoint(model, value_of(row))
    elif call == "policy":
        reprise.auto_checkpoint(model, "100%", policy=value_of(row))
    elif call == "model":
        reprise.auto_checkpoint(value_of(row), "100%")
    elif call == "exclude":
        reprise.auto_checkpoint(model, "100%", exclude=value_of(row))
    elif call == "executor":
        reprise.apply(reprise.Plan.from_json(documents["Plan"]), model, executor=value_of(row))
    elif call in ("Plan", "Profile"):
        getattr(reprise, call).from_json(spoil(documents, row))
    else:
        raise AssertionError(f"unknown call {call}")


def spoil(documents, row):
    """A document with one thing wrong."""
    text = documents[row.get("document", row["call"])]
    if "cut" in row:
        return text[: int(len(text) * row["cut"])]
    if "replace" in row:
        old, new = row["replace"]
        assert old in text
        return text.replace(old, new, 1)
    return row["text_in"] * row.get("times", 1)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["name"])
def test_bad_input(row, documents):
    model = small()
    expected = gradients(model)
    with pytest.raises({"ValueError": ValueError, "TypeError": TypeError}[row["error"]]) as caught:
        act(row, model, documents)
    assert str(caught.value) == row["text"]
    assert not isinstance(caught.value, reprise.Infeasible)
    assert all(map(torch.equal, expected, gradients(model)))
    assert reprise.memory_stats()["cap_bytes"] == 0


def test_the_table_is_long_enough():
    assert len(TABLE) >= 40
    assert len({row["name"] for row in TABLE}) == len(TABLE)


# ---- legal uses are not errors

@pytest.fixture
def model():
    yield small()
    reprise.undo()


def test_called_twice_replaces_the_budget(model):
    reprise.auto_checkpoint(model, "1GiB")
    reprise.auto_checkpoint(model, "2GiB")
    gradients(model)
    assert reprise.memory_stats()["cap_bytes"] == 2 << 30


def test_called_inside_no_grad(model):
    with torch.no_grad():
        reprise.auto_checkpoint(model, "1GiB")
    assert all(map(torch.equal, gradients(model), gradients(model)))


def test_budget_above_the_device_is_clamped(model, capfd):
    reprise.auto_checkpoint(model, "500TiB")
    gradients(model)
    said = [line for line in capfd.readouterr().err.splitlines() if "500TiB" in line]
    assert len(said) == 1
    assert 0 < reprise.memory_stats()["cap_bytes"] < 500 << 40


def test_model_without_parameters(capfd):
    reprise.auto_checkpoint(nn.ReLU(), "1GiB")
    said = [line for line in capfd.readouterr().err.splitlines() if "no parameters" in line]
    assert len(said) == 1
    reprise.undo()


def test_undo_without_anything_to_undo(model):
    reprise.undo()
    reprise.undo(model)


def test_same_plan_of_another_model_is_refused(documents):
    torch.manual_seed(0)
    other = nn.Sequential(nn.Linear(16, 32), nn.Sigmoid(), nn.Linear(32, 16))
    reprise.auto_checkpoint(other, "100%")
    for _ in range(2):
        gradients(other)
    with pytest.raises(ValueError, match="made for another model"):
        reprise.apply(reprise.Plan.from_json(documents["Plan"]), other)
    reprise.undo()


def test_under_torch_compile(model):
    expected = gradients(model)
    compiled = torch.compile(model, backend="aot_eager")
    reprise.auto_checkpoint(model, "1GiB", policy="full")
    for _ in range(2):
        found = gradients(compiled)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(expected, found))
