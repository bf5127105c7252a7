"""`./dev test --all`: every acceptance line by named commands, resumable, their figures in out/acceptance.json.

A line holds when each of its commands ends with status 0. Open items are not skipped here. Commands that were done with the same sources are not run
again (--again runs all). usage: ./dev test --all [--again] [--only NAME…] [--list]"""

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
JOBS = str(os.cpu_count())


def tests(*arguments, parallel=False):
    return [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-rs", *(["-n", JOBS, "--dist", "loadgroup"] if parallel else []), *arguments]


def bench(name, *more):
    return [sys.executable, f"benchmarks/{name}.py", *more, "--json", str(OUT / f"{name}.json")]


def sanitized(preset):
    """The three left layers and all their C++ tests under a sanitizer."""
    return [["cmake", "--preset", preset], ["cmake", "--build", "--preset", preset, "-j", JOBS], ["ctest", "--preset", preset, "-j", JOBS]]


def lines():
    """name of the acceptance line -> its commands. A command that names a JSON file in out/ leaves its figures there."""
    zoo = "tests/zoo/test_zoo.py"
    return {
        "House rules": [tests("tests/layers_test.py"), ["ctest", "--test-dir", str(BUILD), "--output-on-failure", "-j", JOBS]],
        "Oracle": [tests("tests/policy", "--oracle-graphs", "300", "--oracle-json", str(OUT / "oracle.json"))],
        "Fuzz": [tests("tests/zoo/test_fuzz.py", "--fuzz-plans", "10", parallel=True),
                 tests("tests/integration/test_random_lengths.py", "--fuzz-steps", "1000", "--fuzz-json", str(OUT / "lengths.json"))],
        "Sweeps": [tests("tests/benchmarks/test_sweeps.py", "--sweep-models", "gpt_drop", "llama", "bert_drop", "resnet50", "unet")],
        "Largest batch": [tests("tests/integration/test_largest_batch.py"), bench("batch")],
        "Demo": [[sys.executable, "-m", "reprise", "demo", "--json", str(OUT / "demo.json")], tests("tests/integration/test_demo.py")],
        "Zoo": [tests(zoo, "-k", "test_scheme or test_auto or the_comparison", "--all-policies", parallel=True), tests(zoo, "-k", "test_random_plan", "--random-plans", "20", parallel=True),
                tests(zoo, "-k", "test_verified", parallel=True)],
        "Legal writes": [tests(zoo, "-k", "test_write_kind_or_setting", "--all-policies", parallel=True)],
        "Rules": [tests("tests/integration/test_rules.py", "tests/integration/test_invariants.py", "tests/mutants_test.py"), [sys.executable, "tests/support/mutants.py"]],
        "Blocks": [tests("tests/integration/test_blocks.py")],
        "Tags": [tests("tests/integration/test_tags.py")],
        "Exact work": [tests("tests/integration/test_exact_work.py"), bench("ladder", "--svg", str(OUT / "ladder.svg"))],
        "Learning Pass": [tests(zoo, "-k", "test_auto and (0.6 or 0.4)", "--all-policies", parallel=True)],
        "Prediction": [bench("prediction")],
        "Many predictions": [[sys.executable, "benchmarks/prediction.py", "--many", "--json", str(OUT / "prediction_many.json")]],
        "Packing": [tests("tests/integration/test_packing.py"), bench("plans", "--models", "gpt_drop", "bert_drop")],
        "Placement": [tests("tests/integration/test_placement.py")],
        "Resume": [tests("tests/integration/test_resume.py")],
        "Cost model": [tests("tests/integration/test_cost_model.py")],
        "Distributed": [tests("tests/distributed", "--all-policies")],
        "CUDA, simulated": [tests("tests/simcuda", "--all-policies"), bench("cuda_allocator"), bench("cuda_replay")],
        "Environment only": [tests("tests/integration/test_environment.py")],
        "Spike": [tests("tests/integration/test_over_the_cap.py")],
        "Peers": [tests("tests/benchmarks/test_peers.py"), [sys.executable, "benchmarks/peers.py"]],    # resumable by itself: its figures stay in out/peers.json
        "Speed": [bench("steps", "--pairs", "24")],
        "CPU allocator": [bench("allocator")],
        "Allocator": [[str(BUILD / "tests/allocator/reprise_allocator_soak"), "--operations=10000000"],
                      [str(BUILD / "tests/allocator/reprise_allocator_tests")], *sanitized("asan"), *sanitized("tsan")],
        "C++": [tests("tests/integration/test_cpp_example.py")],
        "Bad input": [tests("tests/integration/test_bad_input.py")],
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
    part = OUT / "acceptance.json.part"
    part.write_text(json.dumps(state, indent=1) + "\n", encoding="utf-8")
    part.replace(OUT / "acceptance.json")


def load():
    try:
        return json.loads((OUT / "acceptance.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def spelled(command):
    return " ".join(command[1:] if command[0] == sys.executable else command)


def run_command(command, log):
    """Runs one command; its output goes to the terminal and to `log`. The row of figures it leaves."""
    figures = next((pathlib.Path(word) for word in command if word.startswith(str(OUT)) and word.endswith(".json")), None)
    if figures:
        figures.unlink(missing_ok=True)
    began, said = time.time(), ""
    environment = {**os.environ, "REPRISE_OPEN_ITEMS": "1", "REPRISE_LOG": "0"}
    if "pytest" in command:
        environment["OMP_NUM_THREADS"] = "1"
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for text in process.stdout:
        sys.stdout.write(text)
        log.write(text)
        said = text.strip() or said
    status = process.wait()
    row = {"status": status, "seconds": round(time.time() - began, 1), "last_line": said}
    if figures and figures.exists():
        row["figures"] = json.loads(figures.read_text(encoding="utf-8"))
    return row


def run_line(name, commands, version, state, again):
    """Runs what is left of a line and saves after each command."""
    row = state.setdefault(name, {})
    done = {text: r for text, r in row.get("commands", {}).items() if r.get("version") == version and not again}
    row["commands"] = done
    with open(OUT / f"{name.replace(' ', '_')}.log", "a", encoding="utf-8") as log:
        for command in commands:
            if spelled(command) in done:
                continue
            print(f"== {name}: {spelled(command)}", flush=True)
            done[spelled(command)] = {"version": version, **run_command(command, log)}
            save(state)
    row["holds"] = all(done[spelled(command)]["status"] == 0 for command in commands)
    row["seconds"] = round(sum(r["seconds"] for r in done.values()), 1)
    save(state)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=lines())
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        print("\n".join(f"{name:17} {spelled(command)}" for name, commands in lines().items() for command in commands))
        return 0
    OUT.mkdir(exist_ok=True)
    version = sources_hash()
    state = {name: row for name, row in load().items() if name in lines()}
    for name, commands in lines().items():
        if not args.only or name in args.only:
            run_line(name, commands, version, state, args.again)
    for name, row in state.items():
        print(f"{'holds ' if row['holds'] else 'FAILED'} {name} ({row['seconds']} s)")
    missing = [name for name in lines() if name not in state]
    for name in missing:
        print(f"not run {name}")
    failed = sum(not row["holds"] for row in state.values())
    print(f"{len(state) - failed} passed, {failed} failed, {len(missing)} skipped")
    return 1 if failed or (missing and not args.only) else 0


if __name__ == "__main__":
    sys.exit(main())
