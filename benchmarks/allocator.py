"""Our allocator beside stock torch and the heaps that others preload: whole training steps, page faults, memory, and a warm malloc + free pair.

usage: ./dev bench allocator [--pairs N] [--models gpt cnn mlp] [--part steps|pairs] [--json FILE]
Every heap has a process of its own, one thread; in each round every process takes one step (forward, backward, AdamW), in an order that moves on.
What counts is the ratio of CPU time within a round: median [95 % interval]. Faults are those of the median step; memory is the process's peak (VmHWM)."""

import argparse
import glob
import json
import math
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

from paired import THREADS, Worker, interval, line

MIB = 1 << 20
FOREVER = str(1 << 40)
MODELS = {"gpt": "gpt", "cnn": "resnet50", "mlp": "mlp"}
# name: (library to preload, environment), tuned to keep what they have
HEAPS = {
    "ours": (None, {"REPRISE": "1"}),
    "stock": (None, {}),
    "glibc, no mmap": (None, {"MALLOC_MMAP_MAX_": "0", "MALLOC_MMAP_THRESHOLD_": str(32 * MIB), "MALLOC_TRIM_THRESHOLD_": FOREVER, "MALLOC_TOP_PAD_": str(64 * MIB)}),
    "tcmalloc": ("libtcmalloc_minimal.so.4", {"TCMALLOC_RELEASE_RATE": "0"}),
    "jemalloc, no decay": ("libjemalloc.so.2", {"MALLOC_CONF": "dirty_decay_ms:-1,muzzy_decay_ms:-1"}),
    "mimalloc, no decommit": ("libmimalloc.so.2", {"MIMALLOC_ALLOW_DECOMMIT": "0", "MIMALLOC_PAGE_RESET": "0"}),
}


def preload(library):
    found = glob.glob(f"/usr/lib/*/{library}") + glob.glob(f"/usr/lib/{library}") + glob.glob(f"/usr/local/lib/{library}")
    return found[0] if found else None


def environment(heap, tuned=True):
    """None when its library is not installed."""
    library, settings = HEAPS[heap]
    settings = settings if tuned else {}
    out = {k: v for k, v in os.environ.items() if not k.startswith(("REPRISE", "MALLOC_", "TCMALLOC_", "MIMALLOC_", "LD_PRELOAD"))}
    out.update(settings, OMP_NUM_THREADS=str(THREADS), TRANSFORMERS_VERBOSITY="error", REPRISE_LOG="0")
    if library:
        path = preload(library)
        if path is None:
            return None
        out["LD_PRELOAD"] = path
    return out


class HeapWorker(Worker):
    """A process with a model on one heap."""

    def __init__(self, model, heap):   # not Worker's: the request and the environment differ
        self.label = f"{model}/{heap}"
        self.process = subprocess.Popen([sys.executable, __file__, "--serve", MODELS[model]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(heap))


def peak_memory():
    for text in pathlib.Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if text.startswith("VmHWM:"):
            return int(text.split()[1]) * 1024
    raise RuntimeError("no VmHWM in /proc/self/status")


def serve(name):
    import torch

    torch.set_num_threads(THREADS)
    import models

    torch.manual_seed(0)
    bench = models.MODELS[name]()
    optimizer = torch.optim.AdamW(bench.model.parameters(), lr=1e-4)
    ours, counted = None, 0
    if os.environ.get("REPRISE") == "1":
        import reprise as ours
    for _ in sys.stdin:
        before, cpu = resource.getrusage(resource.RUSAGE_SELF), time.process_time()
        optimizer.zero_grad()
        loss = bench.loss(bench.model, bench.batch)
        loss.backward()
        optimizer.step()
        cpu = time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_SELF)
        row = {"cpu": cpu, "system": after.ru_stime - before.ru_stime, "faults": after.ru_minflt - before.ru_minflt, "loss": loss.item(), "memory": peak_memory()}
        del loss
        if ours:
            stats = ours.memory_stats()
            row["waste"] = stats["peak_reserved_bytes"] - stats["peak_live_bytes"]
            row["allocations"] = stats["allocations"] - counted
            counted = stats["allocations"]
        print(json.dumps(row), flush=True)


def rounds(model, heaps, pairs):
    """{heap: rows}, one row a round; who goes first moves on."""
    workers = {heap: HeapWorker(model, heap) for heap in heaps}
    try:
        for worker in workers.values():
            worker.warm_up(5)
        rows = {heap: [] for heap in heaps}
        for index in range(pairs):
            for heap in heaps[index % len(heaps):] + heaps[:index % len(heaps)]:
                rows[heap].append(workers[heap].step())
        return rows
    finally:
        for worker in workers.values():
            worker.close()


def judged(name, values, bound):
    """The line, and whether the bound holds: only if the whole interval lies below it + 0.01."""
    _, low, high = interval(values)
    verdict = "yes" if high < bound + 0.01 else "NO" if low > bound else "not shown"
    return f"{line(name, values)}   wanted <= {bound}: {verdict}"


def ratio(rows, first, second):
    return [a["cpu"] / b["cpu"] for a, b in zip(rows[first], rows[second])]


def steps(pairs, names, out):
    heaps = [heap for heap in HEAPS if environment(heap) is not None]
    for heap in set(HEAPS) - set(heaps):
        print(f"not measured: {heap}: {HEAPS[heap][0]} is not installed", flush=True)
    middles = []
    for model in names:
        rows = rounds(model, heaps, pairs)
        losses = {row["loss"] for row in (each[-1] for each in rows.values())}
        for heap in heaps:
            share = ratio(rows, heap, "stock")
            name = f"{model}: {heap} over stock"
            print(judged(name, share, 0.96) if heap == "ours" else line(name, share),
                  f"  faults a step {statistics.median(r['faults'] for r in rows[heap]):8.0f}   peak memory {rows[heap][-1]['memory'] / MIB:7.1f} MiB", flush=True)
        best = min((h for h in heaps if h not in ("ours", "stock")), key=lambda h: statistics.median(ratio(rows, h, "stock")))
        print(judged(f"{model}: ours over the best peer, {best}", ratio(rows, "ours", best), 1.01))
        faults = [statistics.median(r["faults"] for r in rows[h]) for h in ("ours", "stock")]
        memory = [rows[h][-1]["memory"] for h in ("ours", "stock")]
        print(f"{model}: page faults {faults[0]:.0f} of {faults[1]:.0f} ({100 * faults[0] / max(1, faults[1]):.2f} %, wanted <= 1 %)   "
              f"peak memory over stock {memory[0] / memory[1]:.3f} (wanted <= 0.90)   losses of all heaps {'equal' if len(losses) == 1 else 'DIFFER'}", flush=True)
        # What no allocator can go below: the same process without a byte reserved beyond what is live, and without the time that malloc and free take here.
        last = rows["ours"][-1]
        print(f"{model}: without any waste, ours would peak at {(memory[0] - last['waste']) / memory[1]:.3f} of stock's memory; "
              f"{last['allocations']} allocations a step of {1e3 * statistics.median(r['cpu'] for r in rows['ours']):.0f} ms", flush=True)
        in_kernel = statistics.median(r["system"] / r["cpu"] for r in rows["stock"])
        print(f"{model}: stock spends {in_kernel:.3f} of its step in the kernel: an allocator that took nothing and never faulted would come to {1 - in_kernel:.3f} of stock, "
              "but for what addresses do to the caches", flush=True)
        middles.append(statistics.median(ratio(rows, "ours", "stock")))
        out[model] = rows
    mean = math.exp(sum(math.log(m) for m in middles) / len(middles))
    print(f"geometric mean of ours over stock: {mean:.4f} (wanted <= 0.92: {'yes' if mean <= 0.92 else 'NO'}), largest {max(middles):.4f} (wanted <= 0.96)", flush=True)


def pair_times(program, which, heap):
    """{bytes: nanoseconds} of one run. tcmalloc as it comes: told to keep everything, its large pairs take twice as long."""
    text = subprocess.run([program, which, "--rounds", "3"], env=environment(heap, tuned=False), capture_output=True, text=True, check=True).stdout
    return {int(bytes_): float(nanoseconds) for bytes_, nanoseconds in (row.split() for row in text.splitlines())}


def pair(pairs, out):
    """Ours over tcmalloc for each size, in alternating runs."""
    if environment("tcmalloc") is None:
        print("not measured: the warm pair: tcmalloc is not installed")
        return
    program = pathlib.Path(os.environ["REPRISE_BUILD"]) / "benchmarks" / "reprise_allocator_pairs"
    runs = []
    for index in range(pairs):
        order = [("ours", "ours"), ("malloc", "tcmalloc")]
        found = {which: pair_times(program, which, heap) for which, heap in (order if index % 2 == 0 else order[::-1])}
        runs.append((found["ours"], found["malloc"]))
    for size in runs[0][0]:
        ours, theirs = ([run[i][size] for run in runs] for i in (0, 1))
        print(judged(f"warm malloc + free of {size} bytes, ours over tcmalloc", [a / b for a, b in zip(ours, theirs)], 1.0),
              f"  {statistics.median(ours):.2f} against {statistics.median(theirs):.2f} ns", flush=True)
    out["pair"] = runs


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--part", choices=["all", "steps", "pairs"], default="all")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        return serve(args.serve)
    if args.pairs < 6:
        sys.exit("allocator: --pairs must be at least 6, or there is no 95 % interval")
    out = {}
    if args.part in ("all", "pairs"):
        pair(args.pairs, out)
    if args.part in ("all", "steps"):
        steps(args.pairs, args.models, out)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(out, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
