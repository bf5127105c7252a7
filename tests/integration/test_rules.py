"""The contract of a correct recompute, R1 to R12, each rule by its number."""

import collections
import contextlib
import copy
import gc
import io
import pickle
import threading

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import reprise
from models_basic import Block, Stack
from running import Program, Case, differences, run_case

MIB = 1 << 20


class Layer(nn.Module):
    """A linear layer and GELU; 1 MiB per result at 1024 x 256. Counts how often Python calls it."""

    def __init__(self, width=256):
        super().__init__()
        self.linear, self.calls = nn.Linear(width, width), 0

    def forward(self, x):
        self.calls += 1
        return F.gelu(self.linear(x))


@pytest.fixture
def stack():
    torch.manual_seed(0)
    model = Stack([Layer() for _ in range(8)])
    yield model
    reprise.undo()


def batch(rows=1024):
    return torch.randn(rows, 256)


def learn(model, budget="100%", policy="full", steps=2):
    """Arms the engine and runs the learning Pass and a planned one."""
    reprise.auto_checkpoint(model, budget, policy=policy)
    for _ in range(steps):
        model(batch()).square().mean().backward()
    return model


def counted(run):
    """What the engine's counters gained during run()."""
    before = reprise.counters()
    run()
    return {k: v - before[k] for k, v in reprise.counters().items()}


def live():
    gc.collect()
    return reprise.memory_stats()["live_bytes"]


def equal_to_plain(make, policy="full"):
    one = Case("one", make)
    plain, other = run_case(one), run_case(one, policy)
    assert plain.error is None
    assert differences(plain, other) == []
    return other


# ---- R1 Same numbers

@pytest.mark.parametrize("policy", ["none", "full", "sqrt", "per_block", "chunks(2)", "chunks(2, hold_inside=False)", "auto", "random(3)"])
def test_r1_same_numbers(policy):
    def make():
        model = Stack([Block(dropout=0.2) for _ in range(4)])

        def step(index):
            loss = model(torch.randn(4, 32, 64)).square().mean()
            loss.backward()
            return [loss]
        return Program(model, step)
    equal_to_plain(make, policy)


def test_r1_nothing_is_left_of_the_step_that_used_the_memory_before():
    """Steps of two kinds take turns, so that each Op is booked where another one was: with a generator, a write, more arguments, hidden writes."""
    def make():
        model = Layer()

        def step(index):
            y = model(batch())
            if index in (1, 2, 4, 7):   # in no rhythm: two memories take turns
                y = F.dropout(torch.cat([y, y.sin(), y]), 0.3).mul_(2)
                y = torch.stack([y, y.cos()]).clamp_(-1, 1)
            else:
                y = F.batch_norm(F.softmax(y, -1).square().exp(), torch.zeros(256), torch.ones(256), training=True)
            loss = y.square().mean()
            loss.backward()
            return [loss]
        return Program(model, step)
    one = Case("one", make, steps=8)
    plain, other = run_case(one), run_case(one, "full")
    assert plain.error is None and differences(plain, other) == []


# ---- R2 No user code runs twice

def test_r2_forward_is_called_once(stack):
    learn(stack, steps=3)
    assert [layer.calls for layer in stack.layers] == [3] * 8


def test_r2_custom_function_and_hooks_run_once(stack):
    ran = []

    class Noted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ran.append("forward")
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx, g):
            ran.append("backward")
            return g * ctx.saved_tensors[0].cos()
    stack.layers[2].register_forward_hook(lambda *_: ran.append("hook"))
    reprise.auto_checkpoint(stack, "100%", policy="full")
    for _ in range(2):
        stack.layers[3](Noted.apply(stack.layers[2](stack.layers[1](batch())))).sum().backward()
    assert ran == ["hook", "forward", "backward"] * 2


class Counting(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[str(func)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_r2_a_dispatch_mode_sees_no_replay(stack, where):
    """A mode of the user's is his code too. (Torch detaches every saved tensor that went through a hook, anybody's.)"""
    def seen():
        mode = Counting()
        with mode if where == "forward" else contextlib.nullcontext():
            loss = stack(batch()).square().mean()
        with mode if where == "backward" else contextlib.nullcontext():
            loss.backward()
        return mode.seen
    seen()                              # gradients are there from now on
    plain = seen()
    learn(stack, policy="full", steps=2)
    assert counted(lambda: stack(batch()).square().mean().backward())["replayed"] > 0
    assert set(seen() - plain) <= ({"aten.detach.default"} if where == "backward" else set())


def test_r2_python_operators_run_once(stack):
    """An operator written in Python is not known to be a function of its arguments alone."""
    runs = []

    @torch.library.custom_op("reprise_rules::noted", mutates_args=())
    def noted(x: torch.Tensor) -> torch.Tensor:
        runs.append(1)
        return x.sin()
    noted.register_autograd(lambda ctx, g: g * 2)
    reprise.auto_checkpoint(stack, "100%", policy="full")
    for _ in range(3):
        F.gelu(noted(stack.layers[0](batch()))).sum().backward()
    assert len(runs) == 3


# ---- R3 Exact work

def test_r3_each_op_once_per_group(stack):
    """Held chunks: no op of the forward runs more than once again, whatever the number of readers."""
    learn(stack, policy="chunks(2)")
    seen = counted(lambda: stack(batch()).square().mean().backward())
    assert 0 < seen["replayed"] <= 2 * 8 + 2     # a linear and a GELU per layer, square and mean


def test_r3_only_what_is_needed(stack):
    """Nothing is replayed for a layer whose gradient nobody asks for."""
    learn(stack, policy="chunks(8)", steps=3)
    x = batch()

    def last_layer_only():
        y = stack(x)
        torch.autograd.grad(y.sum(), [stack.layers[7].linear.bias])
    part = counted(last_layer_only)["replayed"]
    whole = counted(lambda: stack(x).sum().backward())["replayed"]
    assert part < whole / 2


def test_r3_alive_values_are_not_replayed(stack):
    """What the user still holds is found alive."""
    learn(stack, policy="full", steps=3)
    kept, x = [], batch()

    def holding():
        h = x
        for layer in stack.layers:
            h = layer.linear(h)
            kept.append(h)
            h = F.gelu(h)
            kept.append(h)
        h.square().mean().backward()
    assert counted(holding)["replayed"] == 0


# ---- R4 Only what is safe is dropped

@torch.library.custom_op("reprise_rules::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return x * 2


twice.register_autograd(lambda ctx, g: g * 2)


def test_r4_python_operator_is_opaque(stack):
    def run():
        h = stack.layers[0](batch())
        F.gelu(twice(h)).sum().backward()
    reprise.auto_checkpoint(stack, "100%", policy="full")
    run()
    assert counted(run)["opaque"] > 0
    assert "twice" in str(reprise.report())


def test_r4_sparse_tensors_are_kept(stack):
    mixing = (torch.rand(1024, 1024) < 0.01).float().to_sparse()
    reprise.auto_checkpoint(stack, "100%", policy="full")
    for _ in range(2):
        torch.sparse.mm(mixing, stack.layers[0](batch())).sum().backward()
    assert stack.layers[0].linear.weight.grad is not None


# ---- R5 Same conditions

def test_r5_live_generator_is_untouched(stack):
    model = Stack([nn.Sequential(layer, nn.Dropout(0.5)) for layer in stack.layers])
    learn(model)
    loss = model(batch()).square().mean()
    before = torch.get_rng_state()
    assert counted(loss.backward)["replayed"] > 0
    assert torch.equal(before, torch.get_rng_state())


def test_r5_default_dtype_of_the_forward_is_used():
    def make():
        model = Stack([Layer(64) for _ in range(4)])

        def step(index):
            h = torch.randn(64, 64)
            for layer in model.layers:
                h = layer(h) * torch.rand(64) + torch.linspace(0, 1, 64)
            torch.set_default_dtype(torch.float64)
            try:
                h.square().mean().backward()
            finally:
                torch.set_default_dtype(torch.float32)
            return [h]
        return Program(model, step)
    assert equal_to_plain(make).counters["replayed"] > 0


# ---- R6 Side effects happen once

def test_r6_statistics_and_counters():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(64, 64), nn.BatchNorm1d(64)
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            return F.gelu(self.norm(self.linear(x)))

    def make():
        model = Stack([Counting() for _ in range(3)])

        def step(index):
            loss = model(torch.randn(64, 64)).square().mean()
            loss.backward()
            return [loss, tuple(int(layer.seen) for layer in model.layers), tuple(int(layer.norm.num_batches_tracked) for layer in model.layers)]
        return Program(model, step)
    other = equal_to_plain(make)
    assert other.counters["replayed"] > 0
    assert other.seen["step 2 result 1"] == (3, 3, 3)
    assert other.seen["step 2 result 2"] == (3, 3, 3)


# ---- R7 A visible write is survived

def writing(spoil):
    """A program that changes the first layer's bias, which autograd does not save, between forward and backward."""
    def make():
        model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))

        def step(index):
            x = torch.randn(64, 64)
            loss = model(x + 1).square().mean()
            spoil(model, x)
            loss.backward()
            return [loss]
        return Program(model, step)
    return make


def test_r7_visible_write_is_survived_and_counted():
    other = equal_to_plain(writing(lambda model, x: model[0].bias.detach().add_(1)))
    assert other.counters["source_copies"] > 0


@pytest.mark.parametrize("spoil", [lambda model, x: x.untyped_storage().resize_(0),
                                   lambda model, x: setattr(model[0].bias, "data", model[0].bias.detach() + 1)], ids=["storage resized", "data replaced"])
def test_r7_unseen_write_raises_or_is_equal(spoil):
    one = Case("one", writing(spoil))
    plain, other = run_case(one), run_case(one, "full")
    assert plain.error is None
    assert other.error is None and differences(plain, other) == [] or "reprise" in other.error and "aten::" in other.error


def test_r7_torch_refuses_in_its_own_words(stack):
    def attempt():
        h = stack.layers[0](batch()).exp()
        loss = h.sum()
        h.detach().add_(1)
        with pytest.raises(RuntimeError) as caught:
            loss.backward()
        return str(caught.value)
    plain = attempt()
    reprise.auto_checkpoint(stack, "100%", policy="full")
    assert [attempt(), attempt()] == [plain, plain]
    assert "modified by an inplace operation" in plain


# ---- R8 Everything autograd allows stays allowed

def test_r8_retain_graph_gives_the_memory_back(stack):
    learn(stack, steps=3)
    base = live()
    loss = stack(batch()).square().mean()
    dropped = live() - base
    loss.backward(retain_graph=True)
    assert live() - base <= dropped + 64 * 1024
    loss.backward()


def test_r8_plain_would_hold_more(stack):
    """The test above means something: plain torch holds every activation at that moment."""
    for layer in stack.layers:
        layer.linear.weight.grad, layer.linear.bias.grad = torch.zeros(256, 256), torch.zeros(256)
    base = live()
    loss = stack(batch()).square().mean()
    assert live() - base > 15 * MIB
    loss.backward()


def test_r8_graph_dropped_frees_everything(stack):
    learn(stack, steps=2)
    base = live()
    loss = stack(batch()).square().mean()
    del loss
    assert live() <= base + 64 * 1024


# ---- R9 The cap holds

def test_r9_reserved_stays_under_the_budget(stack):
    learn(stack, "100%", "none")
    reprise.undo()
    base = live()
    budget = base + 12 * MIB
    reprise.auto_checkpoint(stack, budget)
    for _ in range(4):
        reprise.reset_peaks()
        stack(batch()).square().mean().backward()
        assert reprise.memory_stats()["peak_reserved_bytes"] <= budget


def test_r9_infeasible_says_what_would_do(stack):
    budget = live() + 2 * MIB
    with pytest.raises(reprise.Infeasible) as caught:
        learn(stack, budget, "auto")
    assert isinstance(caught.value, torch.OutOfMemoryError)
    smallest = caught.value.smallest_budget
    assert smallest > budget
    del caught
    stack.zero_grad()
    reprise.reset_peaks()
    learn(stack, smallest, "auto", steps=3)
    assert reprise.memory_stats()["peak_reserved_bytes"] <= smallest


# ---- R10 Leaves no trace

def traces(model):
    """Everything of a model that reprise has no business with."""
    def hooks(module):
        return {k: list(v) for k, v in vars(module).items() if k.endswith("_hooks") and v is not None}
    stream = io.BytesIO()
    torch.save(model.state_dict(), stream)
    return {"keys": list(model.state_dict()), "types": [type(m) for m in model.modules()], "names": [n for n, _ in model.named_parameters()],
            "forwards": [m.forward.__func__ for m in model.modules()], "hooks": [hooks(m) for m in model.modules()],
            "attributes": [sorted(vars(m)) for m in model.modules()], "tensor hooks": [p._backward_hooks for p in model.parameters()],
            "parameter types": [type(p) for p in model.parameters()], "state size": len(stream.getvalue())}


def test_r10_leaves_no_trace(stack):
    before = traces(stack)
    learn(stack, steps=1)
    during = traces(stack)
    learn(stack, steps=2)
    later = traces(stack)
    twin = pickle.loads(pickle.dumps(stack))
    copied = copy.deepcopy(stack)
    reprise.undo(stack)
    assert before == during == later == traces(stack)
    for other in (twin, copied):
        assert [type(m) for m in other.modules()] == before["types"]
        assert all(map(torch.equal, other.state_dict().values(), stack.state_dict().values()))


def test_r10_undo_restores_plain_memory(stack):
    learn(stack, steps=2)
    reprise.undo()
    seen = counted(lambda: stack(batch()).square().mean().backward())
    assert seen["recorded"] == seen["replayed"] == seen["dropped"] == 0
    assert reprise.memory_stats()["cap_bytes"] == 0


def gradients_of(model, x):
    model.zero_grad(set_to_none=False)
    model(x).square().mean().backward()
    return [p.grad.clone() for p in model.parameters()]


def test_r10_rests_where_everything_fits_and_wakes_at_the_cap(stack):
    """Nothing is recorded, no tensor hooked, once steps fit; a step four times as large then makes it plan, and the cap holds all the way."""
    small, large = batch(), torch.randn(4096, 256)
    plain = {len(x): gradients_of(stack, x) for x in (small, large)}
    budget = live() + 48 * MIB      # 16 MiB of activations fit, 64 MiB do not
    reprise.auto_checkpoint(stack, budget)
    reprise.reset_peaks()
    for _ in range(8):
        gradients_of(stack, small)
    seen = counted(lambda: gradients_of(stack, small))
    assert seen["recorded"] == seen["kept"] == seen["dropped"] == seen["passes"] == 0
    for _ in range(4):
        assert all(map(torch.equal, gradients_of(stack, large), plain[4096]))
        assert reprise.memory_stats()["peak_reserved_bytes"] <= budget
    seen = counted(lambda: gradients_of(stack, large))
    assert seen["replayed"] > 0 and seen["unplanned"] == seen["overflow_bytes"] == 0
    assert all(map(torch.equal, gradients_of(stack, small), plain[1024]))


def test_r10_forked_worker_is_uncapped(stack):
    learn(stack, live() + 40 * MIB, "auto")
    reading, writing_end = torch.multiprocessing.get_context("fork").Pipe(False)

    def work(out):
        torch.set_num_threads(1)
        x = torch.zeros(64 * MIB)
        out.send((reprise.memory_stats()["cap_bytes"], x.numel()))
    process = torch.multiprocessing.get_context("fork").Process(target=work, args=(writing_end,))
    process.start()
    assert reading.poll(60)
    assert reading.recv() == (0, 64 * MIB)
    process.join(60)
    assert process.exitcode == 0


# ---- R11 Nothing unseen

def test_r11_numpy_write_makes_the_producer_opaque(stack):
    def make():
        model = Stack([Layer(64) for _ in range(3)])

        def step(index):
            h = torch.randn(64, 64)
            for layer in model.layers:
                h = layer(h)
                scaled = h * 2
                scaled.detach().numpy()[:, :5] *= -1
                h = scaled.tanh()
            loss = h.square().mean()
            loss.backward()
            return [loss]
        return Program(model, step)
    other = equal_to_plain(make)
    assert other.counters["opaque"] > 0


def test_r11_verify_names_the_first_op(stack, monkeypatch):
    """An input changed after its last read, where nobody sees it. Small ones were copied and replay as they were; one of 8 MiB is not, and is named."""
    monkeypatch.setenv("REPRISE_VERIFY", "1")
    reprise.auto_checkpoint(stack, "100%", policy="full")
    x = torch.randn(8192, 256)
    loss = stack(x).square().mean()
    x.numpy()[:4] += 1
    with pytest.raises(RuntimeError, match="aten::addmm"):
        loss.backward()


def test_r11_verification_replays_and_compares_everything(stack, monkeypatch):
    monkeypatch.setenv("REPRISE_VERIFY", "1")
    reprise.auto_checkpoint(stack, "100%", policy="full")
    seen = counted(lambda: stack(batch()).square().mean().backward())
    assert seen["verified"] >= 2 * 8


# ---- R12 Streams, devices, threads

def test_r12_backward_in_another_thread(stack):
    learn(stack, steps=2)
    loss = stack(batch()).square().mean()
    seen = counted(lambda: [t.start() or t.join() for t in [threading.Thread(target=loss.backward)]])
    assert seen["replayed"] > 0


def test_r12_two_threads_share_a_group(stack):
    """Two backwards of one graph at once, as two devices would, each in a node of its own (torch runs a node in one thread at a time): both ask for what one Group makes,
    at the same moment. Equal to one after the other, and each Group is replayed by one of them. Rows enough that a replay outlasts the turn that a loaded machine gives a thread."""
    def forward():
        h, layers = batch(8192), []
        for layer in stack.layers:
            h = layer(h)
            h.register_hook(wait_for_the_other)
            layers.append((torch.autograd.graph.get_gradient_edge(h), [h.sin(), h.cos()]))  # nobody keeps h
        return layers

    def wait_for_the_other(grad):   # neither ends before both have what they asked for
        if in_step.is_set():
            barrier.wait()
    in_step, barrier, found = threading.Event(), threading.Barrier(2, timeout=60), {}
    reprise.auto_checkpoint(stack, "100%", policy="full")
    for _ in range(2):
        sum(side.sum() for _, sides in forward() for side in sides).backward()
    layers = forward()

    def backward(k):
        for i, (edge, sides) in reversed(list(enumerate(layers))):
            if in_step.is_set():
                barrier.wait()
            (found[k, i],) = torch.autograd.grad(sides[k], edge, torch.ones_like(sides[k]), retain_graph=True)
    alone = [counted(lambda: backward(k))["replays"] for k in range(2)]
    expected = dict(found)
    assert min(alone) >= 7
    found.clear()
    in_step.set()
    threads = [threading.Thread(target=backward, args=(k,)) for k in range(2)]
    together = counted(lambda: [t.start() for t in threads] + [t.join(120) for t in threads])["replays"]
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)
    assert together == max(alone)


def test_r12_forward_in_a_thread_that_is_gone(stack):
    """A new thread for every forward: what the first one teaches is followed by the third."""
    def step():
        out = []
        thread = threading.Thread(target=lambda: out.append(stack(batch()).square().mean()))
        thread.start()
        thread.join()
        out[0].backward()
    reprise.auto_checkpoint(stack, "100%", policy="full")
    step()
    step()
    seen = counted(step)
    assert seen["replayed"] > 0 and seen["unplanned"] == 0
