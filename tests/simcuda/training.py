"""The engine on CUDA: reprise.auto_checkpoint on *simulated* devices, in numeric mode. Bit-equal to plain training, under the cap.

Families: engine; engine_late (side streams run as late as they may: a missing wait is a wrong number)."""

import gc
import os
import sys

import simcuda
from simulated import Family

FAMILIES = {"engine": Family(numeric=True, devices=2), "engine_late": Family(numeric=True, late=True)}
engine, engine_late = FAMILIES.values()
VOCABULARY, LENGTH, BATCH = 256, 128, 8
MIB = 1 << 20
CLASSIC = ("full", "sqrt", "per_block")


def small_gpt():
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, width, heads):
            super().__init__()
            self.heads, self.dropout = heads, nn.Dropout(0.1)
            self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            batch, length, width = x.shape
            q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(self.norm_attention(x)).chunk(3, -1))
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(batch, length, width)
            x = x + self.dropout(self.out(mixed))
            return x + self.dropout(self.down(functional.gelu(self.up(self.norm_mlp(x)))))

    class GPT(nn.Module):
        def __init__(self, width=192, heads=4, layers=5):
            super().__init__()
            self.token, self.position = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
            self.layers, self.head = nn.ModuleList(Block(width, heads) for _ in range(layers)), nn.Linear(width, VOCABULARY)

        def forward(self, ids):
            x = self.token(ids) + self.position(torch.arange(ids.shape[1], device=ids.device))
            for layer in self.layers:
                x = layer(x)
            return self.head(x)

    return GPT()


def small_llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=VOCABULARY, hidden_size=128, intermediate_size=352, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=LENGTH, attention_dropout=0.0, use_cache=False)
    model = LlamaForCausalLM(config)

    class Logits(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids):
            return self.model(ids).logits

    return Logits()


class Run:
    """Losses and parameters of a few steps, what they needed, and how often reserved bytes were over the budget. Gradients stay resident."""

    def __init__(self, make, budget=None, steps=4, batch=BATCH, reported=False, **options):
        import reprise

        torch.manual_seed(0)
        model = make().cuda()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        draw, self.losses, self.over, self.steps = torch.Generator().manual_seed(1), [], 0, []
        torch.cuda.reset_peak_memory_stats()
        if budget is not None or options:
            reprise.auto_checkpoint(model, budget, **options)
        try:
            torch.manual_seed(5)
            for _ in range(steps):
                torch.cuda.reset_peak_memory_stats()
                self.start = torch.cuda.memory_allocated()
                ids = torch.randint(0, VOCABULARY, (batch, LENGTH + 1), generator=draw).cuda()
                loss = torch.nn.functional.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=False)
                self.losses.append(loss.item())
                self.over += budget is not None and torch.cuda.max_memory_reserved() > budget
                self.activations = torch.cuda.max_memory_allocated() - self.start
                self.steps.append(reprise.memory_stats() | {"held_bytes": torch.cuda.max_memory_reserved(), "used_bytes": torch.cuda.max_memory_allocated()})
            if reported:
                self.report, self.operators = reprise.report(), reprise.profile().data["body"]["ops"]
        finally:
            reprise.undo()
        self.parameters = [p.detach().cpu() for p in model.parameters()]

    def equals(self, other):
        return self.losses == other.losses and all(map(torch.equal, self.parameters, other.parameters))


def half_of_the_activations(make):
    import reprise

    plain = Run(make)
    replayed = reprise.counters()["replayed"]
    gc.collect()
    torch.cuda.empty_cache()
    budgeted = Run(make, plain.start + plain.activations // 2)
    assert budgeted.equals(plain), (plain.losses, budgeted.losses)
    assert budgeted.over == 0
    assert 2 * budgeted.activations <= plain.activations, (budgeted.activations, plain.activations)
    assert reprise.counters()["replayed"] > replayed
    return plain


@engine
def a_gpt_in_half_of_its_activations(device):
    """With dropout: masks are drawn again from the CUDA generator's recorded seed and offset."""
    half_of_the_activations(small_gpt)
    assert device.launches() == 0, "a kernel that does nothing was launched"


@engine
def a_step_that_repeats_lies_at_its_planned_places(device):
    """Where everything fits, and under a Plan: every allocation of the last steps that the Plan knows is served at its place, no device call is made, and beside what is
    live there are the pages that pieces begin and end in, and two for what is made between the steps."""
    steps = 9
    plain = Run(small_gpt, steps=steps)
    for share in (1.5, 0.6):
        gc.collect()
        torch.cuda.empty_cache()
        budgeted = Run(small_gpt, int(plain.start + share * plain.activations) + 8 * MIB, steps=steps)
        assert budgeted.equals(plain) and budgeted.over == 0, share
        before, last = budgeted.steps[-4], budgeted.steps[-1]
        assert last["planned_hits"] - before["planned_hits"] > 3 * 300 and last["planned_misses"] == before["planned_misses"], (share, before, last)
        assert last["device_calls"] == before["device_calls"], (share, before, last)
        assert last["held_bytes"] <= last["used_bytes"] + 3 * 2 * MIB, (share, last)


def refused(error, words, function, argument):
    try:
        function(argument)
    except error as said:
        assert words in str(said), said
    else:
        raise AssertionError(f"{function}({argument}) was not refused")


@engine
def a_refused_budget_leaves_the_other_device_alone(device):
    """The model is on the GPU, the budget was the CPU's: while it is refused there, nothing moves; once it is accepted, the CPU's is lifted."""
    import reprise

    on_cpu, on_gpu = torch.nn.Linear(64, 64), torch.nn.Linear(1024, 1024).cuda()
    reprise.auto_checkpoint(on_cpu, reprise.memory_stats()["reserved_bytes"] + 64 * MIB)
    before = reprise.memory_stats()
    try:
        for budget in (1000, "1MiB"):
            refused(ValueError, "argument budget: ", lambda amount: reprise.auto_checkpoint(on_gpu, amount), budget)
            now = reprise.memory_stats()
            assert now["cap_bytes"] == before["cap_bytes"] > 0 and now["live_bytes"] < 5 * MIB + before["live_bytes"], (before, now)
            refused(RuntimeError, "reprise: out of memory", torch.ByteTensor, 128 * MIB)
        reprise.auto_checkpoint(on_gpu, "1GiB")
        assert reprise.memory_stats()["cap_bytes"] > 900 * MIB
        torch.empty(128 * MIB, dtype=torch.uint8)
    finally:
        reprise.undo()


@engine
def a_llama_in_half_of_its_activations(device):
    half_of_the_activations(small_llama)


@engine
def classic_schemes_are_equal_to_plain(device):
    plain = Run(small_gpt, steps=3)
    for policy in CLASSIC:
        assert Run(small_gpt, steps=3, policy=policy).equals(plain), policy


@engine
def everything_replayed_is_the_same_to_the_bit(device):
    import reprise

    verified = reprise.counters()["verified"]
    Run(small_gpt, steps=2, policy="full", verify=True)
    assert reprise.counters()["verified"] > verified


@engine
def what_does_not_fit_raises_and_a_smaller_step_goes_on(device):
    import reprise

    plain = Run(small_gpt, steps=2)  # in the second one the optimizer's state is there
    budget = plain.start + plain.activations // 4
    gc.collect()
    torch.cuda.empty_cache()
    try:
        Run(small_gpt, budget, steps=3, batch=4 * BATCH)
    except torch.OutOfMemoryError as error:
        assert isinstance(error, reprise.Infeasible), type(error)
        assert str(error).startswith("reprise: out of memory under the budget: asked for "), error
        assert error.smallest_budget > budget, "measured to its end with pinned memory's help"
    else:
        raise AssertionError("a step of four times the size fits into a quarter")
    gc.collect()
    torch.cuda.empty_cache()
    small = Run(small_gpt, budget, steps=2, batch=1)
    assert small.over == 0


@engine
def a_step_that_does_not_fit_names_a_budget_that_does(device):
    """It is measured to its end, in pinned host memory; then it is refused, and that memory is given back."""
    import reprise

    def losses(budget):
        torch.manual_seed(0)
        model = torch.nn.Sequential(*[torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU()) for _ in range(8)]).cuda()
        draw, out = torch.Generator().manual_seed(1), []
        if budget:
            reprise.auto_checkpoint(model, budget)
        try:
            for _ in range(3):
                loss = model(torch.randn(8192, 64, generator=draw).cuda()).square().mean()
                loss.backward()
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter -= 0.1 * parameter.grad
                        parameter.grad = None
                out.append(loss.item())
                assert not budget or torch.cuda.max_memory_reserved() <= budget
            return out
        finally:
            reprise.undo()

    plain = losses(None)
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    try:
        losses(5 * MIB)  # a tensor of the step has 2 MiB, and there are 16
    except reprise.Infeasible as error:
        smallest = error.smallest_budget
    else:
        raise AssertionError("16 tensors of 2 MiB in 5 MiB")
    assert smallest is not None and 5 * MIB < smallest < 32 * MIB, smallest
    assert reprise.counters()["overflow_bytes"] > 0 and device.calls("cuMemHostAlloc") > 0
    gc.collect()
    torch.cuda.empty_cache()
    assert device.calls("cuMemFreeHost") == device.calls("cuMemHostAlloc"), "nothing is left in pinned memory"
    torch.cuda.reset_peak_memory_stats()
    assert losses(smallest) == plain


KERNEL_SECONDS = 8e-6  # of every kernel in numeric mode


def seconds_of(run, name):
    return [op["forward_seconds"] for op in run.operators if op["name"] == name]


@engine
def seconds_are_cupti_s(device):
    """Kernels' own time by the device's records, to the nanosecond of the virtual clock: nothing of the launch."""
    run = Run(small_gpt, steps=2, policy="full", reported=True)
    seconds = run.report.data["seconds"]
    assert seconds == {"source": "CUPTI activity records", "dropped_records": 0, "unclaimed_seconds": seconds["unclaimed_seconds"]}, seconds
    assert seconds["unclaimed_seconds"] > 10 * KERNEL_SECONDS, "backward's own kernels are no Op's"
    for name in ("aten::addmm", "aten::gelu", "aten::native_layer_norm"):
        found = seconds_of(run, name)
        assert len(found) >= 5 and all(abs(value - KERNEL_SECONDS) < 1e-12 for value in found), (name, found)
    assert "seconds of operators: CUPTI activity records, 0 records lost" in str(run.report)


@engine
def what_cupti_lost_is_said(device):
    import ctypes

    library = ctypes.CDLL(next(str(path) for path in simcuda.libraries() if path.name.startswith("libcupti")))
    library.simcuda_cupti_drops(6)
    run = Run(small_gpt, steps=1, policy="full", reported=True)
    assert run.report.data["seconds"]["dropped_records"] == 6
    assert "6 records lost" in str(run.report)


@engine
def events_where_records_are_not_to_be_had(device):
    device.fail("cuptiSubscribe")
    run = Run(small_gpt, steps=1, policy="full", reported=True)
    source = run.report.data["seconds"]["source"]
    assert source.startswith("CUDA events: CUPTI is held by another tool, or does not work here: "), source
    least = torch.tensor(KERNEL_SECONDS, dtype=torch.float32).item()  # Profiles hold seconds as floats
    found = seconds_of(run, "aten::addmm")
    assert found and min(found) >= least, "an event before and one after"
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]):
        run = Run(small_gpt, steps=1, policy="full", reported=True)
    assert run.report.data["seconds"]["source"] == "CUDA events: torch's profiler is on, and records are its"
    assert min(seconds_of(run, "aten::addmm")) >= least


@engine
def a_graph_is_captured_unrecorded(device):
    """R12: CUDA replays it, on the addresses it was captured with; what was saved inside stays."""
    import reprise

    def captured(budget):
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.Linear(64, 4)).cuda()
        if budget:
            reprise.auto_checkpoint(model, budget)
        x, graph = torch.ones(8, 16, device="cuda"), torch.cuda.CUDAGraph()
        model(x).square().mean().backward()
        model.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            model(x).square().mean().backward()
        x.fill_(3)
        graph.replay()
        reprise.undo()
        return [p.grad.cpu() for p in model.parameters()]

    assert all(map(torch.equal, captured(None), captured("2GiB")))


@engine
def a_budget_is_for_one_device(device):
    import reprise

    model = torch.nn.ModuleList([torch.nn.Linear(4, 4).to("cuda:0"), torch.nn.Linear(4, 4).to("cuda:1")])
    try:
        reprise.auto_checkpoint(model, "1GiB")
    except ValueError as error:
        assert "cuda:0" in str(error) and "cuda:1" in str(error), error
    else:
        raise AssertionError("no ValueError")


@engine
def a_model_on_the_second_device(device):
    import reprise

    with torch.cuda.device(1):
        Run(lambda: torch.nn.Sequential(torch.nn.Embedding(VOCABULARY, 64), torch.nn.GELU(), torch.nn.Linear(64, VOCABULARY)), steps=2, policy="full")
    assert device.used(1) > 0 and reprise.counters()["replayed"] > 0


def two_streams(policy):
    """Gradients of a model whose second half runs on a side stream, as its author would write it."""
    import reprise

    torch.manual_seed(0)
    first, second = (torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.GELU(), torch.nn.Linear(256, 64)).cuda() for _ in range(2))
    side, main = torch.cuda.Stream(), torch.cuda.current_stream()
    if policy:
        reprise.auto_checkpoint(torch.nn.ModuleList([first, second]), None, policy=policy)

    def loss_of(x):  # its tensors are gone when it returns: what backward reads of them is made again
        y = first(x)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            z = second(y).exp()
        y.record_stream(side)
        main.wait_stream(side)
        z.record_stream(main)
        return (z * z).mean()

    out = []
    for step in range(3):
        loss_of(torch.full((128, 64), 0.1 * (step + 1), device="cuda")).backward()
        torch.cuda.synchronize()
        out += [p.grad.cpu().clone() for p in [*first.parameters(), *second.parameters()]]
    reprise.undo()
    return out


@engine_late
def a_model_on_two_streams_is_replayed_on_them(device):
    plain = two_streams(None)
    assert not any(gradient.isnan().any() for gradient in plain)
    for policy in ("full", "random(1)", "random(2)"):
        assert all(map(torch.equal, two_streams(policy), plain)), policy


if __name__ == "__main__":
    family = FAMILIES[sys.argv[2]]
    simulator = family.activate(sys.argv[1])
    import torch

    os.environ["REPRISE_LOG"] = "0"
    family.run(simulator)
