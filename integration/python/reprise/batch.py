"""Which batch size to train with inside a byte budget: the largest that fits, and the one that trains most samples a second.

Two small sizes are run and measured; from them the bytes and seconds of every other size follow (a line: what grows with the batch, and what does not) and the
planner says what each would need. Then what it names is run, since a step's needs outside forward and backward are in no Profile. `python -m reprise
largest-batch script.py:function --budget 2GiB` does the same for a function of a script."""

import argparse
import importlib
import importlib.util
import json
import math
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

import reprise
from reprise import _core

MIB = 1 << 20
MOST = 1024      # batch sizes that are looked at where none are given
WARM_UP = 4      # steps: learning, the first with gradients there, the first under a Plan, one more
SLACK = 50       # a fiftieth of the budget (at most 32 MiB) is left to what differs between two processes: holes, and operators' seconds, so Plans
PAIRS = 3        # pairs of sizes tried when steps of different sizes do different things


@dataclass(frozen=True)
class Batch:
    """One batch size that was run."""

    batch: int
    fits: bool
    step_seconds: float | None = None          # median wall time
    samples_per_second: float | None = None
    mfu: float | None = None                   # useful FLOP/s over the machine's measured roof
    peak_reserved_bytes: int | None = None
    replayed: int | None = None                # operators run again in a step
    predicted_bytes: int | None = None         # smallest and best use of the budget that the planner saw
    predicted_samples_per_second: float | None = None
    smallest_budget: int | None = None         # where it does not fit: a budget that would do


@dataclass(frozen=True)
class Batches:
    """What largest_batch found. str() is for people, to_json() for programs."""

    budget_bytes: int
    largest: Batch
    fastest: Batch
    tried: tuple                # every Batch that was run, by size
    prediction: str             # how sizes were predicted, or why they could not be
    why_not_larger: str

    def to_json(self):
        return json.dumps(asdict(self), indent=1)

    def __str__(self):
        lines = [f"budget {self.budget_bytes / MIB:.1f} MiB; {self.prediction}"]
        for row in self.tried:
            mark = ", ".join(name for name, found in (("largest", self.largest), ("fastest", self.fastest)) if found.batch == row.batch)
            lines.append(_line(row) + (f"   <- {mark}" if mark else ""))
        return "\n".join([*lines, f"  {self.why_not_larger}"])


def _line(row):
    if not row.fits:
        needs = f"; {row.smallest_budget / MIB:.1f} MiB would do" if row.smallest_budget else ""
        return f"  batch {row.batch:5}  does not fit{needs}"
    predicted = f" (predicted {row.predicted_samples_per_second:.2f})" if row.predicted_samples_per_second else ""
    return (f"  batch {row.batch:5}  {row.samples_per_second:8.2f} samples/s{predicted}  MFU {row.mfu:5.1%}  step {row.step_seconds:.3f} s  "
            f"{row.peak_reserved_bytes / MIB:8.1f} MiB reserved  {row.replayed:5} operators run again")


def _sizes(batches):
    """Rising batch sizes, as a sequence."""
    if batches is None:
        return range(1, MOST + 1)
    if isinstance(batches, (str, bytes)) or not hasattr(batches, "__iter__"):
        raise TypeError(f"argument batches: {batches!r} is a {type(batches).__name__}; it takes batch sizes, as in range(8, 257, 8) or [4, 8, 16], or None")
    sizes = batches if isinstance(batches, range) and batches.step > 0 else sorted(set(batches))
    if not sizes:
        raise ValueError("argument batches: there is no batch size in it; at least one is needed")
    for size in (sizes[0], sizes[-1]) if isinstance(sizes, range) else sizes:
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"argument batches: {size!r} is a {type(size).__name__}; batch sizes are whole numbers")
        if not 1 <= size <= 1 << 30:
            raise ValueError(f"argument batches: {size} is outside [1, {1 << 30}]")
    return sizes


class _Measured:
    """A batch size that was run under the budget, with its Profile."""

    def __init__(self, batch, seconds, peak, replayed):
        report = reprise.report().data
        if "profile" not in report:
            raise ValueError(f"argument step: step({batch}) did no forward and backward that autograd saves tensors for")
        added = report.get("plan", {}).get("added_seconds", 0.0)
        self.batch, self.profile = batch, reprise.profile().to_json()
        self.plain_seconds = max(1e-9, statistics.median(seconds) - added)
        self.peak, self.replayed, self.seconds = peak, replayed, list(seconds)
        self.roof, self.flops = report["utilization"]["roof_flops_per_second"], report["utilization"]["useful_flops"]


class _Search:
    def __init__(self, step, arm, sizes, steps, policy):
        self.step, self.arm, self.sizes, self.steps, self.policy = step, arm, sizes, steps, policy
        arm()
        self.budget = reprise.memory_stats()["cap_bytes"]
        self.promised = self.budget - min(self.budget // SLACK, 32 * MIB)
        self.measured, self.failed, self.predicted = {}, {}, {}
        self.pair, self.prediction = None, ""

    # Running

    def run_step(self, batch):
        began = time.perf_counter()
        self.step(batch)
        return time.perf_counter() - began

    def fits(self, batch):
        """Runs a batch size, once; whether it fits. What goes to the temporary file in a settled step does not, nor, where nothing is to run again, a replay."""
        if batch in self.measured or batch in self.failed:
            return batch in self.measured
        self.failed[batch] = None
        self.arm()      # an engine that rests, since all fits, would see no Pass of the new size
        try:
            for _ in range(2):      # a Plan may miss once; the next one is made for less
                if self.settled(batch):
                    del self.failed[batch]
                    return self.tell(batch, f"fits, {self.rate(batch):.2f} samples/s")
        except torch.OutOfMemoryError as error:
            self.failed[batch] = getattr(error, "smallest_budget", None)
        return not self.tell(batch, "does not fit")

    def tell(self, batch, what):
        """One line for each size that was run, for who waits; REPRISE_LOG=0 silences it. True."""
        if os.environ.get("REPRISE_LOG") != "0":
            print(f"reprise: largest_batch: batch {batch} {what}", file=sys.stderr, flush=True)
        return True

    def settled(self, batch):
        """Takes steps until the Plan is there, and then timed ones; whether those kept to what was planned."""
        passes = reprise.counters()["passes"]
        for _ in range(WARM_UP):
            self.step(batch)
        if reprise.counters()["passes"] == passes and not self.measured:
            raise ValueError(f"argument step: step({batch}) did no forward and backward that autograd saves tensors for")
        reprise.reset_peaks()
        before = reprise.counters()
        seconds = [self.run_step(batch) for _ in range(self.steps)]
        after = reprise.counters()
        if after["overflow_bytes"] > before["overflow_bytes"] or (self.policy == "none" and after["replayed"] > before["replayed"]):
            return False
        self.measured[batch] = _Measured(batch, seconds, reprise.memory_stats()["peak_reserved_bytes"], (after["replayed"] - before["replayed"]) // self.steps)
        return True

    # Predicting

    def predict(self, batch):
        """Whether `batch` should fit, and its samples a second; None where nothing can be predicted."""
        if self.pair is None:
            return None
        if batch not in self.predicted:
            a, b = self.pair
            found = _core.predict_batch(a.profile, a.batch, b.profile, b.batch, batch, self.promised, self.policy)
            slope = max(0.0, b.plain_seconds - a.plain_seconds) / (b.batch - a.batch)
            plain = max(a.plain_seconds + slope * (batch - a.batch), b.plain_seconds if batch >= b.batch else 0.0)
            found["samples_per_second"] = batch / (plain + found["added_seconds"])
            self.predicted[batch] = found
        return self.predicted[batch]

    def measure_two(self):
        """Measures the smallest size, and then larger ones until two of them do the same operators."""
        if not self.fits(self.sizes[0]):
            raise reprise.Infeasible(f"largest_batch: the smallest batch size, {self.sizes[0]}, does not fit into {self.budget} bytes", self.failed[self.sizes[0]])
        at = 0
        for _ in range(PAIRS):
            after = min(max(at + 1, self.index_of(2 * self.sizes[at])), len(self.sizes) - 1)
            if after == at or not self.fits(self.sizes[after]):
                break
            a, b, at = self.measured[self.sizes[at]], self.measured[self.sizes[after]], after
            try:
                self.pair = (a, b)
                found = self.predict(b.batch)
            except ValueError as error:
                self.pair, self.prediction = None, f"sizes could not be predicted ({error})"
                continue
            if self.predict(a.batch)["start_bytes"] == found["start_bytes"] and self.predicted[a.batch]["plain_bytes"] == found["plain_bytes"]:
                raise ValueError(f"argument step: step({a.batch}) and step({b.batch}) need the same bytes; does it use its argument?")
            self.prediction = f"sizes predicted from {a.batch} and {b.batch}"
            return
        self.prediction = self.prediction or "sizes found by running them"

    def index_of(self, batch):
        """Of the first size that is not below `batch`."""
        low, high = 0, len(self.sizes)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.sizes[middle] < batch else (low, middle)
        return low

    # Searching

    def last_that(self, holds, low, first_try):
        """Index of the last size for which holds(size), which falls once: at index `low` it holds. Doubling steps away from `first_try`, then bisection."""
        reach, high = 1, len(self.sizes)
        at = min(max(low, first_try), len(self.sizes) - 1)
        while low < high - 1:
            if at <= low or at >= high:
                at = (low + high) // 2
            if holds(self.sizes[at]):
                low = at
                at += reach
            else:
                high = at
                at -= reach
            reach *= 2
        return low

    def guess(self):
        """Index of the largest size that should fit. Between the measured sizes and plain's own limit, then as the planner says."""
        a, b = self.pair
        start = self.index_of(b.batch)
        wants = {x.batch: self.predict(x.batch) for x in (a, b)}
        plain = {n: w["start_bytes"] + w["plain_bytes"] for n, w in wants.items()}
        slope = (plain[b.batch] - plain[a.batch]) / (b.batch - a.batch)
        keeps_all = b.batch + (self.budget - plain[b.batch]) / slope if slope > 0 else self.sizes[-1]
        return self.last_that(lambda n: self.predict(n)["fits"], start, self.index_of(2 * max(b.batch, int(keeps_all))))

    def find_largest(self):
        """The last size that is predicted to fit, with a little room, and does when it is run."""
        known = max(self.index_of(n) for n in self.measured)
        if self.pair is None:
            return self.last_that(self.fits, known, known + 1)
        return self.last_that(lambda n: self.predict(n)["fits"] and self.fits(n), known, self.guess())

    def why_not_larger(self, at):
        if at + 1 == len(self.sizes):
            return "no larger size was asked for"
        after = self.sizes[at + 1]
        if after in self.failed:
            return f"batch {after} was run and did not fit"
        needed = self.predict(after)["needed_bytes"] if self.pair else 0
        return f"batch {after} should need {needed / MIB:.1f} MiB; {(self.budget - self.promised) / MIB:.1f} MiB of the budget are left for what differs between processes"

    def find_fastest(self, at):
        """Runs the sizes that should be fastest, alternating; the one with the best median."""
        top, last, largest = [], at, self.sizes[at]
        if self.pair:
            count = min(8, last + 1)
            spread = {round(math.exp(math.log(last + 1) * k / max(1, count - 1))) - 1 for k in range(count)}
            ranked = sorted((self.sizes[i] for i in spread), key=lambda n: -self.predict(n)["samples_per_second"])
            top = [n for n in ranked[:2] if self.fits(n)]
        rivals = sorted({largest, *top, max(self.measured, key=lambda n: self.rate(n))})
        for index in range(self.steps):
            for n in rivals[index % len(rivals):] + rivals[: index % len(rivals)]:
                self.step(n)    # another size ran before, and left other holes: not timed
                self.measured[n].seconds.append(self.run_step(n))
        return max(rivals, key=self.rate)

    def rate(self, batch):
        return batch / statistics.median(self.measured[batch].seconds)

    def row(self, batch):
        found = self.predict(batch) if self.pair else None
        rest = {"predicted_bytes": found["needed_bytes"], "predicted_samples_per_second": found["samples_per_second"]} if found else {}
        if batch in self.failed:
            return Batch(batch, False, smallest_budget=self.failed[batch], **rest)
        m = self.measured[batch]
        seconds = statistics.median(m.seconds)
        return Batch(batch, True, seconds, batch / seconds, m.flops / seconds / m.roof, m.peak, m.replayed, **rest)

    def run(self):
        self.measure_two()
        at = self.find_largest()
        fastest = self.find_fastest(at)
        tried = tuple(self.row(n) for n in sorted([*self.measured, *self.failed]))
        return Batches(self.budget, self.row(self.sizes[at]), self.row(fastest), tried, self.prediction, self.why_not_larger(at))


def largest_batch(step, budget, batches=None, *, model=None, policy="auto", steps=3):
    """The largest batch size that trains inside `budget`, and the one that trains most samples a second; returns a Batches.

    step: step(batch) runs one training step with that many samples: forward, backward and, if the budget is to cover it, the optimizer. It is really run, some ten
    times a size: save the model's state before, or build a new model afterwards. budget: as for auto_checkpoint. batches: the sizes to choose from, as in
    range(8, 257, 8); None: 1 to 1024. model: names Regions, as in auto_checkpoint. policy: "none" answers for training without recomputation. steps: timed for each size.
    Raises Infeasible where not even the smallest size fits. Afterwards nothing is capped or recorded any more, as after undo(); the generator of the CPU is as before.
    """
    if not callable(step):
        raise TypeError(f"argument step: {type(step).__name__} cannot be called; it takes a function of the batch size that runs one training step")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"argument steps: {steps!r} is no whole number of at least 1")
    if budget is None:
        raise ValueError("argument budget: None is no limit; it takes a number of bytes, a text like '8GiB' or '60%'")
    sizes: Sequence = _sizes(batches)
    state = torch.get_rng_state()
    try:
        return _Search(step, lambda: reprise.auto_checkpoint(model, budget, policy=policy), sizes, steps, policy).run()
    finally:
        reprise.undo(model)
        torch.set_rng_state(state)


def load_function(place):
    """The function that `script.py:function` or `package.module:function` names. The script's `if __name__ == "__main__":` part does not run."""
    where, colon, name = place.rpartition(":")
    if not colon or not where or not name:
        raise ValueError(f"argument place: {place!r} is no script.py:function")
    if where.endswith(".py"):
        if not pathlib.Path(where).is_file():
            raise ValueError(f"argument place: there is no file {where!r}")
        sys.path.insert(0, str(pathlib.Path(where).resolve().parent))
        spec = importlib.util.spec_from_file_location(pathlib.Path(where).stem, where)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        module = importlib.import_module(where)
    if not callable(getattr(module, name, None)):
        raise ValueError(f"argument place: {where!r} has no function {name!r}")
    return getattr(module, name)


def read_sizes(text):
    """"8:257:8" or "4,8,16"."""
    try:
        if ":" in text:
            return range(*(int(part) for part in text.split(":")))
        return [int(part) for part in text.split(",")]
    except (TypeError, ValueError):
        raise ValueError(f"argument --batches: {text!r} is neither FIRST:END:STEP, as in a range of Python, nor sizes with commas") from None


def parser():
    p = argparse.ArgumentParser(prog="python -m reprise largest-batch", description=__doc__.split("\n\n")[0])
    p.add_argument("place", metavar="script.py:function", help="function(batch) runs one training step with that many samples; it is really run")
    p.add_argument("--budget", required=True, help='bytes, "2GiB" or "60%%"')
    p.add_argument("--batches", metavar="SIZES", help="8:257:8 (a range, the end excluded) or 4,8,16 (default: 1 to %s)" % MOST)
    p.add_argument("--policy", default="auto", help='"none": without recomputation (default %(default)s)')
    p.add_argument("--steps", type=int, default=3, help="timed steps for each size (default %(default)s)")
    p.add_argument("--json", metavar="FILE", help="write what was found as JSON")
    return p


def main(arguments):
    args = parser().parse_args(arguments)
    _core.install()     # before the script makes its tensors
    try:
        found = largest_batch(load_function(args.place), args.budget, args.batches and read_sizes(args.batches), policy=args.policy, steps=args.steps)
    except (TypeError, ValueError, reprise.Infeasible) as error:
        if not isinstance(error, reprise.Infeasible) and not str(error).startswith(("argument ", "budget", "scheme")):
            raise   # the script's own
        print(f"reprise largest-batch: {error}", file=sys.stderr)
        return 2
    print(found)
    if args.json:
        pathlib.Path(args.json).write_text(found.to_json() + "\n", encoding="utf-8")
    return 0
