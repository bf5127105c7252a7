"""Planned placement: reserved over live bytes, of lifetimes read from files and of our own steps.

usage: ./dev bench placement [--traces DIR] [--models NAME…] [--shares SHARE…] [--steps N] [--best-fit] [--json FILE]
Files (id,lower,upper,size): the peak of live bytes is the bound; then what best fit without a plan reaches (allocator core, no cap), the least cap under which it
completes, and what the placement reserves; ten steps of varying length without a plan. minimalloc-* have a capacity of 1,048,576 bytes that they have to be placed within.
Steps: each model trains in a process of its own at shares of plain's activation bytes; the highest reserved / peak live of any step from the fourth on, with gradients that
stay (kept) and that are freed after each step (freed); by how many bytes the peak of reserved bytes grew after the third step; requests at their planned places, and others
(hits, misses; --best-fit: without, by REPRISE_PLACEMENT=0); bytes that went to the temporary file. No figure here is a time."""

import argparse
import glob
import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD", ROOT / "build"))
MODELS = ("demo", "gpt", "bert_drop", "resnet50", "unet")
SHARES = (1.2, 0.7, 0.5)
KIB = 1 << 10


class Demo:
    """The demo's training run, with its AdamW and a fresh batch for every step."""

    def __init__(self):
        from reprise import demo

        self.run = demo.Run(demo.parser().parse_args([]))
        self.model = self.run.model


def step(bench, freed):
    import reprise

    reprise.reset_peaks()
    if isinstance(bench, Demo):
        bench.run.step()
    else:
        bench.loss(bench.model, bench.batch).backward()
    if freed or not isinstance(bench, Demo):
        bench.model.zero_grad(set_to_none=freed)
    return reprise.memory_stats()


def one(name, share, freed, steps):
    """In a process of its own: one JSON row."""
    import torch

    torch.set_num_threads(1)
    import models
    import reprise

    torch.manual_seed(0)
    bench = Demo() if name == "demo" else models.MODELS[name]()
    reprise.auto_checkpoint(bench.model, "100%", policy="none")
    for _ in range(3):
        start = reprise.memory_stats()["live_bytes"]
        stats = step(bench, freed)
    budget = int(1.02 * (start + share * (stats["peak_live_bytes"] - start))) + 256 * KIB
    reprise.undo()
    row = {"model": name, "share": share, "freed": freed, "budget": budget}
    try:
        reprise.auto_checkpoint(bench.model, budget)
        rows = [step(bench, freed) for _ in range(steps)]
    except RuntimeError as error:
        print(json.dumps(row | {"raised": str(error)}))
        return
    late = rows[3:]
    hits, misses = (late[-1].get(k, 0) - rows[2].get(k, 0) for k in ("planned_hits", "planned_misses"))
    print(json.dumps(row | {"ratios": [r["peak_reserved_bytes"] / r["peak_live_bytes"] for r in rows], "worst": max(r["peak_reserved_bytes"] / r["peak_live_bytes"] for r in late),
                            "over": max(r["peak_reserved_bytes"] for r in rows) > budget, "grew": max(r["peak_reserved_bytes"] for r in late) - rows[2]["peak_reserved_bytes"],
                            "hits": hits, "misses": misses, "overflow": reprise.counters()["overflow_bytes"]}))


def own_steps(arguments):
    rows = []
    print(f"{'model':10} {'share':>5} {'gradients':9} {'reserved/live':>13} {'by step':47} {'grew':>9} {'hits':>7} {'misses':>6} {'overflow':>9}")
    for name in arguments.models:
        for share in arguments.shares:
            for freed in (False, True):
                out = subprocess.run([sys.executable, __file__, "--one", name, str(share), str(int(freed)), "--steps", str(arguments.steps)], capture_output=True, text=True,
                                     env={**os.environ, "REPRISE": "1", "REPRISE_LOG": "0", "OMP_NUM_THREADS": "1", "REPRISE_PLACEMENT": "0" if arguments.best_fit else "1"}, cwd=ROOT / "benchmarks")
                if out.returncode != 0:
                    sys.exit(f"{name}: {out.stderr[-2000:]}")
                row = json.loads(out.stdout.splitlines()[-1])
                rows.append(row)
                how = f"{name:10} {share:5.2f} {'freed' if freed else 'kept':9}"
                if "raised" in row:
                    print(f"{how} {row['raised'][:110]}")
                    continue
                print(f"{how} {row['worst']:13.4f} {' '.join(f'{r:.3f}' for r in row['ratios'][:8]):47} {max(0, row['grew']):9} {row['hits']:7} {row['misses']:6} {row['overflow']:9}"
                      + (" OVER THE CAP" if row["over"] else ""), flush=True)
    return rows


def variable():
    out = subprocess.run([BUILD / "policy" / "reprise_placement", "--variable"], stdout=subprocess.PIPE, text=True, check=True)
    row = json.loads(out.stdout)
    print(f"ten steps of varying length, no plan: reserved / peak live {row['best_fit'] / row['peak']:.4f}")
    return row


def traces(folder):
    files = sorted(glob.glob(f"{folder}/*.csv"))
    if not files:
        print(f"no lifetimes in {folder}: only our own steps")
        return []
    out = subprocess.run([BUILD / "policy" / "reprise_placement", *files], stdout=subprocess.PIPE, text=True, check=True)
    rows = [json.loads(line) for line in out.stdout.splitlines()]
    print(f"{'lifetimes':22} {'pieces':>6} {'peak live':>13} {'best fit':>8} {'least cap':>9} {'placed':>8} {'total':>13}")
    for r in rows:
        within = "" if r["capacity"] == 0 else " within its capacity" if r["total"] <= r["capacity"] else " OVER ITS CAPACITY"
        print(f"{r['name']:22} {r['pieces']:6} {r['peak']:13} {r['best_fit'] / r['peak']:8.4f} {r['least_cap'] / r['peak']:9.4f} {r['total'] / r['peak']:8.4f} {r['total']:13}{within}")
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--traces", default="")
    parser.add_argument("--models", nargs="*", default=MODELS)
    parser.add_argument("--shares", nargs="*", type=float, default=SHARES)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--best-fit", action="store_true", help="train without planned places")
    parser.add_argument("--json")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "SHARE", "FREED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], float(arguments.one[1]), arguments.one[2] == "1", arguments.steps)
        return
    rows = {"variable": variable(), "traces": traces(arguments.traces) if arguments.traces else [], "steps": own_steps(arguments)}
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
