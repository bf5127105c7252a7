"""`python -m reprise simulate train.py --gpu H100-80GB`: does an unmodified CUDA script fit on that card, and what would its plan be? No GPU is needed.

The script runs for a few steps on a *simulated* device (tests/simcuda): allocations, streams and errors are torch's own and exact, kernels do nothing, so numbers
are not (a loss is 0, what depends on data goes wrong), and times are those of a rough model of the card. It is run once without a limit, which measures what it
needs; where that does not fit, once more under a plan, with the card's memory as its budget.
Exit status: 0 fits, plainly or with a plan; 1 does not; 2 usage, or the script failed."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass

GIB, MIB = 1 << 30, 1 << 20
PAGE = 2 * MIB  # of a device
MOST_TRIES = 6  # until a budget is seen to be enough
CHILD = pathlib.Path(__file__).with_name("_simulated_run.py")


@dataclass(frozen=True)
class Card:
    """memory_gib: what torch calls the total capacity, which is less than the name says. The rates are data sheets': dense bfloat16, and memory."""

    memory_gib: float
    capability: int
    tera_operations: float
    giga_bytes_per_second: float


CARDS = {"A100-40GB": Card(39.39, 80, 312, 1555), "A100-80GB": Card(79.15, 80, 312, 2039), "H100-80GB": Card(79.10, 90, 989, 3350), "H200": Card(139.72, 90, 989, 4800),
         "B200": Card(178.35, 100, 2250, 8000), "RTX4090": Card(23.64, 89, 165.2, 1008)}


class Failed(Exception):
    """The script could not be run to its end."""


def library_folder():
    """Where the simulated CUDA libraries lie: SIMCUDA_FOLDER, the installed package, or what ./dev built. None: this build has none."""
    given = os.environ.get("SIMCUDA_FOLDER")
    built = os.environ.get("REPRISE_BUILD")
    places = [pathlib.Path(given)] if given else [pathlib.Path(__file__).parent / "simcuda", *([pathlib.Path(built) / "tests" / "simcuda"] if built else [])]
    return next((place for place in places if (place / "libcuda.so.1").exists()), None)


def bytes_of(text):
    from reprise import Budget

    return int(Budget(text))


def gib(count):
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"


def run_script(settings, script, arguments, **request):
    """One run in a process of its own. What it found out, as a dict; Failed, with its words, where the script raised something else than out of memory."""
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "out.json"
        asked = pathlib.Path(folder) / "request.json"
        asked.write_text(json.dumps({**settings, **request, "out": str(out)}), encoding="utf-8")
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE_") or k == "REPRISE_BUILD"}
        package = str(pathlib.Path(__file__).parent.parent)
        environment.update(REPRISE="1", REPRISE_LOG="0", PYTHONPATH=os.pathsep.join([package, *filter(None, [environment.get("PYTHONPATH")])]))
        environment.setdefault("OMP_NUM_THREADS", "1")
        command = [sys.executable, str(CHILD), str(asked), script, *arguments]
        done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if not out.exists():
            raise Failed(f"the script ended with {done.returncode}:\n{(done.stderr or done.stdout).strip()[-3000:]}")
        found = json.loads(out.read_text(encoding="utf-8"))
    if found["error"]:
        raise Failed(f"the script failed after {found['steps']} steps:\n{found['error']}")
    return found


@dataclass
class Verdict:
    """What is known of the script on the card. Bytes are of the device: both allocators' pages."""

    gpu: str
    memory_bytes: int          # of the card, less what CUDA itself takes
    steps: int                 # of an optimizer; 0: the script has none of torch's
    passes: int
    peak_bytes: int            # plain
    live_peak_bytes: int
    start_bytes: int           # live when the last step started: parameters, optimizer state
    fits_plainly: bool
    fits: bool
    plan: dict | None = None   # where plain does not fit
    smallest_budget: int | None = None  # the script ran under it; where the card's memory is too little for any plan
    largest: dict | None = None


def planned_throughout(found):
    return found["infeasible"] is None and found["missing_bytes"] == 0


def enough(settings, script, arguments, budget, learned):
    """The first budget, from what the planner named on, under which the whole script ran with a plan for every step. What is named knows the Pass that did not fit:
    later ones may need more, as when an optimizer's state has appeared. None: not seen."""
    for _ in range(MOST_TRIES):
        if budget is None:
            return None
        tried = run_script(settings, script, arguments, budget=budget, learned=learned)
        if planned_throughout(tried):
            return budget
        named = tried["smallest_budget"] if tried["infeasible"] else budget + tried["missing_bytes"]
        budget = None if named is None else max(named, budget + PAGE)
    return None


def judge(settings, script, arguments, memory, gpu, name_enough=True):
    plain = run_script(settings, script, arguments, budget=None)
    verdict = Verdict(gpu, memory, plain["steps"], plain["passes"], plain["peak_bytes"], plain["live_peak_bytes"], plain["start_bytes"], plain["peak_bytes"] <= memory,
                      plain["peak_bytes"] <= memory)
    if verdict.fits_plainly or not plain["learned"]:
        return verdict
    planned = run_script(settings, script, arguments, budget=memory, learned=plain["learned"])
    verdict.fits = planned_throughout(planned)
    if name_enough and not verdict.fits:
        verdict.smallest_budget = enough(settings, script, arguments, planned["smallest_budget"], plain["learned"])
    if verdict.fits:
        verdict.plan = {**(planned["plan"] or {}), "peak_bytes": planned["peak_bytes"], "live_peak_bytes": planned["live_peak_bytes"]}
    return verdict


def with_value(arguments, flag, value):
    """The script's arguments with that value behind the flag: --batch 8, or --batch=8."""
    out, found = list(arguments), False
    for i, argument in enumerate(arguments):
        if argument == flag and i + 1 < len(arguments):
            out[i + 1], found = str(value), True
        elif argument.startswith(flag + "="):
            out[i], found = f"{flag}={value}", True
    return out if found else [*out, flag, str(value)]


def largest(fits, start=1, most=1 << 20):
    """The largest whole number from `start` on for which fits() is true, by doubling and halving; 0 where not even start fits."""
    if not fits(start):
        return 0
    low = start
    while low * 2 <= most and fits(low * 2):
        low *= 2
    high = low * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def find_largest(settings, script, arguments, memory, gpu, flag):
    """For plain training and with a plan; every value is a run or two of a few seconds."""
    seen = {}

    def at(value):
        if value not in seen:
            seen[value] = judge(settings, script, with_value(arguments, flag, value), memory, gpu, name_enough=False)
            print(f"  {flag} {value}: {'fits' if seen[value].fits_plainly else 'fits with a plan' if seen[value].fits else 'does not fit'}", file=sys.stderr, flush=True)
        return seen[value]

    plainly = largest(lambda value: at(value).fits_plainly)
    return {"flag": flag, "plain": plainly, "planned": largest(lambda value: at(value).fits, start=max(plainly, 1))}


def describe(verdict, script, total):
    lines = [f"{script} on a simulated {verdict.gpu} of {gib(total)}, {gib(total - verdict.memory_bytes)} of it left to CUDA itself; "
             f"{f'{verdict.steps} steps' if verdict.steps else f'{verdict.passes} Passes, no optimizer step'}",
             f"  plain: peak {gib(verdict.peak_bytes)} reserved, {gib(verdict.live_peak_bytes)} live ({gib(verdict.start_bytes)} when a step starts): "
             f"{'fits' if verdict.fits_plainly else 'does not fit'}"]
    if verdict.plan:
        plan = verdict.plan
        lines.append(f"  budget {gib(verdict.memory_bytes)}: fits. Peak {gib(plan['peak_bytes'])} reserved, {gib(plan['live_peak_bytes'])} live")
        if "scheme" in plan:
            share = f", {100 * plan['added_seconds'] / plan['step_seconds']:.1f} % of three times the forward" if plan["step_seconds"] > 0 else ""
            lines.append(f"  plan {plan['scheme']}: {plan['kept_values']} Values kept, {plan['groups']} Groups run again; peak above the step's start {gib(plan['predicted_peak_bytes'])} "
                         f"predicted, {gib(plan['measured_peak_bytes'])} in simulation; {1e3 * plan['added_seconds']:.1f} ms added by the card's rough model{share}")
    elif not verdict.fits_plainly:
        smallest = gib(verdict.smallest_budget) if verdict.smallest_budget else "not known: the script was not seen to train"
        lines.append(f"  no plan fits; the smallest budget under which the script was seen to run: {smallest}")
    if verdict.largest:
        lines.append(f"  largest {verdict.largest['flag']} that fits: {verdict.largest['plain']} plain, {verdict.largest['planned']} with a plan")
    return "\n".join(lines)


def parse(arguments):
    parser = argparse.ArgumentParser(prog="python -m reprise simulate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=CARDS, default="H100-80GB")
    parser.add_argument("--memory", help="another amount of memory than the card has, as 24GiB")
    parser.add_argument("--reserve", default="600MiB", help="left to CUDA's context and libraries (default %(default)s)")
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps after which the script is stopped (default %(default)s: the second one has optimizer state)")
    parser.add_argument("--largest", metavar="FLAG", help="also finds the largest value of that option of the script (as --largest=--batch-size) that fits")
    parser.add_argument("--on-device", action="store_true", help="the script's tensors are made on the simulated device from the start: for models that this machine cannot hold")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own")
    return parser.parse_args(arguments)


def main(arguments):
    options = parse(arguments)
    folder = library_folder()
    if folder is None:
        print("reprise simulate: this build has no simulated CUDA device: it needs a CUDA build of torch (cmake says why)", file=sys.stderr)
        return 2
    card = CARDS[options.gpu]
    try:
        total = bytes_of(options.memory) if options.memory else int(card.memory_gib * GIB)
        reserve = bytes_of(options.reserve) if options.reserve != "0" else 0
    except ValueError as error:
        print(f"reprise simulate: {error}", file=sys.stderr)
        return 2
    if options.steps < 1 or reserve >= total:
        print(f"reprise simulate: --steps {options.steps} must be at least 1 and --reserve {gib(reserve)} less than the memory, {gib(total)}", file=sys.stderr)
        return 2
    if not pathlib.Path(options.script).is_file():
        print(f"reprise simulate: there is no file {options.script}", file=sys.stderr)
        return 2
    settings = {"folder": str(folder), "steps": options.steps, "on_device": options.on_device, "name": f"Simulated {options.gpu}", "total_bytes": total, **asdict(card)}
    try:
        verdict = judge(settings, options.script, options.arguments, total - reserve, options.gpu)
        if options.largest:
            verdict.largest = find_largest(settings, options.script, options.arguments, total - reserve, options.gpu, options.largest)
    except Failed as error:
        print(f"reprise simulate: {error}", file=sys.stderr)
        return 2
    print(describe(verdict, options.script, total))
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({**asdict(verdict), "simulated": True}, indent=1), encoding="utf-8")
    return 0 if verdict.fits else 1
