"""Predicted against measured peaks: 6 models x 5 budgets. The Profile comes from a Pass under `none`; each Plan's prediction is on disk before its first step.

usage: ./dev bench prediction [--json FILE] [--models NAME…]   What is named infeasible is tried (it has to fail), and the smallest budget named has to work."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

MODELS = ("gpt", "gpt_drop", "llama", "bert_drop", "resnet50", "unet")
FRACTIONS = (0.9, 0.7, 0.5, 0.35, 0.2)
MIB = 1 << 20


def step(bench):
    bench.loss(bench.model, bench.batch).backward()
    bench.model.zero_grad(set_to_none=False)


def profile_of(bench):
    """The Profile of a Pass in which everything was kept, plain's activation bytes and the bytes live at a step's start."""
    import reprise

    reprise.auto_checkpoint(bench.model, "100%", policy="none")
    for _ in range(4):
        reprise.reset_peaks()
        start = reprise.memory_stats()["live_bytes"]
        step(bench)
    added = reprise.memory_stats()["peak_live_bytes"] - start
    profile = reprise.profile()
    reprise.undo()
    return profile, start, added


def cell(bench, profile, budget, notes):
    """One Plan: prediction written, steps taken, figures returned."""
    import reprise

    try:
        plan = reprise.plan(budget, policy="auto")
    except reprise.Infeasible as error:
        return {"infeasible": True, "smallest_budget": error.smallest_budget, "fails": fails(bench, budget), "smallest_works": works(bench, error.smallest_budget)}
    predicted = json.loads(plan.to_json())["body"]["predicted_live_bytes"]
    notes.write_text(json.dumps({"budget": budget, "predicted_live_bytes": predicted}), encoding="utf-8")
    reprise.auto_checkpoint(bench.model, budget)
    reprise.apply(plan, bench.model)
    peaks, held = [], True
    for _ in range(3):
        reprise.reset_peaks()
        start = reprise.memory_stats()["live_bytes"]
        step(bench)
        stats = reprise.memory_stats()
        peaks.append(stats["peak_live_bytes"] - start)
        held &= stats["peak_reserved_bytes"] <= budget
    reprise.undo()
    return {"infeasible": False, "predicted": json.loads(notes.read_text(encoding="utf-8"))["predicted_live_bytes"], "measured": max(peaks), "cap_held": held}


def works(bench, budget):
    import reprise

    try:
        reprise.auto_checkpoint(bench.model, budget)
        for _ in range(3):
            step(bench)
        return True
    except reprise.Infeasible:
        return False
    finally:
        reprise.undo()
        bench.model.zero_grad(set_to_none=False)


def fails(bench, budget):
    return not works(bench, budget)


def one_model(name):
    """Runs in a process of its own: prints a JSON row per cell."""
    import torch

    torch.set_num_threads(2)
    import models

    torch.manual_seed(0)
    bench = models.MODELS[name]()
    for parameter in bench.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    profile, start, added = profile_of(bench)
    with tempfile.TemporaryDirectory() as folder:
        for fraction in FRACTIONS:
            budget = int(1.02 * (start + fraction * added))
            row = cell(bench, profile, budget, pathlib.Path(folder) / "prediction.json")
            print(json.dumps({"model": name, "fraction": fraction, "budget": budget, "activation_bytes": added, **row}), flush=True)


def show(row):
    head = f"{row['model']:10} {row['fraction']:4.0%} of {row['activation_bytes'] / MIB:7.1f} MiB  "
    if row["infeasible"]:
        return head + f"infeasible (true: {row['fails']}); smallest {row['smallest_budget'] / MIB:.1f} MiB works: {row['smallest_works']}"
    row["error"] = abs(row["predicted"] - row["measured"]) / row["measured"]
    return head + f"predicted {row['predicted'] / MIB:7.2f}  measured {row['measured'] / MIB:7.2f} MiB  error {row['error']:6.2%}  cap held: {row['cap_held']}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return one_model(args.one)
    rows = []
    for name in args.models:
        run = subprocess.run([sys.executable, __file__, "--one", name], stdout=subprocess.PIPE, text=True, check=True)
        for text in run.stdout.splitlines():
            if text.startswith("{"):
                rows.append(json.loads(text))
                print(show(rows[-1]), flush=True)
    errors = [r["error"] for r in rows if "error" in r]
    print(f"{len(rows)} cells, {len(errors)} feasible: error median {statistics.median(errors):.2%} (wanted <= 1 %), max {max(errors):.2%} (wanted <= 3 %), "
          f"cap held in {sum(r['cap_held'] for r in rows if 'error' in r)}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
