"""What torch's own test suite tries of its CUDA allocator (the parts of it that ask for memory, alloc, stream, event, pinned, caching, pool, snapshot or expandable, and no
graph), written anew as named behaviours: its test files are in no wheel. Each runs on the *simulated* device under native's allocator and under reprise's.

Beside behaviours.py, which has the basics; together they are what is counted as passed under either."""

import gc
import os
import pickle
import random
import sys
import tempfile
import threading

from simulated import Family

FAMILIES = {"torch_cases": Family()}
case = FAMILIES["torch_cases"]
MIB = 1 << 20


def new(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


def raised(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def stats():
    return torch.cuda.memory_stats()


@case
def memory_allocation_by_address(device):
    before = torch.cuda.memory_allocated()
    pointer = torch.cuda.caching_allocator_alloc(5_000_000)
    assert torch.cuda.memory_allocated() - before >= 5_000_000
    torch.cuda.caching_allocator_delete(pointer)
    side = torch.cuda.Stream()
    pointer = torch.cuda.caching_allocator_alloc(5_000_000, stream=side)
    torch.cuda.caching_allocator_delete(pointer)
    assert torch.cuda.memory_allocated() == before


@case
def what_was_allocated_less_what_was_freed_is_current(device):
    torch.cuda.reset_accumulated_memory_stats()
    base, draw, live = stats(), random.Random(3), []
    for _ in range(300):
        if draw.random() < 0.6 or not live:
            live.append(torch.empty(draw.randrange(1, 3_000_000), dtype=torch.uint8, device="cuda"))
        else:
            live.pop(draw.randrange(len(live)))
        now = stats()
        for name in ("allocation", "allocated_bytes", "requested_bytes"):
            flow = now[f"{name}.all.allocated"] - now[f"{name}.all.freed"]
            assert flow == now[f"{name}.all.current"] - base[f"{name}.all.current"], name
            assert now[f"{name}.all.current"] == now[f"{name}.small_pool.current"] + now[f"{name}.large_pool.current"], name
            assert now[f"{name}.all.peak"] >= now[f"{name}.all.current"], name
        assert now["allocated_bytes.all.current"] <= now["active_bytes.all.current"] <= now["reserved_bytes.all.current"]


@case
def a_size_that_no_device_has(device):
    text = raised(torch.OutOfMemoryError, lambda: torch.empty(1 << 50, dtype=torch.uint8, device="cuda"))
    assert text.startswith("CUDA out of memory. Tried to allocate 1048576.00 GiB. GPU 0"), text
    assert new(1).numel() == MIB


@case
def what_is_cached_makes_room(device):
    """A request that only fits when free memory of other sizes is given back first."""
    torch.cuda.empty_cache()
    kept = [new(600) for _ in range(6)]
    del kept
    assert new(3700).numel() == 3700 * MIB


@case
def what_waits_for_a_stream_makes_room(device):
    """Out of memory waits for streams that only hold what was freed."""
    torch.cuda.empty_cache()
    side, a = torch.cuda.Stream(), new(3000)
    with torch.cuda.stream(side):
        torch.cuda._sleep(20_000_000)
    a.record_stream(side)
    del a
    assert new(3000).numel() == 3000 * MIB
    assert side.query(), "it was waited for"


@case
def the_fraction_is_checked(device):
    raised(TypeError, lambda: torch.cuda.set_per_process_memory_fraction(1))
    raised(ValueError, lambda: torch.cuda.set_per_process_memory_fraction(-0.1))
    raised(ValueError, lambda: torch.cuda.set_per_process_memory_fraction(2.0))
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(0.5)
    try:
        total = torch.cuda.get_device_properties(0).total_memory
        half = int(total * 0.499)
        kept = torch.empty(half, dtype=torch.uint8, device="cuda")
        assert raised(torch.OutOfMemoryError, lambda: torch.empty(half, dtype=torch.uint8, device="cuda"))
        del kept
        assert torch.empty(half, dtype=torch.uint8, device="cuda").numel() == half
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@case
def record_stream_of_a_shifted_view(device):
    """The storage waits, whatever part of it the view shows."""
    side, base = torch.cuda.Stream(), new(40)
    view, address = base[17 * MIB:], base.data_ptr()
    with torch.cuda.stream(side):
        torch.cuda._sleep(30_000_000)
    view.record_stream(side)
    del base, view
    assert new(40).data_ptr() != address
    side.synchronize()
    with torch.cuda.stream(torch.cuda.current_stream()):
        assert address in [tensor.data_ptr() for tensor in [new(40), new(40)]]


@case
def several_streams_recorded_on_one_tensor(device):
    sides, a = [torch.cuda.Stream() for _ in range(3)], new(24)
    address = a.data_ptr()
    for length, side in enumerate(sides, 1):
        with torch.cuda.stream(side):
            torch.cuda._sleep(10_000_000 * length)
        a.record_stream(side)
    del a
    sides[0].synchronize()
    first = new(24)
    assert first.data_ptr() != address, "two of them are still at work"
    sides[2].synchronize()
    sides[1].synchronize()
    assert address in [new(24).data_ptr(), *[tensor.data_ptr() for tensor in [new(24), new(24)]]]


@case
def memory_made_on_a_side_stream_and_freed_on_another(device):
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        a = new(36)
        address = a.data_ptr()
        torch.cuda._sleep(20_000_000)
    del a  # here the default stream is current: the memory goes back to the stream that it was made on
    with torch.cuda.stream(side):
        assert new(36).data_ptr() == address


@case
def pinned_memory_is_cached_and_waits_for_copies(device):
    host = torch.ones(MIB, dtype=torch.uint8).pin_memory()
    address = host.data_ptr()
    del host
    assert torch.ones(MIB, dtype=torch.uint8).pin_memory().data_ptr() == address, "pinned memory is kept for the next one"
    gc.collect()
    host, there = torch.ones(MIB, dtype=torch.uint8).pin_memory(), torch.zeros(MIB, dtype=torch.uint8, device="cuda")
    address = host.data_ptr()
    torch.cuda._sleep(50_000_000)
    there.copy_(host, non_blocking=True)
    del host
    assert torch.ones(MIB, dtype=torch.uint8).pin_memory().data_ptr() != address, "the copy is still to come"
    assert there.cpu().sum() == MIB


@case
def pools_have_ids_and_contexts_of_their_own(device):
    first, second = torch.cuda.MemPool(), torch.cuda.MemPool()
    assert first.id != second.id and first.id != (0, 0)
    with torch.cuda.use_mem_pool(first):
        a = new(3)
        with torch.cuda.use_mem_pool(second):
            b = new(3)
        c = new(3)
    d = new(3)
    homes = {}
    for segment in torch.cuda.memory_snapshot():
        for block in segment["blocks"]:
            homes[block["address"]] = tuple(segment["segment_pool_id"])
    found = [homes.get(tensor.data_ptr()) for tensor in (a, b, c, d)]
    assert found == [first.id, second.id, first.id, (0, 0)], found


@case
def a_pool_s_memory_comes_back_to_the_pool(device):
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        a = new(21)
        address = a.data_ptr()
        del a
        assert new(21).data_ptr() == address
    assert new(21).data_ptr() != address
    before = torch.cuda.memory_reserved()
    del pool
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < before


@case
def a_pool_is_its_thread_s(device):
    pool, seen = torch.cuda.MemPool(), {}

    def elsewhere():
        seen["there"] = new(5)

    with torch.cuda.use_mem_pool(pool):
        seen["here"] = new(5)
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
    inside = {block["address"] for segment in pool.snapshot() for block in segment["blocks"] if block["state"] == "active_allocated"}
    assert seen["here"].data_ptr() in inside and seen["there"].data_ptr() not in inside


@case
def a_pool_may_be_used_when_memory_runs_out(device):
    pool = torch.cuda.MemPool(use_on_oom=True)
    with torch.cuda.use_mem_pool(pool):
        a = new(3000)
    del a
    assert new(2000).numel() == 2000 * MIB, "the device is full but for what the pool keeps"


@case
def history_has_stacks_and_can_be_switched(device):
    torch.cuda.memory._record_memory_history("state", stacks="python")
    try:
        def made_here():
            return new(7)

        kept = made_here()
        torch.cuda.synchronize()
        blocks = [block for segment in torch.cuda.memory._snapshot()["segments"] for block in segment["blocks"] if block["address"] == kept.data_ptr()]
        assert any(frame["name"] == "made_here" for frame in blocks[0]["frames"]), blocks
        assert blocks[0]["requested_size"] == 7 * MIB
    finally:
        torch.cuda.memory._record_memory_history(None)
    kept = new(8)
    blocks = [block for segment in torch.cuda.memory._snapshot()["segments"] for block in segment["blocks"] if block["address"] == kept.data_ptr()]
    assert not blocks[0].get("frames"), "nothing is gathered any more"


@case
def history_replayed_is_the_snapshot(device):
    """What allocations and frees of the history leave, step by step, is what the snapshot shows as live."""
    torch.cuda.empty_cache()
    torch.cuda.memory._record_memory_history("all", max_entries=10_000, clear_history=True)
    try:
        draw, live = random.Random(5), []
        for _ in range(400):
            if draw.random() < 0.55 or not live:
                live.append(torch.empty(draw.choice((500, 40_000, 1_500_000, 11_000_000)) + draw.randrange(1000), dtype=torch.uint8, device="cuda"))
            else:
                live.pop(draw.randrange(len(live)))
        snapshot = torch.cuda.memory._snapshot()
    finally:
        torch.cuda.memory._record_memory_history(None)
    there = {}
    for entry in snapshot["device_traces"][0]:
        if entry["action"] == "alloc":
            assert entry["addr"] not in there, "handed out twice"
            there[entry["addr"]] = entry["size"]
        elif entry["action"] == "free_requested":
            there.pop(entry["addr"], None)
    assert set(there) == {tensor.data_ptr() for tensor in live}
    shown = {block["address"] for segment in snapshot["segments"] for block in segment["blocks"] if block["state"] == "active_allocated"}
    assert set(there) <= shown


@case
def history_shows_what_is_asked_of_the_device_and_given_back(device):
    for context in ("alloc", "all"):
        torch.cuda.empty_cache()
        torch.cuda.memory._record_memory_history(context=context, stacks="python")
        try:
            kept = new(90)
            del kept
            torch.cuda.empty_cache()
            entries = torch.cuda.memory._snapshot()["device_traces"][0]
        finally:
            torch.cuda.memory._record_memory_history(None)
        came = sum(entry["size"] for entry in entries if entry["action"] in ("segment_alloc", "segment_map"))
        went = [entry for entry in entries if entry["action"] in ("segment_free", "segment_unmap")]
        assert came >= 90 * MIB and sum(entry["size"] for entry in went) >= 90 * MIB, entries
        by_whom = any(frame["name"] == "empty_cache" for frame in went[-1].get("frames", []))
        assert by_whom == (context == "all"), went[-1]


@case
def the_plots_of_memory_viz_are_drawn(device):
    from torch.cuda import _memory_viz

    torch.cuda.memory._record_memory_history("all", stacks="python")
    try:
        kept = [new(size) for size in (1, 5, 30)]
        with tempfile.NamedTemporaryFile(suffix=".pickle") as file:
            torch.cuda.memory._dump_snapshot(file.name)
            with open(file.name, "rb") as stored:
                snapshot = pickle.load(stored)
    finally:
        torch.cuda.memory._record_memory_history(None)
    for draw in (_memory_viz.trace_plot, _memory_viz.segment_plot):
        assert "viz" in draw(snapshot), draw
    assert "segments" in _memory_viz.segsum(snapshot) and "30.0MiB]" in _memory_viz.trace(snapshot)
    assert len(kept) == 3


@case
def settings_are_taken_and_wrong_ones_refused(device):
    for text in ("max_split_size_mb:64", "roundup_power2_divisions:4", "garbage_collection_threshold:0.5", "max_split_size_mb:64,roundup_power2_divisions:[256:1,512:2,>:8]"):
        torch.cuda.memory._set_allocator_settings(text)
        assert new(3).numel() == 3 * MIB
    for text in ("max_split_size_mb", "roundup_power2_divisions:3", "garbage_collection_threshold:1.5", "nothing_like_it:1"):
        raised((RuntimeError, ValueError), lambda text=text: torch.cuda.memory._set_allocator_settings(text))
    torch.cuda.memory._set_allocator_settings("max_split_size_mb:100000,roundup_power2_divisions:1")


@case
def expandable_segments_grow_and_stay_whole(device):
    torch.cuda.empty_cache()
    torch.cuda.memory._set_allocator_settings("expandable_segments:True")
    try:
        kept = [new(25) for _ in range(8)]
        large = [segment for segment in torch.cuda.memory_snapshot() if segment["total_size"] >= 25 * MIB and segment["is_expandable"]]
        assert len(large) == 1 and large[0]["total_size"] >= 200 * MIB, "one growing segment"
        del kept[::2]
        gc.collect()
        assert new(24).numel() == 24 * MIB
    finally:
        torch.cuda.memory._set_allocator_settings("expandable_segments:False")


@case
def the_allocator_can_be_switched_off(device):
    """Then each allocation goes to the device and back."""
    torch.cuda.empty_cache()
    torch.cuda.memory.caching_allocator_enable(False)
    try:
        a = new(50)
        used = device.used()
        del a
        assert device.used() <= used - 50 * MIB, "given back at once"
    finally:
        torch.cuda.memory.caching_allocator_enable(True)


@case
def an_empty_tensor_costs_nothing(device):
    before = stats()["allocation.all.current"]
    empty = torch.empty(0, device="cuda")
    assert empty.data_ptr() == 0 and stats()["allocation.all.current"] == before
    empty.record_stream(torch.cuda.Stream())


@case
def a_storage_resized_gives_its_memory_back(device):
    before = torch.cuda.memory_allocated()
    a = new(30)
    a.untyped_storage().resize_(0)
    assert torch.cuda.memory_allocated() == before
    a.untyped_storage().resize_(10 * MIB)
    assert torch.cuda.memory_allocated() == before + 10 * MIB


@case
def many_threads_allocate_at_once(device):
    before, failed = torch.cuda.memory_allocated(), []

    def work(number):
        draw, live = random.Random(number), []
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for _ in range(200):
                    live.append(torch.empty(draw.randrange(1, 200_000), device="cuda", dtype=torch.uint8))
                    if len(live) > 20:
                        live.pop(draw.randrange(len(live)))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert not failed and torch.cuda.memory_allocated() == before


if __name__ == "__main__":
    family = FAMILIES[sys.argv[2]]
    simulator = family.activate(sys.argv[1])
    import torch

    os.environ["REPRISE_LOG"] = "0"
    family.run(simulator)
