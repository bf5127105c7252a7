"""`./dev test --all`: every acceptance line by a named command, resumable, its figures in out/acceptance.json.

A line is a command; it holds when the command ends with status 0. Lines that were done with the same sources are not run again (--again runs all).
usage: ./dev test --all [--again] [--only NAME…] [--list]"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUT = ROOT / "out"
BUILD = pathlib.Path(os.environ["REPRISE_BUILD"])
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs"]
PARALLEL = ["-n", str(os.cpu_count()), "--dist", "loadgroup"]


def lines():
    """name -> (command, file with figures or None)."""
    def bench(name, *more):
        return [sys.executable, f"benchmarks/{name}.py", *more, "--json", str(OUT / f"{name}.json")]
    return {
        "layers": ([*PYTEST, "tests/layers_test.py"], None),
        "c++": (["ctest", "--test-dir", str(BUILD), "--output-on-failure"], None),
        "demo": ([sys.executable, "-m", "reprise", "demo", "--json", str(OUT / "demo.json")], "demo.json"),
        "demo, counted": ([*PYTEST, "tests/integration/test_demo.py"], None),
        "rules": ([*PYTEST, "tests/integration/test_rules.py"], None),
        "blocks": ([*PYTEST, "tests/integration/test_blocks.py"], None),
        "over the cap": ([*PYTEST, "tests/integration/test_over_the_cap.py"], None),
        "environment only": ([*PYTEST, "tests/integration/test_environment.py"], None),
        "bad input": ([*PYTEST, "tests/integration/test_bad_input.py"], None),
        "zoo": ([*PYTEST, *PARALLEL, "tests/zoo", "--random-plans", "20", "--all-policies"], None),
        "exact work": (bench("ladder", "--svg", str(OUT / "ladder.svg")), "ladder.json"),
        "prediction": (bench("prediction"), "prediction.json"),
        "speed": (bench("steps", "--pairs", "25"), "steps.json"),
    }


def sources_hash():
    """Of every file git knows, so that a change runs everything again."""
    listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    digest = hashlib.sha256()
    for name in sorted(listed.stdout.splitlines()):
        if (ROOT / name).is_file():
            digest.update(name.encode() + (ROOT / name).read_bytes())
    return digest.hexdigest()[:16]


def save(state):
    text = json.dumps(state, indent=1) + "\n"
    part = OUT / "acceptance.json.part"
    part.write_text(text, encoding="utf-8")
    part.replace(OUT / "acceptance.json")


def load():
    try:
        return json.loads((OUT / "acceptance.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def run_line(name, command, figures):
    """Runs one line; its output goes to the terminal and to out/NAME.log."""
    began = time.time()
    log = OUT / f"{name.replace(' ', '_').replace(',', '')}.log"
    with open(log, "w", encoding="utf-8") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for text in process.stdout:
            sys.stdout.write(text)
            file.write(text)
        status = process.wait()
    row = {"command": " ".join(command[1:] if command[0] == sys.executable else command), "holds": status == 0, "status": status, "seconds": round(time.time() - began, 1)}
    path = OUT / figures if figures else None
    if path and path.exists():
        row["figures"] = json.loads(path.read_text(encoding="utf-8"))
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=lines())
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:18} {' '.join(command[1:])}" for name, (command, _) in lines().items()))
        return 0
    OUT.mkdir(exist_ok=True)
    version, state = sources_hash(), load()
    for name, (command, figures) in lines().items():
        done = state.get(name, {})
        if args.only and name not in args.only or not args.again and done.get("version") == version:
            continue
        print(f"== {name}", flush=True)
        state[name] = {"version": version, **run_line(name, command, figures)}
        save(state)
    missing = [name for name in lines() if name not in state]
    failed = [name for name, row in state.items() if not row["holds"]]
    for name, row in state.items():
        print(f"{'holds ' if row['holds'] else 'FAILED'} {name} ({row['seconds']} s)")
    for name in missing:
        print(f"not run {name}")
    print(f"{len(state) - len(failed)} passed, {len(failed)} failed, {len(missing)} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
