"""How many named behaviours of torch's CUDA allocator pass under native's and under reprise's, with this Python's torch, on the *simulated* device.

usage: ./dev python tests/simcuda/both.py [--out FILE]; needs no pytest, so any torch that reprise was built for will do.
Exit status 1 if one passes under native's and not under reprise's."""

import argparse
import json
import sys

import torch

import allocator_cases
import behaviours
import refused_by_pluggable
import simulated

MODULES = {"behaviours.py": behaviours, "refused_by_pluggable.py": refused_by_pluggable, "allocator_cases.py": allocator_cases}


def named(module, source, allocator):
    """name -> "passed" or what failed, of all families."""
    found = {}
    for family, members in module.FAMILIES.items():
        outcome = simulated.outcomes(source, allocator, family)
        found |= {f"{family}: {name}": outcome.get(name, "did not run") for name in [*members.functions, simulated.THE_PROCESS]}
    return found


def report(what, sides):
    """Prints the two counts and what differs; True if ours lacks one."""
    names = [name for name in sides["native"] if not name.endswith(simulated.THE_PROCESS)]
    passed = {allocator: sum(side[name] == "passed" for name in names) for allocator, side in sides.items()}
    print(f"torch {torch.__version__}, simulated: {what}: of {len(names)}, native {passed['native']}, reprise {passed['reprise']} passed")
    lacking = [name for name in sides["native"] if sides["native"][name] == "passed" != sides["reprise"][name]]
    for name in lacking:
        print(f"  under reprise: {name}: {sides['reprise'][name].strip().splitlines()[-1]}")
    for name in [name for name in names if sides["native"][name] != "passed"]:
        print(f"  under native: {name}: {sides['native'][name].strip().splitlines()[-1]}")
    return bool(lacking)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", help="every outcome, as JSON")
    options = parser.parse_args()
    failed, everything = False, {}
    for source, module in MODULES.items():
        sides = {allocator: named(module, source, allocator) for allocator in ("native", "reprise")}
        failed |= report(source, sides)
        everything[source] = sides
    if options.out:
        with open(options.out, "w", encoding="utf-8") as file:
            json.dump(everything, file, indent=1)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
