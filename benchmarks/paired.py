"""Paired measurements: two or more processes take one training step each in turn; what counts is the ratio within a round.

A Worker is a process with a model, a way to train it (a recipe) and its own allocator. Times are CPU seconds (user and system) of the whole process.

Models: those of models.py (a step is forward and backward) and `demo`, the GPT of `./dev demo` with its optimizer.
Recipes: plain | checkpoint | checkpoint_attention | a reprise policy such as per_block, none, auto. With a limit (activation bytes), the policy's Plan for
that limit is made after three steps in which everything is kept, and followed from then on. `budget` caps the whole process; `batch` and `length` are the demo's; `settings`: more of the environment."""

import json
import math
import os
import statistics
import subprocess
import sys
import time

THREADS = 1


class Worker:
    """One process; step() makes it take a step and returns {"cpu": seconds, "wall": seconds, "peak": activation bytes, …}."""

    def __init__(self, model, recipe, limit=None, resident=True, allocator="reprise", budget="100%", batch=None, length=None, settings=None):
        self.label = f"{model}/{recipe}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
        environment.update(REPRISE="1" if allocator == "reprise" else "0", OMP_NUM_THREADS=str(THREADS), TRANSFORMERS_VERBOSITY="error", REPRISE_LOG="0", **(settings or {}))
        request = json.dumps({"model": model, "recipe": recipe, "limit": limit, "resident": resident, "allocator": allocator, "budget": budget, "batch": batch, "length": length})
        self.process = subprocess.Popen([sys.executable, __file__, request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def ask(self, what):
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.label}: the worker ended with status {self.process.wait()}")
        return json.loads(line)

    def step(self):
        return self.ask("step")

    def operators(self):
        """{"operators": N, "seconds": S} of one step that is not timed: the operators that ran (views apart), those run again included, and their own time."""
        return self.ask("operators")

    def warm_up(self, steps=5):
        """Learning Pass, planned Passes; returns the last row."""
        return [self.step() for _ in range(steps)][-1]

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def interval(values):
    """Median with a distribution-free 95 % interval: order statistics whose ranks a binomial count leaves with probability below 5 %."""
    ordered, n = sorted(values), len(values)
    low = 0
    while 2 * sum(math.comb(n, k) for k in range(low + 2)) / 2 ** n <= 0.05:
        low += 1
    return statistics.median(ordered), ordered[low], ordered[n - 1 - low]


def rounds(workers, count, key="cpu"):
    """`count` rows with one step of each worker; the order changes from row to row."""
    found = []
    for index in range(count):
        first = index % len(workers)
        order = [*range(first, len(workers)), *range(first)]
        row = {i: workers[i].step()[key] for i in order}
        found.append([row[i] for i in range(len(workers))])
    return found


def ratios(first, second, pairs=15, key="cpu"):
    """first's step over second's, in `pairs` pairs whose order alternates."""
    return [a / b for a, b in rounds([first, second], pairs, key)]


def verdict_on(values, bound):
    """A ratio holds if its whole interval lies below the bound + 0.01; one whose median alone does is not shown."""
    middle, _, high = interval(values)
    return "yes" if high < bound + 0.01 else "not shown" if middle <= bound else "NO"


def line(name, values, bound=None):
    middle, low, high = interval(values)
    verdict = "" if bound is None else f"   wanted <= {bound}: {verdict_on(values, bound)}"
    return f"{name:70} {middle:.4f}  [{low:.4f}, {high:.4f}]  {len(values)} rounds{verdict}"


class Job:
    """The worker's side: the model armed as the recipe says, and its step."""

    def __init__(self, request):
        import torch

        torch.set_num_threads(THREADS)
        import models

        torch.manual_seed(0)
        self.resident = request["resident"]
        if request["model"] == "demo":
            from reprise import demo

            self.run = demo.Run(demo.Settings(batch=request["batch"] or demo.Settings.batch, length=request["length"] or demo.Settings.length))
            self.model, stack = self.run.model, self.run.model.layers
        else:
            self.run = None
            self.bench = models.MODELS[request["model"]]()
            self.model, stack = self.bench.model, self.bench.stack
        self.arm(models, stack, request)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter) if self.resident else None

    def arm(self, models, stack, request):
        recipe = request["recipe"]
        if recipe == "checkpoint":
            models.wrap_blocks(stack)
        elif recipe == "checkpoint_attention":
            models.wrap_blocks(stack, context_fn=models.keeping_attention)
        elif recipe != "plain":
            import reprise

            reprise.auto_checkpoint(self.model, request["budget"], policy="none" if request["limit"] else recipe)

    def work(self):
        """What is timed; returns the loss."""
        if self.run:
            return self.run.step()
        loss = self.bench.loss(self.bench.model, self.bench.batch)
        loss.backward()
        return loss.item()

    def after(self):
        if not self.run:
            self.model.zero_grad(set_to_none=not self.resident)


def count_operators(job):
    """Runs one step and counts what the dispatcher is asked for. What our engine replays runs below this and is added by its own counter."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Counting(TorchDispatchMode):
        operators, seconds = 0, 0.0

        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            began = time.process_time()
            result = operator(*args, **(kwargs or {}))
            if not operator.is_view:
                self.operators, self.seconds = self.operators + 1, self.seconds + time.process_time() - began
            return result

    with Counting() as mode:
        job.work()
    job.after()
    return {"operators": mode.operators, "seconds": mode.seconds}


def measured_step(job, stats, counters):
    before, replayed, cpu, wall = stats(), counters(), time.process_time(), time.perf_counter()
    loss = job.work()
    row = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "loss": loss}
    after = stats()
    if after:
        row.update(peak=after["peak_live_bytes"] - before["live_bytes"], start=before["live_bytes"], reserved=after["peak_reserved_bytes"])
        row["replayed"] = counters().get("replayed", 0) - replayed.get("replayed", 0)
    job.after()
    return row


def serve(request):
    job = Job(request)
    stats = counters = dict
    if request["allocator"] == "reprise":
        import reprise

        stats, counters = reprise.memory_stats, reprise.counters
    steps = 0
    for command in sys.stdin:
        if command.strip() == "operators":
            print(json.dumps(count_operators(job)), flush=True)
            continue
        if steps == 3 and request["limit"]:
            plan = reprise.plan(request["limit"], policy=request["recipe"])
            reprise.apply(plan, job.model)
        steps += 1
        if stats():
            reprise.reset_peaks()
        row = measured_step(job, stats, counters)
        if steps > 3 and request["limit"]:
            row["planned_seconds"] = plan.data["body"]["added_seconds"]
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
