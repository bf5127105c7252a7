"""Values held in a lossless packed form: what comes back has the same bits, and the rules hold for them as for dropped ones.

A Pass begins with the first tensor that autograd saves: steps here begin with exp(), so that what they make after it is recorded; and they let go of masks before
backward, for what the program itself holds then is kept by every Plan."""

import gc
import threading

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import reprise
from documents import document
from models_basic import Stack

SIZE = 1 << 16      # elements of the masks below


@pytest.fixture(autouse=True)
def disarmed():
    yield
    reprise.undo()


def pack_all(step):
    """Trains one step to learn it, then follows a Plan that packs every saved Value that can be packed and keeps the others. Returns the Values packed."""
    reprise.auto_checkpoint(None, "100%", policy="none")
    step()
    values = reprise.profile().data["body"]["values"]
    plan = reprise.plan(policy="none").data
    body = plan["body"] | {"scheme": "none", "added_seconds": 0, "lower_bound_seconds": 0, "limit_bytes": 0}
    forms = {v["trace_value"]: v["packed"]["form"] for v in values if v["saved"] and v["packed"]["form"] != "none"}
    body["pack"] = [{"value": v, "form": form} for v, form in sorted(forms.items())]
    body["keep"] = [v for v in body["keep"] if v not in forms]
    body["groups"] = [{"trigger": v, "ops": [], "retain": [v], "sources": [], "unpack": [v]} for v in sorted(forms)]
    reprise.apply(reprise.Plan.from_json(document("Plan", plan["version"], body)))
    return forms


def counted(run):
    """What run() returns, and what the engine's counters gained."""
    before = reprise.counters()
    result = run()
    return result, {k: v - before[k] for k, v in reprise.counters().items() if v != before[k]}


def live():
    gc.collect()
    return reprise.memory_stats()["live_bytes"]


def bits(tensor):
    return tensor.contiguous().view(torch.uint8).clone()


def drawn():
    return torch.empty(SIZE).bernoulli_(0.5)


class Layer(nn.Module):
    """A linear layer, GELU and dropout: the dropout's mask is two-valued."""

    def __init__(self, width=64):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + F.dropout(F.gelu(self.linear(x)), 0.1)


class Masks(nn.Module):
    """A scaled dropout mask, a bool mask, the indices of a pooling and those of a sort."""

    def __init__(self):
        super().__init__()
        self.layers, self.convolution = Stack([Layer() for _ in range(4)]), nn.Conv2d(1, 4, 3, padding=1)

    def forward(self, x):
        x = self.layers(x)
        x = x.masked_fill(x.detach() > 1, -1.0)
        pooled = F.max_pool2d(self.convolution(x.view(-1, 1, 16, 64)), 2)
        return x.sort(-1).values.square().mean() + pooled.square().mean()


def trainer(seed=0):
    """A model and a step that returns the loss and all gradients; equal seeds give equal bits."""
    torch.manual_seed(seed)
    model = Masks()

    def step(index=0):
        torch.manual_seed(100 + index)
        loss = model(torch.randn(64, 64))
        model.zero_grad()
        loss.backward()
        return [loss.detach(), *[p.grad.clone() for p in model.parameters()]]
    return model, step


def equal(one, other):
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))


# ---- R1 Same numbers

def test_masks_and_indices_of_a_model():
    _, plain = trainer()
    wanted = [plain(index) for index in range(3)]
    _, step = trainer()
    forms = pack_all(step)
    assert sorted(forms.values()) == ["bits"] * 5 + ["one_byte", "two_bytes"]  # four dropout masks, one bool mask, sorted by 64, pooled from 1024
    for index in range(3):
        got, gained = counted(lambda: step(index))
        assert equal(got, wanted[index])
        assert gained["packed"] == gained["unpacked"] == 7 and "pack_refused" not in gained and "replayed" not in gained


@pytest.mark.parametrize("seed", range(4))
def test_random_plans_pack_replay_and_keep(seed):
    _, plain = trainer()
    wanted = [plain(index) for index in range(4)]
    model, step = trainer()
    reprise.auto_checkpoint(model, "100%", policy=f"random({seed})")
    for index in range(4):
        got, gained = counted(lambda: step(index))
        assert equal(got, wanted[index])
        assert "pack_refused" not in gained and ("unplanned" not in gained or index == 0)
    measured = reprise.report().data
    assert measured["measured"]["peak_live_bytes"] == measured["predicted"]["peak_live_bytes"]
    if measured["plan"]["packed_values"] > 0:
        assert gained["packed"] == measured["plan"]["packed_values"]


@pytest.mark.parametrize("form", ["contiguous", "transposed", "slice", "odd"])
def test_every_bit_comes_back(form):
    """-0.0 beside 0.0, NaNs that differ only in their payload; a view of the storage, sizes that fill no byte."""
    one, other = torch.tensor([0x7FC00123, -2 ** 31], dtype=torch.int32).view(torch.float32)     # a NaN with a payload, and -0.0
    count = 4099 if form == "odd" else 4096
    choice = torch.arange(count) % 3 == 0
    x = torch.ones(count, requires_grad=True)
    seen = []

    def step():
        e = x.exp()
        mask = torch.where(choice, one, other)
        if form == "transposed":
            shown = mask.view(64, 64).t()
        elif form == "slice":
            shown = mask[3:4000:2]
        else:
            shown = mask
        y = e[:shown.numel()].view(shown.shape) * shown
        loss = y.sum()
        wanted = bits(shown)
        del mask, shown
        seen.append((wanted, bits(y.grad_fn._saved_other)))
        loss.backward()
    forms = pack_all(step)
    assert list(forms.values()) == ["bits"]
    _, gained = counted(step)
    assert gained["packed"] == 1 and gained["unpacked"] >= 1
    for wanted, got in seen:
        assert torch.equal(wanted, got)
    assert torch.equal(seen[0][0], seen[1][0])


def test_empty_and_all_equal():
    x = torch.ones(SIZE, requires_grad=True)
    nothing = torch.ones(0, requires_grad=True)

    def step():
        x.grad = None
        e = x.exp()
        loss = (e * (torch.full((SIZE,), 3.0) * 1.5)).sum() + (nothing * (torch.full((0,), 3.0) * 1.5)).sum()
        del e
        loss.backward()
        return x.grad.clone()
    wanted = step()
    assert list(pack_all(step).values()) == ["bits"]         # the other has no bytes
    got, gained = counted(step)
    assert torch.equal(got, wanted)
    assert gained["packed"] == gained["unpacked"] == 1


def test_what_an_operator_makes_beside_its_result_is_unpacked_all_the_same():
    """A sort runs again for its values, and makes its packed indices too: they die with it, as the Plan has it, and are unpacked where they are read."""
    x, w = (torch.randn(64, 256, requires_grad=True) for _ in range(2))

    def step():
        x.grad = w.grad = None
        values, indices = x.exp().sort(-1)
        loss = (values + w.gather(-1, indices)).tanh().sum()
        del values, indices
        loss.backward()
        return [x.grad.clone(), w.grad.clone()]
    wanted = step()
    assert list(pack_all(step).values()) == ["one_byte"]
    made_by = {v["trace_value"]: set(v["makers"]) for v in reprise.profile().data["body"]["values"]}
    plans = (reprise.plan(policy=f"random({seed})") for seed in range(1000))
    plan = next(p for p in plans if any(made_by[v] & set(g["ops"]) for g in p.data["body"]["groups"] for v in g["unpack"]))
    reprise.apply(plan)
    got, gained = counted(step)
    assert equal(got, wanted)
    assert gained["unpacked"] == sum(len(g["unpack"]) for g in plan.data["body"]["groups"]) and "unplanned" not in gained


# ---- What packing is for

def test_a_mask_is_held_in_one_bit_an_element():
    x = torch.randn(SIZE, requires_grad=True)

    def forward():
        return (x.exp() * drawn()).sum()
    pack_all(lambda: forward().backward())
    before = live()
    loss = forward()
    held = live() - before - 4 * SIZE       # exp's result is saved whole
    assert SIZE // 8 <= held <= SIZE // 8 + 1024
    loss.backward()


# ---- Checked while packing

def test_what_does_not_fit_is_kept_and_no_longer_counted_on():
    """The mask has two values in the steps that are learned, and many in a later one."""
    weight = torch.rand(SIZE)
    scale = torch.arange(10.0)

    def run(levels, model_step):
        return [model_step(level) for level in levels]

    def make():
        x = torch.ones(SIZE, requires_grad=True)

        def step(level):
            x.grad = None
            loss = (x.exp() * (weight * scale[level]).round().clamp(0, 4)).sum()
            loss.backward()
            return x.grad.clone()
        return step
    levels = [1, 1, 5, 5, 1]
    wanted = run(levels, make())
    step = make()
    pack_all(lambda: step(1))
    packing = next(f"random({seed})" for seed in range(100) if reprise.plan("100%", policy=f"random({seed})").data["body"]["pack"])
    reprise.auto_checkpoint(None, "100%", policy=packing)
    refused, packed = [], []
    for level, right in zip(levels, wanted):
        got, gained = counted(lambda level=level: step(level))
        assert torch.equal(got, right)
        refused.append(gained.get("pack_refused", 0))
        packed.append(gained.get("packed", 0))
    assert packed[1] > 0 and refused[:2] == [0, 0]      # learned, packed
    assert refused[2] > 0                               # kept, and the numbers are right
    assert refused[3:] == [0, 0]                        # the Plans after it do not count on it, whatever fits again


# ---- R7 Writes

def test_a_write_to_a_packed_value_raises_as_in_plain_torch():
    x = torch.ones(SIZE, requires_grad=True)

    def step(write):
        e = x.exp()
        mask = drawn()
        y = (e * mask).sum()
        if write:
            mask.add_(1)
        del e, mask
        y.backward()
    with pytest.raises(RuntimeError) as plain:
        step(True)
    assert list(pack_all(lambda: step(False)).values()) == ["bits"]
    with pytest.raises(RuntimeError) as ours:
        step(True)
    assert str(ours.value) == str(plain.value)
    x.grad = None
    step(False)     # and training goes on
    assert x.grad is not None


def test_a_chain_of_writes_is_packed_after_the_last():
    """What read an earlier version has its own copy, which cannot be made again and is kept."""
    def make():
        x, z = torch.ones(SIZE, requires_grad=True), torch.ones(SIZE, requires_grad=True)

        def step():
            torch.manual_seed(3)
            x.grad = z.grad = None
            e = x.exp()
            mask = drawn()
            first = e * mask.clone()
            mask.mul_(2)
            loss = (first * 3).sum() + (z * mask).sum()
            del e, mask, first
            loss.backward()
            return [x.grad.clone(), z.grad.clone()]
        return step
    wanted = make()()
    step = make()
    forms = pack_all(step)
    assert list(forms.values()) == ["bits"]
    got, gained = counted(step)
    assert equal(got, wanted) and gained["packed"] == gained["unpacked"] == 1


# ---- R8 Everything autograd allows

def test_retain_graph_falls_back_to_packed():
    x = torch.randn(SIZE, requires_grad=True)

    def forward():
        torch.manual_seed(5)
        return (x.exp() * drawn()).sum()
    pack_all(lambda: forward().backward())
    x.grad = torch.zeros(SIZE)
    loss = forward()
    before = live()
    loss.backward(retain_graph=True)
    assert live() <= before + 1024       # the mask of 256 KiB is packed again
    once = x.grad.clone()
    _, gained = counted(loss.backward)
    assert gained["unpacked"] == 1 and "replayed" not in gained
    assert torch.equal(x.grad, 2 * once)


def test_double_backward():
    def make():
        x = torch.linspace(-1, 1, SIZE, requires_grad=True)

        def step():
            torch.manual_seed(7)
            x.grad = None
            loss = (x.pow(3) * drawn()).sum()
            (first,) = torch.autograd.grad(loss, [x], create_graph=True)
            first.square().sum().backward()
            return [x.grad.clone()]
        return step
    wanted = make()()
    step = make()
    assert pack_all(step)
    got, gained = counted(step)
    assert equal(got, wanted) and gained["packed"] >= 1


def test_backward_in_another_thread():
    model, plain = trainer()
    wanted = plain()
    model, step = trainer()
    pack_all(step)
    torch.manual_seed(100)
    loss = model(torch.randn(64, 64))
    model.zero_grad()
    thread = threading.Thread(target=loss.backward)
    thread.start()
    thread.join()
    assert equal([loss.detach(), *[p.grad for p in model.parameters()]], wanted)


# ---- Bad input

def test_a_plan_that_packs_what_has_no_such_form_is_refused():
    model, step = trainer()
    pack_all(step)
    plan = reprise.plan(policy="none").data
    body = plan["body"] | {"added_seconds": 0, "lower_bound_seconds": 0, "limit_bytes": 0}
    value = body["keep"].pop()
    body["pack"] = [{"value": value, "form": "four_bytes"}]
    body["groups"] = [{"trigger": value, "ops": [], "retain": [value], "sources": [], "unpack": [value]}]
    with pytest.raises(ValueError) as error:
        reprise.apply(reprise.Plan.from_json(document("Plan", plan["version"], body)))
    assert str(error.value) == f'Plan P6: Value {value} has no packed form "four_bytes"'
