"""An allocate + free pair through torch's CUDA allocator interface: ours unplanned and planned, and what ours passes on to native, each beside native in the same process.

usage: ./dev bench cuda_allocator [--rounds N] [--devices N] [--json FILE]
On the *simulated* device, whose driver calls cost next to nothing: what is compared is the allocators' own work. Everything is counted: statistics are on.
Median of the rounds' ratios [95 % interval]; the bars are 0.60 for ours, 0.25 where each
run of the pattern is a planned step (beginning it is counted), and 1.10 for what is passed on. Exit status 1 if a whole interval is above its bar."""

import argparse
import collections
import json
import os
import pathlib
import statistics
import subprocess
import sys

from paired import interval

BARS = {"ours": 0.60, "planned": 0.25, "forwarded": 1.10}


def measure(rounds, devices):
    build = pathlib.Path(os.environ["REPRISE_BUILD"])
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "tests" / "simcuda"))
    import simcuda

    preload = ":".join(str(path) for path in simcuda.libraries())
    command = [str(build / "benchmarks" / "reprise_cuda_allocator_pairs"), str(rounds)]
    run = subprocess.run(command, capture_output=True, text=True, check=False,
                         env={**os.environ, "LD_PRELOAD": preload, "REPRISE_LOG": "0", "SIMCUDA_DEVICES": str(devices)})
    if run.returncode != 0:
        sys.exit(f"{command[0]} ended with {run.returncode}: {run.stderr}")
    found = collections.defaultdict(list)
    for line in run.stdout.splitlines():
        pattern, what, native, ours = line.split()
        found[pattern, what].append((float(native), float(ours)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--devices", type=int, default=1, help="where there are several, each request asks which is the current one")
    parser.add_argument("--json")
    options = parser.parse_args()
    rows, above = [], False
    print(f"simulated CUDA device, one of {options.devices}; nanoseconds of CPU time for an allocate + free pair")
    for (pattern, what), pairs in measure(options.rounds, options.devices).items():
        ratios = [ours / native for native, ours in pairs]
        middle, low, high = interval(ratios)
        native, ours = (statistics.median(side) for side in zip(*pairs))
        above |= low > BARS[what]
        rows.append({"pattern": pattern, "what": what, "native_ns": native, "ours_ns": ours, "ratio": middle, "interval": [low, high], "bar": BARS[what]})
        print(f"{what:10} {pattern:14} native {native:7.1f}  ours {ours:7.1f}  ratio {middle:.3f} [{low:.3f}, {high:.3f}]  bar {BARS[what]:.2f}")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return int(above)


if __name__ == "__main__":
    sys.exit(main())
