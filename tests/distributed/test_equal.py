"""DDP, FSDP2 and HSDP under reprise: the same numbers and the same collectives in the same order as without, on every rank."""

import pytest
from programs import Job, both

pytestmark = pytest.mark.hangs_after(600)
# What `./dev test` leaves out for its 15 minutes: near relatives of those that it runs. --all runs them.
THOROUGH = {"ddp", "ddp_llama", "fsdp2_never_resharded", "fsdp2_offloaded", "hsdp", "hsdp_llama"}

TWO = {
    "ddp": Job("ddp"),
    "ddp_accumulating": Job("ddp", micro_batches=2),
    "fsdp2": Job("fsdp2"),
    "fsdp2_llama": Job("fsdp2", model="llama"),
    "ddp_llama": Job("ddp", model="llama"),
    "fsdp2_resharded_everywhere": Job("fsdp2", reshard=True),
    "fsdp2_never_resharded": Job("fsdp2", reshard=False),
    "fsdp2_accumulating": Job("fsdp2", micro_batches=3, freed=False),
    "fsdp2_half": Job("fsdp2", half=True),
    "fsdp2_offloaded": Job("fsdp2", offload=True),
}
FOUR = {
    "ddp": Job("ddp"),
    "fsdp2_resharded_to_two": Job("fsdp2", reshard=2),
    "hsdp": Job("hsdp"),
    "hsdp_llama": Job("hsdp", model="llama"),
    "hsdp_accumulating": Job("hsdp", micro_batches=2),
}


def check(answers):
    for rank, (plain, other) in enumerate(answers):
        assert other.losses == plain.losses, f"rank {rank}"
        assert other.state == plain.state, f"rank {rank}"
        assert other.collectives == plain.collectives != [], f"rank {rank}"
        assert other.counters["replayed"] > 0 and other.counters["unseen_writes"] == 0, f"rank {rank}"


def test_two_ranks(two, job_of_two, steps):
    check(two.results(both, TWO[job_of_two], steps, None, "full"))


def test_four_ranks(four, job_of_four, steps):
    check(four.results(both, FOUR[job_of_four], steps, None, "full"))


def test_tensor_parallel_at_60_percent_of_the_activations(two):
    """What autograd saves of DTensors is dropped and made again like any other; the all-reduces run once."""
    answers = two.results(both, Job("tensor"), 8, ("activations", 0.6))
    check(answers)
    for rank, (_, other) in enumerate(answers):
        assert max(other.peak_reserved_bytes) <= other.report["budget_bytes"], f"rank {rank}"


def test_blocks_are_replayed_inside_their_units(two, steps):
    """Everything in a Block is dropped, so what is left above the start is close to what per-block checkpointing leaves."""
    for plain, other in two.results(both, Job("fsdp2"), steps, None, "full"):
        added = max(plain.peak_live_bytes[2:]) - max(plain.start_live_bytes[2:])
        assert max(other.peak_live_bytes[-1:]) - max(other.start_live_bytes[-1:]) < 0.75 * added
