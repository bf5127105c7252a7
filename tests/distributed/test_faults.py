"""One rank fails: the others end with a clear error within the timeout, and nobody hangs. World raises Hang for a rank that neither answers nor dies."""

import faults
import pytest
from world import Died, Failure, World

pytestmark = pytest.mark.hangs_after(900)
GROUP_SECONDS = 20   # the timeout given to init_process_group; several times what a healthy step takes on a crowded machine


def test_a_rank_is_killed(repeat):
    world = World(2, OMP_NUM_THREADS=1, REPRISE_LOG=0)
    try:
        answers = world.run(faults.killed, group_seconds=GROUP_SECONDS)
    finally:
        world.close()
    assert isinstance(answers[faults.FAILING], Died)
    assert isinstance(answers[0], Failure) and answers[0].text


def test_a_rank_raises(two, repeat):
    answers = two.run(faults.raising, group_seconds=GROUP_SECONDS)
    assert (answers[faults.FAILING].kind, answers[faults.FAILING].text) == ("ValueError", "this rank's data are broken")
    assert isinstance(answers[0], Failure) and answers[0].text


@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
def test_a_rank_is_infeasible(two, engine, repeat):
    """All ranks raise the same error; it names the rank, and the budget that would do."""
    answers = two.run(faults.infeasible, engine, group_seconds=GROUP_SECONDS)
    assert [answer.kind for answer in answers] == ["Infeasible", "Infeasible"], [getattr(a, "trace", a) for a in answers]
    assert answers[0].text == answers[1].text
    assert answers[0].text.startswith(f"rank {faults.FAILING} of 2 cannot train within its budget: ")
    assert answers[0].smallest_budget == answers[1].smallest_budget > 0


def test_a_rank_does_not_come(two, repeat):
    answers = two.run(faults.absent, 10, group_seconds=10)
    assert answers[faults.FAILING] is None
    assert isinstance(answers[0], Failure)
    assert "rank 1 of 2 did not come within 10 s" in answers[0].text
