"""Environment only: unmodified scripts, planned through REPRISE, REPRISE_BUDGET and REPRISE_REPORT. And what happens when the environment is wrong."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

pytestmark = pytest.mark.hangs_after(900)   # whole programs, several one after the other
SCRIPTS = pathlib.Path(__file__).parent / "scripts"
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def run(arguments, **variables):
    """A fresh process without any REPRISE variable but those given."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
    environment.update({"OMP_WAIT_POLICY": "passive", **{k: str(v) for k, v in variables.items()}})   # tests run side by side: no spinning
    return subprocess.run([sys.executable, *map(str, arguments)], env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)


def digest_of(done):
    assert done.returncode == 0, done.stderr
    return [line for line in done.stdout.splitlines() if line.startswith("digest")]


def report_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", ["loop.py", "trainer.py", "functional.py"])
def test_unmodified_script_is_planned(script, tmp_path):
    plain = digest_of(run([SCRIPTS / script]))
    counted = run([SCRIPTS / script], REPRISE=1, REPRISE_REPORT=tmp_path / "plain.json")
    assert digest_of(counted) == plain != []
    peak = report_of(tmp_path / "plain.json")["memory"]["peak_reserved_bytes"]
    budget = int(0.72 * peak)
    planned = run([SCRIPTS / script], REPRISE=1, REPRISE_BUDGET=budget, REPRISE_REPORT=tmp_path / "planned.json")
    assert digest_of(planned) == plain
    report = report_of(tmp_path / "planned.json")
    assert report["memory"]["peak_reserved_bytes"] <= budget
    assert report["counters"]["replayed"] > 0


def test_budget_alone_is_enough(tmp_path):
    """REPRISE_BUDGET=… python script.py, without REPRISE=1."""
    done = run([SCRIPTS / "loop.py"], REPRISE_BUDGET="500MiB", REPRISE_REPORT=tmp_path / "report.json")
    assert digest_of(done) == digest_of(run([SCRIPTS / "loop.py"]))
    assert report_of(tmp_path / "report.json")["budget_bytes"] == 500 << 20


def test_switched_off(tmp_path):
    done = run([SCRIPTS / "functional.py"], REPRISE=0, REPRISE_BUDGET="1MiB", REPRISE_REPORT=tmp_path / "report.txt")
    assert digest_of(done) == digest_of(run([SCRIPTS / "functional.py"]))
    assert not (tmp_path / "report.txt").exists()


@pytest.mark.parametrize("variables", [{"REPRISE_BUDGET": "8 GoB"}, {"REPRISE_BUDGET": "500MiB", "REPRISE_POLICY": "best"},
                                       {"REPRISE_BUDGET": "500MiB", "REPRISE_LOG": "loud"}], ids=["budget", "policy", "log"])
def test_wrong_environment_is_one_line(variables):
    done = run([SCRIPTS / "functional.py"], REPRISE=1, **variables)
    assert digest_of(done) == digest_of(run([SCRIPTS / "functional.py"]))
    said = [line for line in done.stderr.splitlines() if line.startswith("reprise:")]
    assert len(said) == 1
    assert list(variables.values())[-1] in said[0]


def test_torch_profiler_still_sees_memory():
    code = ("import torch\nfrom torch.profiler import profile\nwith profile(profile_memory=True) as p:\n    x = torch.ones(1 << 20)\n"
            "print(max(e.self_cpu_memory_usage for e in p.key_averages()) if hasattr(p.key_averages()[0], 'self_cpu_memory_usage') "
            "else max(e.self_device_memory_usage for e in p.key_averages()))")
    assert run(["-c", code], REPRISE=1).stdout == run(["-c", code]).stdout == f"{4 << 20}\n"


@pytest.mark.parametrize("example", ["minimal_train.py", "hf_gpt2.py", "environment_only.py"])
def test_example_runs(example):
    done = run([EXAMPLES / example], REPRISE=1)
    assert done.returncode == 0, done.stderr


def test_late_installation_says_what_was_there(tmp_path):
    """auto_checkpoint without REPRISE=1: allocator and engine come at that moment, and the report says so."""
    code = ("import torch, reprise\nm = torch.nn.Linear(512, 512)\nreprise.auto_checkpoint(m, '1GiB')\n"
            "for _ in range(3): m(torch.randn(256, 512)).tanh().sum().backward()\nprint(reprise.report())")
    done = run(["-c", code])
    assert done.returncode == 0, done.stderr
    assert "installed into a process that held" in done.stdout
