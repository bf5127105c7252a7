"""Paired measurements: two or more processes take one training step each in turn; what counts is the ratio within a pair.

A Worker is a process with a model, a way to train it (a recipe) and its own allocator. Times are CPU seconds (user and system) of the whole process.

Recipes: plain | checkpoint | checkpoint_attention | a reprise policy such as per_block, none, auto. With a limit (activation bytes), the policy's Plan for
that limit is made after three steps in which everything is kept, and followed from then on."""

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

    def __init__(self, model, recipe, limit=None, resident=True, allocator="reprise"):
        self.label = f"{model}/{recipe}"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
        environment.update(REPRISE="1" if allocator == "reprise" else "0", OMP_NUM_THREADS=str(THREADS), TRANSFORMERS_VERBOSITY="error")
        request = json.dumps({"model": model, "recipe": recipe, "limit": limit, "resident": resident, "allocator": allocator})
        self.process = subprocess.Popen([sys.executable, __file__, request], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.label}: the worker ended with status {self.process.wait()}")
        return json.loads(line)

    def warm_up(self, steps=4):
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


def ratios(first, second, pairs=15, key="cpu"):
    """first's step over second's, in `pairs` pairs whose order alternates."""
    found = []
    for index in range(pairs):
        if index % 2:
            b, a = second.step(), first.step()
        else:
            a, b = first.step(), second.step()
        found.append(a[key] / b[key])
    return found


def line(name, values, bound=None):
    middle, low, high = interval(values)
    verdict = "" if bound is None else f"   wanted <= {bound}: {'yes' if middle <= bound else 'NO'}"
    return f"{name:66} {middle:.4f}  [{low:.4f}, {high:.4f}]  {len(values)} pairs{verdict}"


def prepare(request):
    """The worker's side: the model armed as the recipe says, and its step."""
    import torch

    torch.set_num_threads(THREADS)
    import models

    torch.manual_seed(0)
    bench = models.MODELS[request["model"]]()
    recipe = request["recipe"]
    if recipe == "checkpoint":
        models.wrap_blocks(bench)
    elif recipe == "checkpoint_attention":
        models.wrap_blocks(bench, context_fn=models.keeping_attention)
    elif recipe != "plain":
        import reprise

        reprise.auto_checkpoint(bench.model, "100%", policy="none" if request["limit"] else recipe)
    for parameter in bench.model.parameters():
        parameter.grad = torch.zeros_like(parameter) if request["resident"] else None
    return bench


def serve(request):
    bench = prepare(request)
    stats = dict
    if request["allocator"] == "reprise":
        import reprise

        stats = reprise.memory_stats
    for index, _ in enumerate(sys.stdin):
        if index == 3 and request["limit"]:
            reprise.apply(reprise.plan(request["limit"], policy=request["recipe"]), bench.model)
        if stats():
            reprise.reset_peaks()
        before, cpu, wall = stats(), time.process_time(), time.perf_counter()
        loss = bench.loss(bench.model, bench.batch)
        loss.backward()
        row = {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall, "loss": loss.item()}
        del loss
        after = stats()
        if after:
            row.update(peak=after["peak_live_bytes"] - before["live_bytes"], start=before["live_bytes"], reserved=after["peak_reserved_bytes"])
        bench.model.zero_grad(set_to_none=not request["resident"])
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
