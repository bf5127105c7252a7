"""Named behaviours, run in a process that has the simulator under torch: `python MODULE.py native|reprise FAMILY` prints one JSON line each, name and
"passed" or what failed; outcomes() is the other end of it, in the process that asks: pytest's (named_tests.py) or both.py's."""

import functools
import gc
import json
import os
import pathlib
import subprocess
import sys
import traceback

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
import simcuda  # noqa: E402

THE_PROCESS = "the process"


class Family:
    """Behaviours that share a process: functions of the Simulator, in order."""

    def __init__(self, **activation):
        self.activation, self.functions = activation, {}

    def __call__(self, function):
        self.functions[function.__name__] = function
        return function

    def activate(self, allocator):
        """Before `import torch`, which the module then does itself."""
        os.environ["REPRISE"] = "1" if allocator == "reprise" else "0"
        return simcuda.activate(**self.activation)

    def run(self, device):
        import torch

        for name, function in self.functions.items():
            gc.collect()
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            try:
                function(device)
                outcome = "passed"
            except Exception:
                outcome = traceback.format_exc()
            print(json.dumps([name, outcome]), flush=True)


@functools.cache
def outcomes(module, allocator, family):
    """name -> "passed" or what failed."""
    command = [sys.executable, str(HERE / module), allocator, family]
    run = subprocess.run(command, capture_output=True, text=True, timeout=170, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    found = dict(json.loads(line) for line in run.stdout.splitlines() if line.startswith("["))
    found[THE_PROCESS] = "passed" if run.returncode == 0 else f"ended with {run.returncode}: {run.stderr[-2000:]}"
    return found
