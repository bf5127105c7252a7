"""The peers' table: theory's curve, who counts as the best peer, and one small table from end to end."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "benchmarks"))

import pareto  # noqa: E402
import peers  # noqa: E402


def test_theory_of_the_chain():
    """As many slots as layers: each runs once. One slot: N, then N - 1, … Four layers, two slots: run 1 and 2 and hold the second's output, run 3 and 4 in the other
    slot, then 3 once more, then 1: six."""
    assert pareto.forwards(64, 64) == 64
    assert pareto.forwards(64, 1) == 64 * 65 // 2
    assert pareto.forwards(4, 2) == 6
    counts = [pareto.forwards(20, m) for m in range(1, 21)]
    assert counts == sorted(counts, reverse=True)
    assert pareto.forwards(3, 0) == float("inf")


def row(peak, work, seconds, equal=True):
    return {"peak": peak, "work": work, "rounds": [[seconds, 1.0]] * 6, "equal": equal}


def test_only_correct_peers_with_no_more_bytes_count():
    cells = {"cheap": row(60, 0.1, 1.1), "wrong": row(40, 0.01, 1.01, False), "large": row(80, 0.001, 1.0), "slow": row(50, 0.3, 1.05), "auto@0.5": row(49, 0.0, 1.0), "no": {"refused": "x"}}
    assert peers.best_peer(cells, 60, lambda r: r["work"]) == (0.1, "cheap")
    assert peers.best_peer(cells, 60, peers.middle_time) == (1.05, "slow")
    assert peers.best_peer(cells, 59, lambda r: r["work"]) == (0.3, "slow")
    assert peers.best_peer(cells, 45, lambda r: r["work"]) is None
    assert (peers.verdict(0.1, (0.1, "x")), peers.verdict(0.11, (0.1, "x")), peers.verdict(None, (0.1, "x")), peers.verdict(None, None)) == ("yes", "no", "no", "no peer")


def test_work_is_counted_at_plains_own_seconds():
    plain = {"mm": [4, 8.0], "gelu": [2, 1.0]}
    assert peers.counted_peer({"mm": [6, 30.0], "gelu": [2, 9.0], "new": [3, 0.25]}, plain) == 2 * 2.0 + 0.25
    assert peers.counted_peer({"mm": [3, 30.0]}, plain) == 0


def test_peers_and_ours_are_priced_by_one_clock():
    """Operators that backward runs too (here mm) are left out; the others took twice our medians in the step that was counted."""
    recorded = peers.Recorded.__new__(peers.Recorded)
    recorded.names, recorded.seconds = ["aten::addmm", "aten::addmm", "aten::gelu", "aten::mm"], [3.0, 3.0, 1.0, 50.0]
    table = {"aten.addmm.default [(8, 8)]": [1, 6.0], "aten.addmm.default [(8, 4)]": [1, 6.0], "aten.gelu.default [(8, 8)]": [1, 2.0], "aten.mm.default [(8, 8)]": [3, 7.0]}
    assert recorded.clock_of(table) == 0.5


@pytest.mark.hangs_after(1200)
def test_a_small_table(tmp_path):
    """One model, one peer, one cap: equal numbers, no more bytes than asked, and nothing is run twice."""
    command = [sys.executable, "benchmarks/peers.py", "--models", "mlp", "--schemes", "block_2", "--caps", "0.7", "--rounds", "1", "--json", str(tmp_path / "peers.json")]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE") or k == "REPRISE_BUILD"}
    for _ in range(2):
        done = subprocess.run(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert "mlp" in done.stdout, done.stderr
        found = json.loads((tmp_path / "peers.json").read_text(encoding="utf-8"))["mlp"]
        cells, plain = found["cells"], found["plain"]["peak"]
        assert set(cells) == {"block_2", "auto@0.7", "auto@per_block"} - ({"auto@per_block"} if "block_1" not in cells else set())
        assert cells["block_2"]["equal"] and cells["auto@0.7"]["equal"], cells
        assert cells["auto@0.7"]["peak"] <= 0.7 * plain
        assert cells["block_2"]["work"] > 0 and cells["auto@0.7"]["work"] > 0
    assert "  mlp" not in done.stdout, "cells were run again"
    assert "| block_2 |" in (tmp_path / "peers.md").read_text(encoding="utf-8")
    assert (tmp_path / "peers_mlp.svg").read_text(encoding="utf-8").startswith("<svg")
