"""On a real GPU, without the simulator: the same training as training.py's. Nothing here needs an edit on a machine that has one."""

import ctypes
import os
import pathlib
import subprocess
import sys

import pytest

HERE = pathlib.Path(__file__).parent

SCRIPT = """
import torch
torch.use_deterministic_algorithms(True)
import training
training.torch = torch
training.half_of_the_activations(training.small_gpt)
print(torch.cuda.get_device_name())
"""


def why_not():
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        return f"no CUDA driver on this machine: {error}"
    return None


@pytest.mark.gpu
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_gpt_in_half_of_its_activations():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]]), "REPRISE": "1", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=170, env=environment)
    assert run.returncode == 0, run.stderr
