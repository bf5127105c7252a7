"""Mutants of our own code, one or more per rule R1 … R12: each breaks one rule on purpose, and the tests named beside it must go red.

usage: python tests/support/mutants.py [RULE…]        (./dev test --all runs them all)
Works on a copy of the tree in build/mutants, so that the sources at hand are never touched. A mutant lives when its tests pass: that is the failure here.
The texts to replace are checked by tests/mutants_test.py, so that a change of the source cannot leave a mutant behind that mutates nothing."""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD", ROOT / "build"))
RULES = "tests/integration/test_rules.py"
REPEATED = "tests/integration/test_repeated.py"
ZOO = "tests/zoo/test_zoo.py"
EQUAL = "tests/distributed/test_equal.py"


@dataclass(frozen=True)
class Mutant:
    rule: str
    what: str
    file: str
    before: str
    after: str
    tests: tuple    # pytest arguments


MUTANTS = [
    Mutant("R1", "a replay forgets that a tensor is a conjugate", "integration/torch/tensor_view.cpp",
           "if (conjugate) impl->_set_conj(true);", "if (conjugate && sizes.empty()) impl->_set_conj(true);", (ZOO, "-k", "test_scheme and complex_numbers")),
    Mutant("R1", "memory that was filled by pointer is made again as it was before", "integration/torch/replay.cpp",
           "if (value.producer != index) return;", "if (index < 0) return;", (ZOO, "-k", "test_verified and connectionist")),
    Mutant("R1", "an Op keeps what the Op before it in its memory made", "integration/torch/recording.cpp", "  made.clear();\n", "", (RULES, "-k", "r1")),
    Mutant("R1", "a call on another view is taken for the last step's", "integration/torch/repeated.cpp",
           "if (reason_not_plain(t) || !ref.geometry.is_of(t)) return false;", "if (reason_not_plain(t)) return false;", (REPEATED,)),
    Mutant("R1", "a call with another number is taken for the last step's", "integration/torch/repeated.cpp",
           "return same_number(slot.plain, a);", "return same_number(slot.plain, a) || i > 0;", (REPEATED,)),
    Mutant("R2", "the user's dispatch modes see replayed operators", "integration/torch/replay.cpp",
           "c10::impl::ExcludeDispatchKeyGuard no_modes(", "c10::DispatchKeySet no_modes(", (RULES, "-k", "r2")),
    Mutant("R3", "what is alive is made again", "integration/torch/saved.cpp",
           "  if (auto s = available(id)) {\n    counters.found_alive++;", "  if (auto s = available(id); s && values_[size_t(id)].producer == kNoOp) {\n    counters.found_alive++;",
           (RULES, "-k", "r3")),
    Mutant("R4", "operators written in Python count as pure functions", "integration/torch/operator_facts.cpp",
           "if (!known_namespace(facts.name))", "if (!known_namespace(facts.name) && facts.name.empty())", (RULES, "-k", "r4 or r2")),
    Mutant("R4", "collectives hide what they write", "integration/torch/operator_facts.cpp",
           "  find_undeclared_writes(schema, facts);\n", "  if (facts.name.empty()) find_undeclared_writes(schema, facts);\n", (EQUAL, "-k", "two_ranks and fsdp2")),
    Mutant("R5", "random numbers of a replay come from the live generator", "integration/torch/replay.cpp",
           "if (int(i) == op.facts->generator_argument && op.generator.defined())", "if (op.keys.empty())", (RULES, "-k", "r5")),
    Mutant("R5", "a replay runs under the settings of the backward", "integration/torch/replay.cpp",
           "SettingsScope as_recorded(*op.settings);", "SettingsScope as_recorded(Settings::now());", (RULES, "-k", "r5")),
    Mutant("R5", "a call that repeats keeps the settings of the last step", "integration/torch/repeated.cpp",
           "op->settings != settings) op->settings = settings;", "!op->settings) op->settings = settings;", (REPEATED,)),
    Mutant("R6", "running statistics are written again", "integration/torch/replay.cpp",
           "const bool hidden = op.facts->writes[i] == 2 && op.hidden_write;", "const bool hidden = false;", (RULES, "-k", "r6")),
    Mutant("R7", "nothing is copied before a write", "integration/torch/values.cpp",
           "if (v.readers > 0 && needed_by_dropped(id)) {", "if (v.bytes < 0) {", (RULES, "-k", "r7")),
    Mutant("R7", "parameters that FSDP brings back count as overwritten", "integration/torch/sharded.cpp",
           "if (!v.emptied || !v.held) return false;", "if (id >= 0) return false;", (EQUAL, "-k", "two_ranks and fsdp2")),
    Mutant("R7", "a replay reaches back over the end of a unit of FSDP", "integration/torch/sharded.cpp",
           "by[size_t(v)] = values_[size_t(v)].stranded_by = source;", "by[size_t(v)] = source;", (EQUAL, "-k", "two_ranks and fsdp2")),
    Mutant("R8", "what was replayed for a retained graph stays", "integration/torch/saved.cpp",
           "  if (graph_kept)\n", "  if (graph_kept && task < 0)\n", (RULES, "-k", "r8")),
    Mutant("R9", "the budget is no cap", "integration/torch/surface.cpp",
           "if (!set_budget(bytes > 0 ? std::size_t(bytes) : kNoCap))", "if (!set_budget(kNoCap))", (RULES, "-k", "r9")),
    Mutant("R9", "a rank refuses its budget alone", "integration/torch/controller.cpp", "  if (agreement_.ranks()) return;", "  if (!enabled()) return;",
           ("tests/distributed/test_faults.py", "-k", "infeasible")),
    Mutant("R10", "undo leaves the cap in place", "integration/torch/surface.cpp",
           "  Controller::get().disable();\n  set_budget(kNoCap);", "  Controller::get().disable();", (RULES, "-k", "r10")),
    Mutant("R10", "the engine never rests", "integration/torch/rest.cpp", "if (++fitting_ < kPassesBefore", "if (++fitting_ > 0", (RULES, "-k", "r10")),
    Mutant("R10", "the cap does not wake the engine", "integration/torch/rest.cpp", "if (!resting_.exchange(false)) return false;\n  places_.allow(false);",
           "if (!resting_) return false;\n  places_.allow(false);", (RULES, "-k", "r10")),
    Mutant("R11", "contents are never compared", "integration/torch/values.cpp",
           "if (!options_.fingerprint) return id;", "if (id >= 0) return id;", (RULES, "-k", "r11")),
    Mutant("R12", "two threads replay one Group at once", "integration/torch/saved.cpp",
           "  std::unique_lock<std::mutex> lock(mutex_);\n  begin_backward();", "  std::mutex mine;\n  std::unique_lock<std::mutex> lock(mine);\n  begin_backward();",
           (RULES, "-k", "r12")),
    Mutant("R12", "a Pass whose thread is gone is never learned", "integration/torch/engine.cpp",
           "      if (!p->idle()) return;\n", "      if (p->idle()) return;\n", (RULES, "-k", "r12")),
]


def copy_tree(target):
    """The files that git knows, with their times kept where nothing changed, so that the next build is a short one."""
    listed = subprocess.run(["git", "-c", "safe.directory=*", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.splitlines():
        source, copy = ROOT / name, target / name
        if not source.is_file() or (copy.exists() and copy.read_bytes() == source.read_bytes()):
            continue
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)


def build(tree, out):
    if not (out / "build.ninja").exists():
        subprocess.run(["cmake", "-S", str(tree), "-B", str(out), "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DREPRISE_TESTS=OFF",
                        f"-DPython_EXECUTABLE={sys.executable}"], check=True, capture_output=True)
    done = subprocess.run(["cmake", "--build", str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


def red(tree, out, tests):
    """Do these tests fail? Collection errors and crashes of the runner are no verdict; a test process that dies is one."""
    environment = {**os.environ, "REPRISE_BUILD": str(out), "PYTHONPATH": str(out / "python"), "OMP_NUM_THREADS": "1", "REPRISE_LOG": "0", "REPRISE_OPEN_ITEMS": "0"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests], cwd=tree, env=environment, stdin=subprocess.DEVNULL,
                          capture_output=True, text=True)
    assert done.returncode not in (2, 3, 4, 5), done.stdout[-4000:] + done.stderr[-2000:]
    return done.returncode != 0, (done.stdout.strip().splitlines() or [f"ended with {done.returncode}"])[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rules", nargs="*", metavar="RULE")
    wanted = parser.parse_args().rules
    tree, out = BUILD / "mutants" / "tree", BUILD / "mutants" / "build"
    copy_tree(tree)
    build(tree, out)
    alive = 0
    for mutant in (m for m in MUTANTS if not wanted or m.rule in wanted):
        path = tree / mutant.file
        original = path.read_text(encoding="utf-8")
        assert original.count(mutant.before) == 1, f"{mutant.rule}, {mutant.what}: its text stands {original.count(mutant.before)} times in {mutant.file}"
        path.write_text(original.replace(mutant.before, mutant.after), encoding="utf-8")
        try:
            build(tree, out)
            dead, said = red(tree, out, mutant.tests)
        finally:
            path.write_text(original, encoding="utf-8")
        alive += not dead
        print(f"{mutant.rule:4} {'seen ' if dead else 'ALIVE'} {mutant.what}: {said}", flush=True)
    print(f"{alive} mutants alive")
    return alive != 0


if __name__ == "__main__":
    sys.exit(main())
