"""`./dev demo --device cuda --simulated`, as dev starts it: both runs and their parent on the simulated device."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import named_tests  # noqa: E402

pytestmark = named_tests.not_built


@pytest.mark.hangs_after(300)
def test_demo_on_the_simulated_device(tmp_path):
    folder, out = pathlib.Path(os.environ["REPRISE_BUILD"]) / "tests" / "simcuda", tmp_path / "demo.json"
    environment = {**os.environ, "SIMCUDA_FOLDER": str(folder), "PYTHONPATH": os.pathsep.join([str(HERE / "site"), os.environ["PYTHONPATH"]])}
    # Smaller batches leave less than AdamW's own temporaries, which are as large as the parameters on CUDA.
    command = [sys.executable, "-W", "ignore", "-m", "reprise", "demo", "--device", "cuda", "--steps", "3", "--batch", "2", "--json", str(out)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert run.returncode == 0, run.stdout + run.stderr
    result = json.loads(out.read_text(encoding="utf-8"))
    assert result["device"] == "Simulated CUDA device" and "on: Simulated CUDA device" in run.stdout
    assert result["claims"] == {"losses_equal": True, "parameters_equal": True, "cap_held": True}
    assert 2 * result["budgeted"]["activation_bytes"] <= result["plain"]["activation_bytes"]


def test_without_a_device_the_demo_says_how():
    run = subprocess.run([sys.executable, "-W", "ignore", "-m", "reprise", "demo", "--device", "cuda"], capture_output=True, text=True, timeout=120,
                         env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert run.returncode == 2
    assert run.stderr.strip().endswith("reprise demo: --device cuda needs a CUDA device (./dev demo --device cuda --simulated runs without one)")
