"""Steps of random lengths under one cap: never over it, and the numbers of plain steps, to the last bit. `--fuzz-steps N` (1,000 in `./dev test --all`)."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = pathlib.Path(__file__).parent / "scripts" / "lengths.py"
SEED = 7


def run(steps, budget, result):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")} | {"REPRISE": "1", "REPRISE_LOG": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT), str(steps), str(SEED), str(budget), str(result)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(result.read_text(encoding="utf-8"))


@pytest.mark.hangs_after(7200)
def test_random_lengths_under_one_cap(tmp_path, request, record_property):
    steps = request.config.getoption("--fuzz-steps")
    plain = run(steps, 0, tmp_path / "plain.json")
    start = max(row["start"] for row in plain["rows"])
    longest = max(row["peak_live"] - row["start"] for row in plain["rows"])
    budget = int(1.02 * (start + 0.5 * longest))
    capped = run(steps, budget, tmp_path / "capped.json")
    wrong = [i for i, (a, b) in enumerate(zip(plain["rows"], capped["rows"])) if (a["loss"], a["gradients"]) != (b["loss"], b["gradients"])]
    over = [i for i, row in enumerate(capped["rows"]) if row["peak_reserved"] > budget]
    figures = {"steps": steps, "lengths": len({row["length"] for row in capped["rows"]}), "budget_bytes": budget, "plain_peak_bytes": start + longest, "over": len(over), "wrong": len(wrong),
               "replayed": capped["counters"]["replayed"], "overflow_bytes": capped["counters"]["overflow_bytes"], "live_bytes_at_the_end": capped["live_bytes"],
               "reserved_over_live_at_the_end": capped["reserved_bytes"] / capped["live_bytes"],  # between two steps: what is free for the next one is reserved
               "peaks_of_the_last_hundred": [max(row[key] for row in capped["rows"][-100:]) for key in ("peak_reserved", "peak_live")]}
    print(json.dumps(figures))
    record_property("figures", json.dumps(figures))
    if request.config.getoption("--fuzz-json"):
        pathlib.Path(request.config.getoption("--fuzz-json")).write_text(json.dumps(figures, indent=1), encoding="utf-8")
    assert len(capped["rows"]) == steps
    assert (over, wrong) == ([], [])
    assert capped["parameters"] == plain["parameters"]
    assert capped["live_bytes"] == plain["live_bytes"]
    assert capped["counters"]["replayed"] > 0 and budget < plain["rows"][0]["peak_live"]
