"""largest_batch: what it names has to run, the next size must not, and what cannot be searched is an ordinary error."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
import torch

import reprise
from reprise import batch

pytestmark = pytest.mark.hangs_after(900)   # whole programs, several one after the other
SCRIPT = pathlib.Path(__file__).parent / "scripts" / "batch_steps.py"
BUDGET = 14 << 20

RUNS = """
import sys, torch, reprise
sys.path.insert(0, sys.argv[1])
import batch_steps
reprise.auto_checkpoint(batch_steps.model, int(sys.argv[2]), policy=sys.argv[4])
for _ in range(6):
    batch_steps.step(int(sys.argv[3]))
assert reprise.memory_stats()["peak_reserved_bytes"] <= int(sys.argv[2])
"""


def run(*arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")} | {"REPRISE": "1", "REPRISE_LOG": "0", "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=800)


def search(tmp_path, policy, *more):
    done = run("-m", "reprise", "largest-batch", f"{SCRIPT}:step", "--budget", BUDGET, "--batches", "2:80:2", "--policy", policy, "--steps", "1", "--json", tmp_path / "found.json", *more)
    assert done.returncode == 0, done.stderr
    return json.loads((tmp_path / "found.json").read_text(encoding="utf-8")), done.stdout


def check(found, policy):
    """It was run, inside the budget; the next size was run too and did not fit, or there is none; another process can train with it."""
    tried = {row["batch"]: row for row in found["tried"]}
    largest = found["largest"]["batch"]
    assert tried[largest]["fits"] and found["largest"] == tried[largest]
    assert found["why_not_larger"].startswith(f"batch {largest + 2} ")
    assert largest + 2 not in tried or not tried[largest + 2]["fits"]
    assert all(row["fits"] for row in found["tried"] if row["batch"] <= largest)
    assert all(row["peak_reserved_bytes"] <= BUDGET for row in found["tried"] if row["fits"])
    assert found["fastest"] == tried[found["fastest"]["batch"]] and found["fastest"]["fits"]
    done = run("-c", RUNS, SCRIPT.parent, BUDGET, largest, policy)
    assert done.returncode == 0, done.stderr
    return largest


def test_recomputation_makes_room_for_a_larger_batch(tmp_path):
    planned, text = search(tmp_path, "auto")
    largest = check(planned, "auto")
    assert f"batch {largest:5}" in text and "<- largest" in text
    assert planned["prediction"].startswith("sizes predicted from 2 and 4")
    assert planned["largest"]["replayed"] > 0 and planned["largest"]["mfu"] > 0
    plain, _ = search(tmp_path, "none")
    assert check(plain, "none") * 1.5 <= largest
    assert all(row["replayed"] == 0 for row in plain["tried"] if row["fits"])


def test_the_search_finds_the_last_index_wherever_it_begins():
    """last_that against asking every size: any border, any first try; and it asks few."""
    searching = batch._Search.__new__(batch._Search)
    searching.sizes = range(3, 3 + 40)
    for border in range(40):
        for first in range(40):
            asked = []

            def holds(size):
                asked.append(size)
                return size - 3 <= border
            assert searching.last_that(holds, 0, first) == border
            assert len(asked) == len(set(asked)) <= 12


@pytest.mark.parametrize("place, status, text", [
    (f"{SCRIPT}:without_the_argument", 2, "argument step: step(1) and step(2) need the same bytes; does it use its argument?"),
    (f"{SCRIPT}:without_backward", 2, "argument step: step(1) did no forward and backward that autograd saves tensors for"),
    (f"{SCRIPT}:broken", 1, "ZeroDivisionError: the script's own"),
    (f"{SCRIPT}:missing", 2, "has no function 'missing'"),
    (f"{SCRIPT}:no_function", 2, "has no function 'no_function'"),
    ("nowhere.py:step", 2, "argument place: there is no file 'nowhere.py'"),
    ("step", 2, "argument place: 'step' is no script.py:function")])
def test_steps_that_cannot_be_used(place, status, text):
    done = run("-m", "reprise", "largest-batch", place, "--budget", "64MiB")
    assert (done.returncode, text in done.stderr) == (status, True), done.stderr
    assert status == 1 or "Traceback" not in done.stderr


def test_the_smallest_size_does_not_fit(tmp_path):
    done = run("-m", "reprise", "largest-batch", f"{SCRIPT}:step", "--budget", "6MiB", "--batches", "200,400")
    assert done.returncode == 2
    assert "the smallest batch size, 200, does not fit into 6291456 bytes" in done.stderr


@pytest.mark.parametrize("changed, error, text", [
    ({"step": 3}, TypeError, "argument step: int cannot be called; it takes a function of the batch size that runs one training step"),
    ({"budget": None}, ValueError, "argument budget: None is no limit; it takes a number of bytes, a text like '8GiB' or '60%'"),
    ({"budget": "8 parsecs"}, ValueError, "8 parsecs"),
    ({"batches": "8"}, TypeError, "argument batches: '8' is a str; it takes batch sizes, as in range(8, 257, 8) or [4, 8, 16], or None"),
    ({"batches": []}, ValueError, "argument batches: there is no batch size in it; at least one is needed"),
    ({"batches": [4, True]}, TypeError, "argument batches: True is a bool; batch sizes are whole numbers"),
    ({"batches": [0, 4]}, ValueError, f"argument batches: 0 is outside [1, {1 << 30}]"),
    ({"batches": range(-3, 9)}, ValueError, f"argument batches: -3 is outside [1, {1 << 30}]"),
    ({"steps": 0}, ValueError, "argument steps: 0 is no whole number of at least 1")])
def test_bad_arguments_are_named_and_nothing_is_run(changed, error, text):
    ran = []
    with pytest.raises(error) as caught:
        reprise.largest_batch(**({"step": ran.append, "budget": "1GiB", "batches": [1, 2]} | changed))
    assert text in str(caught.value)
    assert ran == []
    assert reprise.memory_stats()["cap_bytes"] == 0


def test_leaves_no_cap_and_the_generator_as_it_was():
    before = torch.get_rng_state()

    def step(size):
        x = torch.randn(size, 64, requires_grad=True)
        (x.exp() * x.sin()).sum().backward()
    found = reprise.largest_batch(step, "2GiB", [16, 32, 64])
    assert (found.largest.batch, found.prediction) == (64, "sizes predicted from 16 and 32")
    assert torch.equal(torch.get_rng_state(), before)
    assert reprise.memory_stats()["cap_bytes"] == 0
