"""PyTorch's own tests of its CUDA allocator, from a checkout of PyTorch that is not part of this one, under native's allocator and under reprise's, on the *simulated* device.

usage: ./dev python tests/simcuda/torch_tests.py --torch-tests DIR [-k EXPRESSION] [--out FILE]
DIR has test_cuda.py (PyTorch's folder test/), of a version near this torch's; its tests import the package expecttest. Numeric mode: kernels compute. A test that ends its
process, or takes longer than two minutes, counts as failed. Prints both counts, and what passes under one only; exit status 1 if one passes under native's alone."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
SUBSET = "(memory or alloc or stream or event or pinned or caching or pool or snapshot or expandable) and not graph"
ALLOCATORS = ("native", "reprise")

if os.environ.get("REPRISE_TORCH_TESTS"):  # loaded by pytest, as a plugin: the simulator comes before torch
    sys.path.insert(0, str(HERE))
    import simcuda

    simcuda.activate(memory_mib=int(os.environ["REPRISE_TORCH_TESTS"]), numeric=True)


def outcomes(allocator, options):
    """name -> passed, skipped, or what failed."""
    with tempfile.TemporaryDirectory() as folder:
        xml_file = pathlib.Path(folder) / "tests.xml"
        path = os.pathsep.join([str(HERE), os.environ["PYTHONPATH"]])
        command = [sys.executable, "-m", "pytest", "-q", "-p", "torch_tests", "-p", "no:cacheprovider", "-n", "1", "--max-worker-restart", "100", "--rootdir", options.torch_tests,
                   "-o", "faulthandler_timeout=120", "-o", "faulthandler_exit_on_timeout=true", "--junitxml", str(xml_file), "-k", options.k,
                   os.path.join(options.torch_tests, "test_cuda.py")]
        run = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False,
                             env={**os.environ, "PYTHONPATH": path, "REPRISE": "1" if allocator == "reprise" else "0", "REPRISE_LOG": "0", "PYTHONWARNINGS": "ignore",
                                  "REPRISE_TORCH_TESTS": str(options.memory_mib)})
        if not xml_file.exists():
            sys.exit(f"pytest ended with {run.returncode}: {run.stdout[-2000:]}{run.stderr[-2000:]}")
        found = {}
        for case in xml.etree.ElementTree.parse(xml_file).getroot().iter("testcase"):
            bad = next((child for child in case if child.tag in ("failure", "error")), None)
            name = f"{case.get('classname').rpartition('.')[2]}.{case.get('name')}"
            if bad is not None:
                found[name] = bad.get("message") or "failed"
            else:
                found[name] = "skipped" if case.find("skipped") is not None else "passed"
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--torch-tests", required=True, metavar="DIR")
    parser.add_argument("-k", default=SUBSET, metavar="EXPRESSION", help=f"pytest's; default: {SUBSET}")
    parser.add_argument("--memory-mib", type=int, default=8192)
    parser.add_argument("--out", help="every outcome, as JSON")
    options = parser.parse_args()
    options.torch_tests = os.path.abspath(options.torch_tests)
    if not os.path.exists(os.path.join(options.torch_tests, "test_cuda.py")):
        parser.error(f"argument --torch-tests: {options.torch_tests} has no test_cuda.py")
    sides = {allocator: outcomes(allocator, options) for allocator in ALLOCATORS}
    for allocator, found in sides.items():
        passed, skipped = (sum(outcome == word for outcome in found.values()) for word in ("passed", "skipped"))
        print(f"simulated, {allocator}: {passed} passed, {len(found) - passed - skipped} failed, {skipped} skipped of {len(found)}")
    for name in sorted(set(sides["native"]) | set(sides["reprise"])):
        there = [sides[allocator].get(name, "did not run") for allocator in ALLOCATORS]
        if (there[0] == "passed") != (there[1] == "passed"):
            print(f"  {name}: " + "; ".join(f"{allocator}: {outcome.splitlines()[0][:150]}" for allocator, outcome in zip(ALLOCATORS, there)))
    if options.out:
        pathlib.Path(options.out).write_text(json.dumps(sides, indent=1), encoding="utf-8")
    return int(any(outcome == "passed" != sides["reprise"].get(name) for name, outcome in sides["native"].items()))


if __name__ == "__main__":
    sys.exit(main())
