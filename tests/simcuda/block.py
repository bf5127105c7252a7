"""What torch shows and how the engine trains where a GPU's memory is one block (REPRISE_CUDA_DEVICE=malloc), on *simulated* devices of 4 GiB."""

import gc
import os
import sys

import training
from simulated import Family

FAMILIES = {"block": Family(numeric=True, devices=2)}
block = FAMILIES["block"]
MIB = 1 << 20
BLOCK_MIB = 4096 * 7 // 8  # an eighth of what is free is left to others


def new(mib):
    return torch.empty(mib * MIB, dtype=torch.uint8, device="cuda")


@block
def counts_and_snapshots_are_of_what_is_committed(device):
    kept = new(100)
    stats = torch.cuda.memory_stats()
    assert stats["reserved_bytes.all.current"] == torch.cuda.memory_reserved() == 100 * MIB
    assert stats["allocated_bytes.all.current"] == 100 * MIB
    assert (stats["num_device_alloc"], stats["num_device_free"]) == (1, 0), stats
    (segment,) = torch.cuda.memory_snapshot()
    assert segment["total_size"] == segment["allocated_size"] == 100 * MIB
    assert torch.cuda.mem_get_info()[0] == 512 * MIB, "the device's own word: the block is taken"
    del kept
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() == 0 and torch.cuda.max_memory_reserved() == 100 * MIB
    assert device.used() == BLOCK_MIB * MIB


@block
def out_of_memory_names_the_block(device):
    kept = new(100)
    try:
        new(3500)
    except torch.OutOfMemoryError as error:
        text = str(error)
    assert text == ("CUDA out of memory. Tried to allocate 3.42 GiB. GPU 0 has a total capacity of 4.00 GiB of which 512.00 MiB is free. reprise holds 100.00 MiB of its block "
                    "of 3.50 GiB, of which 100.00 MiB is live; torch's own allocator holds 0 bytes; the limit on both is the device."), text
    assert new(3400).numel() + kept.numel() == 3500 * MIB


@block
def what_is_left_is_native_s(device):
    """Private pools are native's, and are served from the reserve."""
    kept, before = new(100), device.calls("cudaMalloc")
    with torch.cuda.use_mem_pool(torch.cuda.MemPool()):
        pooled = new(400)
    assert device.calls("cudaMalloc") == before + 1 and torch.cuda.memory_reserved() == 500 * MIB
    del kept, pooled


@block
def asking_takes_nothing(device):
    torch.cuda.memory_stats(1), torch.cuda.reset_peak_memory_stats(1), torch.cuda.reset_accumulated_memory_stats(1), torch.cuda.memory_summary(1)
    assert device.used(1) == 0 and device.used(0) > 0


@block
def a_fraction_is_a_limit_on_both(device):
    torch.cuda.set_per_process_memory_fraction(0.25)
    try:
        new(1000)
        try:
            new(1100)
        except torch.OutOfMemoryError as error:
            assert "the limit on both is 1.00 GiB" in str(error) or "1024.00 MiB" in str(error), error
        else:
            raise AssertionError("no torch.OutOfMemoryError")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert new(1100).numel() == 1100 * MIB


@block
def a_budget_is_at_most_the_block(device):
    import reprise

    reprise.auto_checkpoint(torch.nn.Linear(4, 4).cuda(), "100%")
    cap = reprise.memory_stats()["cap_bytes"]
    reprise.undo()
    assert cap == BLOCK_MIB * MIB


@block
def a_budget_is_a_cap_on_what_is_committed(device):
    import reprise

    reprise.auto_checkpoint(torch.nn.Linear(4, 4).cuda(), "100MiB")
    try:
        kept = new(60)
        try:
            new(60)
        except torch.OutOfMemoryError as error:
            assert "of its block of 3.50 GiB" in str(error) and "the limit on both is 100.00 MiB" in str(error), error
        else:
            raise AssertionError("no torch.OutOfMemoryError")
        del kept
        assert new(90).numel() == 90 * MIB and torch.cuda.memory_reserved() <= 100 * MIB
    finally:
        reprise.undo()
    assert new(200).numel() == 200 * MIB


@block
def a_gpt_in_half_of_its_activations(device):
    """Losses and parameters equal to plain's to the last bit, no step over the budget, and no memory asked for beside the block."""
    gc.collect()
    training.torch = torch
    before = device.calls("cudaMalloc")
    training.half_of_the_activations(training.small_gpt)
    assert (device.calls("cuMemAlloc_v2"), device.calls("cuMemCreate"), device.calls("cudaMalloc")) == (1, 0, before)


if __name__ == "__main__":
    os.environ.update(REPRISE_CUDA_DEVICE="malloc", REPRISE_LOG="0")
    family = FAMILIES[sys.argv[2]]
    simulator = family.activate(sys.argv[1])
    import torch

    family.run(simulator)
