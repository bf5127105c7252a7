"""The main job: equal to plain, inside the budget, and every byte counted by somebody else too."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.hangs_after(900)   # whole programs, several one after the other
BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))

COUNTED = """
import ctypes, sys, torch, reprise
from reprise import demo

counter = ctypes.CDLL(sys.argv[1])
for name in ("wrapper_now", "wrapper_peak", "live_bytes_now", "live_bytes_peak"):
    getattr(counter, name).restype = ctypes.c_int64
counter.wrapper_open()
counter.live_bytes_open()
before = reprise.memory_stats()["live_bytes"]
rows = []

def look(index, row):
    now = reprise.memory_stats()["live_bytes"] - before
    rows.append((now, counter.wrapper_now(), counter.live_bytes_now()))
    rows.append((row["peak_live_bytes"] - before, counter.wrapper_peak(), counter.live_bytes_peak()))
    counter.wrapper_mark()
    counter.live_bytes_mark()

settings = demo.Settings(steps=5, layers=4, width=128, heads=4, length=64, batch=8)
budget = int(sys.argv[2]) if len(sys.argv) > 2 else None
run, _ = demo.train(settings, budget and before + budget, look)
print(max(row[0] for row in rows))
sys.exit(any(len(set(row)) != 1 for row in rows) and f"counters differ: {rows}")
"""


def run(*arguments):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")} | {"REPRISE": "1", "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=400)


def test_live_bytes_equal_an_independent_counter():
    """After every step and at every peak, plain and inside a budget: to the byte."""
    library = next(BUILD.rglob("libreprise_test_counter.so"))
    plain = run("-c", COUNTED, library)
    assert plain.returncode == 0, plain.stderr
    budgeted = run("-c", COUNTED, library, int(0.8 * int(plain.stdout)))
    assert budgeted.returncode == 0, budgeted.stderr


def test_demo_is_equal_and_within_the_budget(tmp_path):
    done = run("-m", "reprise", "demo", "--steps", "6", "--batch", "2", "--json", tmp_path / "demo.json", "--generate", "20")
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    assert result["claims"] == {"losses_equal": True, "parameters_equal": True, "cap_held": True}
    assert result["parameter_count"] >= 10_000_000
    assert all(row["peak_reserved_bytes"] <= result["budget_bytes"] for row in result["budgeted"]["steps"])
    assert result["budgeted"]["activation_bytes"] < 0.6 * result["plain_activation_bytes"]
    assert result["report"]["counters"]["replayed"] > 0
    for part in ("utilization", "decisions", "predicted", "measured", "top_kept"):
        assert result["report"][part], part


def test_demo_reads_the_users_text(tmp_path):
    (tmp_path / "short.txt").write_text("too short")
    done = run("-m", "reprise", "demo", "--steps", "1", "--data", tmp_path / "short.txt")
    assert done.returncode == 1
    assert "the text has 9 bytes; at least 258 are needed" in done.stderr


def test_unknown_command():
    done = run("-m", "reprise", "dance")
    assert done.returncode == 2
    assert done.stderr == "reprise: no command 'dance'; there are: demo, simulate, largest-batch\n"


def test_the_counters_count():
    """The counters themselves, in one process: a tensor of known size comes and goes."""
    code = ("import ctypes, sys, torch\nc = ctypes.CDLL(sys.argv[1])\nfor n in ('wrapper_now', 'wrapper_peak', 'live_bytes_now'): getattr(c, n).restype = ctypes.c_int64\n"
            "c.wrapper_open(); c.live_bytes_open()\nx = torch.empty(1000)\na = (c.wrapper_now(), c.live_bytes_now())\ndel x\nprint(a, c.wrapper_now(), c.live_bytes_now(), c.wrapper_peak())")
    done = run("-c", code, next(BUILD.rglob("libreprise_test_counter.so")))
    assert done.stdout == "(4000, 4000) 0 0 4000\n", done.stderr
