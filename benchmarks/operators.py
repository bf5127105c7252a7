"""What recording costs an operator: 2,126 tiny operators and as many nodes of backward, alternating in one process: plain, a bare fallback, ours.

usage: ./dev bench operators [--pairs N] [--policies P…] [--count] [--json FILE]
Each line: median of the differences to the plain step of the same round, in microseconds of CPU time an operator [95 % interval], and heap calls an operator.
--count (needs valgrind, about a minute a line) prints instructions an operator instead, which do not depend on what else the machine does."""

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from paired import interval

ROOT = pathlib.Path(__file__).resolve().parents[1]
PROGRAM = pathlib.Path(os.environ.get("REPRISE_BUILD", ROOT / "build")) / "benchmarks" / "reprise_operators"
POLICIES = {"none": "everything kept", "chunks(8)": "a Plan that drops, chunks(8)"}
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}, "OMP_NUM_THREADS": "1", "REPRISE_LOG": "0"}


def run(*arguments):
    found = subprocess.run([PROGRAM, *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(f"operators: {PROGRAM} ended with status {found.returncode}: {found.stderr.strip()}")
    return json.loads(found.stdout)


def timed(policy, pairs, out):
    row = run(policy, "--pairs", str(pairs))
    for part in ("forward", "backward"):
        plain = row["plain"]
        calls = " / ".join(f"{row[way][f'{part}_heap_calls']:.2f}" for way in ("plain", "bare", "ours"))
        print(f"{POLICIES.get(policy, policy)}, {part}: plain {interval(plain[f'{part}_us'])[0]:.2f} us an operator; heap calls, plain / bare / ours: {calls}")
        for way in ("bare", "ours"):
            extra = [a - b for a, b in zip(row[way][f"{part}_us"], plain[f"{part}_us"])]
            middle, low, high = interval(extra)
            print(f"    {way:5} adds {middle:6.3f} us  [{low:.3f}, {high:.3f}]", flush=True)
    out[policy] = row


def instructions(policy, way, part):
    with tempfile.TemporaryDirectory() as folder:
        command = ["valgrind", "--tool=callgrind", "--collect-atstart=no", f"--toggle-collect=measured_{part}", f"--callgrind-out-file={folder}/out", PROGRAM, policy,
                   "--layers", "100", "--only", way]
        found = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    row = json.loads(found.stdout)
    return int(re.search(r"Collected : (\d+)", found.stderr)[1]) / row["steps"] / row["operators"]


def counted(policy, out):
    for part in ("forward", "backward"):
        found = {way: instructions(policy, way, part) for way in ("plain", "bare", "ours")}
        extra = {way: found[way] - found["plain"] for way in ("bare", "ours")}
        print(f"{POLICIES.get(policy, policy)}, {part}: plain {found['plain']:,.0f} instructions an operator; bare adds {extra['bare']:,.0f}, ours {extra['ours']:,.0f}", flush=True)
        out.setdefault(policy, {})[part] = found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=30, help="rounds a policy")
    parser.add_argument("--policies", nargs="+", default=list(POLICIES))
    parser.add_argument("--count", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.pairs < 6:
        sys.exit("operators: --pairs must be at least 6, or there is no 95 % interval")
    if args.count and not shutil.which("valgrind"):
        sys.exit("operators: --count needs valgrind, which is not installed")
    out = {}
    for policy in args.policies:
        if args.count:
            counted(policy, out)
        else:
            timed(policy, args.pairs, out)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(out, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
