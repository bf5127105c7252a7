"""Whole programs: checkpoints that are resumed by another number of ranks, the example, and an unmodified script under torchrun."""

import json
import os
import pathlib
import re
import subprocess
import sys

import checkpoints
import pytest
import programs
from world import free_port

pytestmark = pytest.mark.hangs_after(900)
HERE = pathlib.Path(__file__).parent
EXAMPLE = HERE.parents[1] / "examples" / "fsdp2_gpt.py"


def test_checkpoints_are_as_without(four, two, tmp_path):
    """What four ranks save under reprise is what they save without, and two ranks resume from it with equal numbers."""
    plain, other = (four.results(checkpoints.save, str(tmp_path / name), budget) for name, budget in (("plain", None), ("other", "100%")))
    assert plain == other and plain[0][1]
    resumed = [two.results(checkpoints.resume, str(tmp_path / name), budget) for name, budget in (("plain", None), ("other", "100%"))]
    assert resumed[0] == resumed[1]
    assert resumed[1][0][0] == other[0][1]


def torchrun(script, *arguments, ranks=2, **variables):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
    environment.update({"OMP_NUM_THREADS": "1", **{k: str(v) for k, v in variables.items()}})
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks), "--master-addr", "127.0.0.1", "--master-port", str(free_port()),
               str(script), *arguments]
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return done


def digests(done):
    return sorted(re.findall(r"digest \d+ [0-9a-f]{32}", done.stdout))   # two ranks may write into one line


def test_an_unmodified_script_is_planned(tmp_path):
    """Only the environment speaks of reprise: equal numbers inside the budget, one plan, and a report from each rank."""
    script = HERE / "scripts" / "fsdp2_plain.py"
    counted = torchrun(script, REPRISE=1, REPRISE_REPORT=tmp_path / "plain.json")
    peaks = [json.loads((tmp_path / f"plain.rank{rank}.json").read_text())["memory"]["peak_reserved_bytes"] for rank in range(2)]
    budget = int(0.75 * max(peaks))
    planned = torchrun(script, REPRISE_BUDGET=budget, REPRISE_REPORT=tmp_path / "planned.json")
    assert digests(planned) == digests(counted) and len(digests(planned)) == 2
    reports = [json.loads((tmp_path / f"planned.rank{rank}.json").read_text()) for rank in range(2)]
    for report in reports:
        assert report["memory"]["peak_reserved_bytes"] <= budget
        assert report["counters"]["replayed"] > 0
        assert report["sharing"]["peak_gathered_parameter_bytes"] > 0 and report["sharing"]["peak_communication_buffer_bytes"] > 0
    assert reports[0]["ranks"]["one_plan"] and reports[0]["ranks"]["plan_hash"] == reports[1]["ranks"]["plan_hash"]


def test_the_example():
    done = torchrun(EXAMPLE, "--budget", "16MiB", "--layers", "3", "--width", "96", "--steps", "5")
    lines = [line for line in done.stdout.splitlines() if "communication buffers" in line and line.startswith("rank ")]
    assert sorted(line.split(":")[0] for line in lines) == ["rank 0", "rank 1"]
    assert len({line.split("; plan ")[1] for line in lines}) == 1
    assert "the same on all ranks" in done.stdout


def test_the_first_kind_of_fsdp_is_refused_by_name(two):
    """Before training, with a word about what to use; the model then trains as if nothing had been asked, and nothing is recorded."""
    for plain, asked in two.results(programs.refused):
        assert asked[0].startswith("argument model: ") and "FullyShardedDataParallel (FSDP1)" in asked[0] and "fully_shard" in asked[0]
        assert asked[1] == plain[1]
        assert asked[2] == plain[2]


def test_stages_of_a_pipeline_follow_plans_of_their_own(two):
    """A stage's forward waits for the one before it, so nobody may wait for anybody at a forward: equal numbers, and no rank waits for a word that never comes."""
    for plain, other in two.results(programs.pipeline, None, group_seconds=30):
        assert other[:2] == plain[:2]
        assert other[2] > 0
