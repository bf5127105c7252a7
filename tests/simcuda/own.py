"""What reprise's CUDA allocator does that torch's own does not, on *simulated* devices."""

import sys

from simulated import Family

FAMILIES = {"own": Family(devices=2)}
own = FAMILIES["own"]
MIB = 1 << 20


def new(mib, device="cuda"):
    return torch.empty(mib * MIB, dtype=torch.uint8, device=device)


def refused(allocate):
    try:
        allocate()
    except torch.OutOfMemoryError as error:
        return str(error)
    raise AssertionError("no torch.OutOfMemoryError")


@own
def both_allocators_share_one_limit(device):
    """Private pools are native's: what they hold counts, whichever comes first."""
    torch.cuda.set_per_process_memory_fraction(0.25)  # 1024 MiB
    try:
        for first_in_pool in (True, False):
            pool = torch.cuda.MemPool()
            if first_in_pool:
                with torch.cuda.use_mem_pool(pool):
                    kept = new(600)
                text = refused(lambda: new(600))
                assert "torch's own allocator holds 600.00 MiB; the limit on both is 1024.00 MiB" in text or "1.00 GiB" in text, text
            else:
                kept = new(600)
                with torch.cuda.use_mem_pool(pool):
                    refused(lambda: new(600))
            assert device.used() <= 1024 * MIB
            assert new(300).numel() == 300 * MIB
            del kept, pool
            torch.cuda.empty_cache()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    with torch.cuda.use_mem_pool(torch.cuda.MemPool()):
        assert new(1200).numel() == 1200 * MIB, "the limit is lifted for native too"


@own
def native_s_cache_is_given_up_before_out_of_memory(device):
    with torch.cuda.stream(torch.cuda.ExternalStream(torch.cuda.Stream().cuda_stream)):
        cached = new(3000)
    del cached
    assert device.used() >= 3000 * MIB
    assert new(3000).numel() == 3000 * MIB


@own
def streams_that_torch_did_not_make_are_native_s(device):
    before = device.calls("cudaMalloc")
    with torch.cuda.stream(torch.cuda.ExternalStream(torch.cuda.Stream().cuda_stream)):
        kept = new(30)
    assert device.calls("cudaMalloc") == before + 1 and kept.numel() == 30 * MIB


@own
def what_a_pool_made_is_freed_into_it_while_caching_is_off(device):
    """Native decides how raw_delete() frees by what is on at the time of the free; memory passed on to it is freed as what it was made as."""
    before, pool = torch.cuda.memory_allocated(), torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        pooled = new(20)
    torch.cuda.caching_allocator_enable(False)
    try:
        frees = device.calls("cudaFree")
        del pooled
        assert device.calls("cudaFree") == frees
        raw = torch.cuda.caching_allocator_alloc(MIB)
        torch.cuda.caching_allocator_delete(raw)
        assert device.calls("cudaFree") == frees + 1
    finally:
        torch.cuda.caching_allocator_enable(True)
    assert torch.cuda.memory_allocated() == before


@own
def sharing_between_processes_is_refused_in_words(device):
    try:
        new(1).untyped_storage()._share_cuda_()
    except RuntimeError as error:
        assert "cannot be shared between processes" in str(error) and "MemPool" in str(error), error
    else:
        raise AssertionError("no RuntimeError")


@own
def devices_are_apart(device):
    a, b = new(20, "cuda:0"), new(30, "cuda:1")
    a.fill_(7)
    assert torch.cuda.memory_allocated(0) == 20 * MIB and torch.cuda.memory_allocated(1) == 30 * MIB
    b[: 20 * MIB].copy_(a)
    torch.cuda.synchronize()
    assert device.calls("cuMemcpyPeerAsync") == 1


@own
def memory_freed_while_another_stream_works_waits(device):
    side, a = torch.cuda.Stream(), new(40)
    with torch.cuda.stream(side):
        torch.cuda._sleep(50_000_000)
    a.record_stream(side)
    del a
    stats = torch.cuda.memory_stats()
    assert stats["active_bytes.all.current"] == stats["allocated_bytes.all.current"] + 40 * MIB
    side.synchronize()
    new(1)
    stats = torch.cuda.memory_stats()
    assert stats["active_bytes.all.current"] == stats["allocated_bytes.all.current"]


if __name__ == "__main__":
    family = FAMILIES[sys.argv[2]]
    simulator = family.activate(sys.argv[1])
    import torch

    family.run(simulator)
