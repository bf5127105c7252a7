"""20 budgets on recorded steps of real models: more bytes never mean more predicted time, whether each budget is asked of a Planner that knows nothing or of one that
has made a Frontier. `--sweep-models NAME…`: five in `./dev test --all`."""

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SHARES = [*(round(0.05 * k, 2) for k in range(1, 20)), 1.05]     # at 1.0 itself some rounding is left to pay for


def pytest_generate_tests(metafunc):
    if "model" in metafunc.fixturenames:
        metafunc.parametrize("model", metafunc.config.getoption("--sweep-models"))


def inversions(rows, which):
    """Pairs of neighbouring budgets of which the larger is answered with more seconds, or not at all."""
    seconds = [row[which]["added_seconds"] if row[which] else float("inf") for row in rows]
    return [(a["share"], b["share"], x, y) for a, b, x, y in zip(rows, rows[1:], seconds, seconds[1:]) if y > x + 1e-12]


@pytest.mark.hangs_after(3600)
def test_no_inversions(model, tmp_path, record_property):
    command = [sys.executable, "benchmarks/plans.py", "--models", model, "--budgets", *map(str, SHARES), "--json", str(tmp_path / "plans.json")]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "plans.json").read_text(encoding="utf-8"))[model]["rows"][:-1]
    assert [row["share"] for row in rows] == SHARES
    found = {which: inversions(rows, which) for which in ("plan", "after")}
    record_property("figures", json.dumps({"model": model, **found}))
    assert found == {"plan": [], "after": []}
    assert rows[-1]["plan"]["added_seconds"] == 0
    assert len({row["plan"]["added_seconds"] for row in rows if row["plan"]}) >= 8, "the budgets say nothing"
