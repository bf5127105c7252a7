"""What torch offers on its own CUDA allocator, one named behaviour each, run on the *simulated* device under native's allocator and under reprise's.

Families: trace (kernels do nothing; sizes, streams and errors are exact), numeric (results are real), late (numeric, and side streams run as late as they may)."""

import gc
import os
import sys

from simulated import Family

FAMILIES = {"trace": Family(), "numeric": Family(numeric=True), "late": Family(numeric=True, late=True)}
MIB = 1 << 20
trace, numeric, late = FAMILIES.values()


def rounded(bytes_):
    return (bytes_ + 511) // 512 * 512


def blocks(state="active_allocated"):
    return [block for segment in torch.cuda.memory_snapshot() for block in segment["blocks"] if block["state"] == state]


def new(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


def out_of_memory(allocate):
    try:
        allocate()
    except torch.OutOfMemoryError as error:
        return str(error)
    raise AssertionError("no torch.OutOfMemoryError")


# ---- trace: accounting ----


@trace
def the_allocator_under_test_serves(device):
    """Native asks for memory with cudaMalloc, ours with cuMemCreate; neither leaves it to the other."""
    before = device.calls("cudaMalloc"), device.calls("cuMemCreate")
    kept = new(64)
    asked = device.calls("cudaMalloc") > before[0], device.calls("cuMemCreate") > before[1]
    assert asked == ((False, True) if os.environ["REPRISE"] == "1" else (True, False)), asked
    assert kept.numel() == 64 * MIB


@trace
def parameters_are_counted_exactly(device):
    before = torch.cuda.memory_allocated()
    model = torch.nn.Linear(300, 70).cuda()
    want = sum(rounded(p.numel() * 4) for p in model.parameters())
    assert torch.cuda.memory_allocated() - before == want, (torch.cuda.memory_allocated() - before, want)
    assert torch.cuda.memory_stats()["requested_bytes.all.current"] >= sum(p.numel() * 4 for p in model.parameters())


@trace
def a_training_step_settles(device):
    """Equal peaks and no device memory asked for from the second step on."""
    model = torch.nn.TransformerEncoder(torch.nn.TransformerEncoderLayer(256, 4, 1024, batch_first=True), 2, enable_nested_tensor=False).cuda()
    optimizer = torch.optim.AdamW(model.parameters())
    seen = []
    for _ in range(4):
        torch.cuda.reset_peak_memory_stats()
        model(torch.randn(8, 128, 256, device="cuda")).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        seen.append((torch.cuda.max_memory_allocated(), device.calls("cudaMalloc"), device.calls("cuMemCreate")))
    assert seen[2] == seen[3], seen
    assert device.launches() > 0


@trace
def allocated_is_what_the_snapshot_shows(device):
    kept = [torch.empty(n, device="cuda") for n in (1, 1000, 300_000, 5_000_000)]
    assert torch.cuda.memory_allocated() == sum(block["size"] for block in blocks())
    assert len(kept) <= len(blocks())


@trace
def reserved_is_what_the_device_lost(device):
    kept = [new(3), new(40)]
    segments = sum(segment["total_size"] for segment in torch.cuda.memory_snapshot())
    assert torch.cuda.memory_reserved() == segments == device.used(), (torch.cuda.memory_reserved(), segments, device.used())
    assert len(kept) == 2


@trace
def statistics_agree_with_each_other(device):
    kept, stats = new(5), torch.cuda.memory_stats()
    for what in ("allocation", "allocated_bytes", "reserved_bytes", "requested_bytes", "active_bytes"):
        assert stats[f"{what}.all.current"] == stats[f"{what}.all.allocated"] - stats[f"{what}.all.freed"], what
        assert stats[f"{what}.all.peak"] >= stats[f"{what}.all.current"], what
        assert stats[f"{what}.all.current"] == stats[f"{what}.small_pool.current"] + stats[f"{what}.large_pool.current"], what
    assert stats["allocated_bytes.all.current"] == torch.cuda.memory_allocated()
    assert kept.numel() == 5 * MIB


@trace
def peaks_are_exact_and_resettable(device):
    torch.cuda.reset_peak_memory_stats()
    start = torch.cuda.memory_allocated()
    a = new(30)
    del a
    b = new(10)
    assert torch.cuda.max_memory_allocated() - start == 30 * MIB
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() - start == 10 * MIB
    torch.cuda.reset_accumulated_memory_stats()
    assert torch.cuda.memory_stats()["allocated_bytes.all.allocated"] == 0
    assert b.numel() == 10 * MIB


@trace
def empty_cache_gives_memory_back(device):
    a = new(200)
    before = device.used()
    del a
    torch.cuda.empty_cache()
    assert device.used() <= before - 200 * MIB
    assert torch.cuda.memory_reserved() == device.used()


@trace
def memory_summary_prints(device):
    kept = new(7)
    text = torch.cuda.memory_summary()
    assert "Allocated memory" in text and "CUDA OOMs" in text
    assert kept.numel() == 7 * MIB


@trace
def mem_get_info_and_device_memory_used(device):
    free, total = torch.cuda.mem_get_info()
    assert total == 4096 * MIB and total - free == device.used()


# ---- trace: out of memory ----


@trace
def out_of_memory_is_torch_s_error_and_counted(device):
    ooms = torch.cuda.memory_stats()["num_ooms"]
    text = out_of_memory(lambda: [new(512) for _ in range(9)])
    assert "CUDA out of memory" in text and "Tried to allocate 512.00 MiB" in text, text
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_stats()["num_ooms"] == ooms + 1


@trace
def training_goes_on_after_out_of_memory(device):
    out_of_memory(lambda: new(5000))
    assert new(512).numel() == 512 * MIB


@trace
def a_device_failure_is_survived(device):
    """One refused call: what is cached is given back and the request is served."""
    torch.cuda.empty_cache()
    ooms = torch.cuda.memory_stats()["num_ooms"]
    for call in ("cudaMalloc", "cuMemCreate"):
        device.fail(call)
        a = new(300)
        del a
        device.fail(call, 0)
        torch.cuda.empty_cache()
    assert torch.cuda.memory_stats()["num_ooms"] == ooms


@trace
def the_fraction_is_a_cap(device):
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.25)
    try:
        assert torch.cuda.get_per_process_memory_fraction() == 0.25
        text = out_of_memory(lambda: new(1100))
        assert "1100.00 MiB" in text or "1.07 GiB" in text, text
        kept = [new(200) for _ in range(4)]
        assert device.used() <= 1024 * MIB and len(kept) == 4
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert new(1100).numel() == 1100 * MIB


# ---- trace: streams ----


@trace
def record_stream_delays_reuse(device):
    side = torch.cuda.Stream()
    a = new(64)
    address = a.data_ptr()
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
        a.record_stream(side)
    del a
    b = new(64)
    assert b.data_ptr() != address, "reused while the side stream was still at work"
    side.synchronize()
    del b
    again = [new(64), new(64)]
    assert address in [tensor.data_ptr() for tensor in again], "not reused after the side stream was through"


@trace
def a_stream_s_memory_stays_its_own(device):
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        a = new(48)
        address = a.data_ptr()
        torch.cuda._sleep(50_000_000)
        del a
        same = new(48)
        assert same.data_ptr() == address, "the stream's own work is ordered: it may have it back at once"
        del same
    other = new(48)
    assert other.data_ptr() != address, "another stream got it before its work was done"


@trace
def events_follow_the_clock(device):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    torch.cuda._sleep(1_000_000)
    end.record()
    assert not end.query()
    end.synchronize()
    assert abs(begin.elapsed_time(end) - 1) < 0.1


@trace
def pinned_memory_round_trip(device):
    host = torch.randn(1 << 18).pin_memory()
    assert host.is_pinned() and torch.equal(host.to("cuda", non_blocking=True).cpu(), host)


# ---- trace: graphs and pools ----


def captured(pool=None):
    graph, side, x = torch.cuda.CUDAGraph(), torch.cuda.Stream(), torch.zeros(1 << 20).cuda()
    with torch.cuda.graph(graph, pool=pool):
        y = x * 2
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            z = y + 1
            joined = torch.cuda.is_current_stream_capturing()
        torch.cuda.current_stream().wait_stream(side)
        w = x.clone()  # copied by the driver: here kernels do nothing
    return graph, (x, y, z, w), joined


def pool_ids():
    """Of the private pools that hold memory."""
    return {tuple(segment["segment_pool_id"]) for segment in torch.cuda.memory_snapshot()} - {(0, 0)}


@trace
def capture_with_a_forked_stream(device):
    graph, tensors, joined = captured()
    assert joined
    tensors[3].copy_(torch.ones(1 << 20))
    graph.replay()
    torch.cuda.synchronize()
    assert tensors[3].cpu().sum().item() == 0, "the captured copy did not run"
    graph.reset()


@trace
def capture_has_a_private_pool(device):
    before = pool_ids()
    graph, tensors, _ = captured()
    with_graph = pool_ids()
    assert len(with_graph - before) == 1
    second, more, _ = captured(graph.pool())
    assert pool_ids() == with_graph, "a second graph in the same pool"
    graph.reset()
    second.reset()
    del graph, second, tensors, more
    gc.collect()
    torch.cuda.empty_cache()
    assert not (with_graph - before) & pool_ids(), "the pool was not released"


@trace
def memory_pools(device):
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        inside = torch.empty(8 * MIB, device="cuda")
    outside = torch.empty(8 * MIB, device="cuda")
    assert pool.use_count() == 1 and sum(segment["total_size"] for segment in pool.snapshot()) == 32 * MIB
    assert inside.data_ptr() != outside.data_ptr()
    del inside, pool


@trace
def graph_trees(device):
    """torch.compile(backend="cudagraphs"): pools are saved, checked and restored."""
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64)).cuda()
    compiled = torch.compile(model, backend="cudagraphs")
    for _ in range(6):
        torch.compiler.cudagraph_mark_step_begin()
        compiled(torch.randn(32, 64, device="cuda")).sum().backward()
        model.zero_grad()
    torch.cuda.synchronize()
    from torch._inductor.cudagraph_trees import get_container

    assert get_container(0).tree_manager.graph_counter is not None


# ---- trace: looking inside ----


@trace
def history_records_allocations(device):
    torch.cuda.memory._record_memory_history()
    try:
        a = torch.empty(3 * MIB, device="cuda")
        address = a.data_ptr()
        del a
        trace = torch.cuda.memory._snapshot()["device_traces"][0]
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)
    seen = [(entry["action"], entry["size"]) for entry in trace if entry["addr"] == address]
    assert ("alloc", 12 * MIB) in seen and ("free_completed", 12 * MIB) in seen, seen


@trace
def snapshot_file_has_what_memory_viz_reads(device):
    import pickle
    import tempfile

    kept = new(9)
    with tempfile.NamedTemporaryFile() as file:
        torch.cuda.memory._dump_snapshot(file.name)
        snapshot = pickle.load(open(file.name, "rb"))
    assert {"segments", "device_traces"} <= set(snapshot)
    for segment in snapshot["segments"]:
        assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"]
        assert segment["address"] == segment["blocks"][0]["address"]
    assert any(block["address"] == kept.data_ptr() for segment in snapshot["segments"] for block in segment["blocks"])


@trace
def expandable_segments_map_and_unmap(device):
    torch.cuda.memory._set_allocator_settings("expandable_segments:True")
    try:
        kept = [new(30) for _ in range(3)]
        used = device.used()
        assert used >= 90 * MIB and kept
        del kept
        torch.cuda.empty_cache()
        assert device.used() < used
    finally:
        torch.cuda.memory._set_allocator_settings("expandable_segments:False")


@trace
def the_backend_is_called_native(device):
    assert torch.cuda.get_allocator_backend() == "native"


@trace
def observers_and_base_addresses(device):
    """The calls that torch.multiprocessing, cuDNN benchmarks and out-of-memory observers make."""
    seen = []
    torch._C._cuda_attach_out_of_memory_observer(lambda *arguments: seen.append(arguments))
    out_of_memory(lambda: new(5000))
    assert len(seen) == 1 and seen[0][0] == 0, seen
    kept = new(6)
    assert torch.cuda.caching_allocator_alloc(1000) and kept.untyped_storage().nbytes() == 6 * MIB


@trace
def raw_allocations(device):
    before = torch.cuda.memory_allocated()
    pointer = torch.cuda.caching_allocator_alloc(10 * MIB)
    assert torch.cuda.memory_allocated() - before == 10 * MIB
    torch.cuda.caching_allocator_delete(pointer)
    assert torch.cuda.memory_allocated() == before


# ---- numeric ----


def small_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.GELU(), torch.nn.LayerNorm(64), torch.nn.Linear(64, 4))


def train(where, steps, capturable=False, graph=False):
    """(losses, parameters) of a small classifier trained on CPU or CUDA; with graph, captured after three steps."""
    model = small_model().to(where)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, capturable=capturable)
    draw = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(steps, 8, 16, generator=draw), torch.randint(0, 4, (steps, 8), generator=draw)
    x, y, losses = inputs[0].to(where), targets[0].to(where), []

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    replay = step
    for i in range(steps):
        if graph and i == 3:
            captured_graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured_graph):
                captured_loss = step()

            def replay():
                captured_graph.replay()
                return captured_loss

        x.copy_(inputs[i])
        y.copy_(targets[i])
        losses.append(replay().item())
    return losses, [p.detach().cpu() for p in model.parameters()]


def equal(first, second):
    return first[0] == second[0] and all(map(torch.equal, first[1], second[1]))


@numeric
def training_equals_the_cpu(device):
    assert equal(train("cpu", 5), train("cuda", 5))
    assert device.launches() == 0, "a kernel that does nothing was launched"


@numeric
def a_captured_step_replayed_equals_eager(device):
    assert equal(train("cuda", 8, capturable=True), train("cuda", 8, capturable=True, graph=True))


@numeric
def the_device_s_random_state_is_its_own(device):
    torch.cuda.manual_seed(7)
    state = torch.cuda.get_rng_state()
    first, second = torch.rand(4, device="cuda"), torch.rand(4, device="cuda")
    assert not torch.equal(first, second)
    torch.cuda.set_rng_state(state)
    torch.manual_seed(3)
    torch.cuda.manual_seed(7)
    assert torch.equal(torch.rand(4, device="cuda"), first)


@numeric
def forgetting_the_random_state_shows(device):
    from torch.utils.checkpoint import checkpoint

    def gradient(preserve):
        torch.manual_seed(1)
        x = torch.ones(64, device="cuda", requires_grad=True)
        y = checkpoint(lambda t: torch.nn.functional.dropout(t.exp(), 0.5).exp(), x, use_reentrant=False, preserve_rng_state=preserve)
        torch.rand(3, device="cuda")
        y.sum().backward()
        return x.grad

    torch.manual_seed(1)
    plain = torch.ones(64, device="cuda", requires_grad=True)
    torch.nn.functional.dropout(plain.exp(), 0.5).exp().sum().backward()
    assert torch.equal(gradient(True), plain.grad) and not torch.equal(gradient(False), plain.grad)


# ---- late ----


def through_a_side_stream(record, wait):
    """7.0 where a side stream's work saw its input and was waited for."""
    side, a = torch.cuda.Stream(), torch.full((1 << 20,), 3.0, device="cuda")
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(1_000_000)
        b = a * 2 + 1
    if record:
        a.record_stream(side)
    del a
    c = torch.full((1 << 20,), 100.0, device="cuda")  # takes the memory where it may
    if wait:
        torch.cuda.current_stream().wait_stream(side)
    b.record_stream(torch.cuda.current_stream())
    result = b.mean().item()
    del b, c
    torch.cuda.synchronize()
    return result


@late
def record_stream_keeps_the_input(device):
    assert through_a_side_stream(record=True, wait=True) == 7.0


@late
def a_missing_record_stream_is_a_wrong_number(device):
    assert through_a_side_stream(record=False, wait=True) != 7.0


@late
def a_missing_wait_is_a_wrong_number(device):
    assert through_a_side_stream(record=True, wait=False) != 7.0


@late
def prefetching_on_a_side_stream_equals_the_cpu(device):
    draw = torch.Generator().manual_seed(1)
    batches, side = torch.randn(6, 8, 16, generator=draw).pin_memory(), torch.cuda.Stream()
    losses = {}
    for where in ("cpu", "cuda"):
        model, losses[where] = small_model().to(where), []
        for batch in batches:
            if where == "cuda":
                with torch.cuda.stream(side):
                    x = batch.to("cuda", non_blocking=True)
                torch.cuda.current_stream().wait_stream(side)
                x.record_stream(torch.cuda.current_stream())
            else:
                x = batch
            loss = model(x).square().mean()
            loss.backward()
            losses[where].append(loss.item())
    assert losses["cpu"] == losses["cuda"]


if __name__ == "__main__":
    family = FAMILIES[sys.argv[2]]
    simulator = family.activate(sys.argv[1])
    import torch

    family.run(simulator)
