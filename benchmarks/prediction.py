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


def learn(bench):
    """Learns from Passes in which everything was kept: bytes live at a step's start, and plain's activation bytes."""
    import reprise

    reprise.auto_checkpoint(bench.model, "100%", policy="none")
    for _ in range(4):
        start, added = measured_step(bench)[:2]
    return start, added


def measured_step(bench):
    """(live at the start, bytes added at the peak, peak of reserved bytes) of one step."""
    import reprise

    reprise.reset_peaks()
    start = reprise.memory_stats()["live_bytes"]
    step(bench)
    stats = reprise.memory_stats()
    return start, stats["peak_live_bytes"] - start, stats["peak_reserved_bytes"]


def predict(limit, notes):
    """The Plan for `limit` activation bytes, its prediction written down before any step under it; or what made it infeasible."""
    import reprise

    try:
        plan = reprise.plan(limit, policy="auto")
    except RuntimeError as error:
        return None, error
    notes.write_text(json.dumps({"limit": limit, "predicted_live_bytes": plan.data["body"]["predicted_live_bytes"]}), encoding="utf-8")
    return plan, None


def budget_for(start, limit):
    """Of reserved bytes: what is live before the step and the limit, with room for the rounding of pieces."""
    return int(1.02 * (start + limit)) + 256 * 1024


def cell(bench, start, limit, notes):
    """One Plan: prediction written, steps taken under it, then steps under the budget that it belongs to."""
    import reprise

    learn(bench)
    plan, error = predict(limit, notes)
    budget = budget_for(start, limit)
    if plan is None:
        smallest = getattr(error, "smallest_budget", None)   # in the unit of the limit: activation bytes
        return {"infeasible": True, "text": str(error), "fails": not works(bench, budget), "smallest_budget": smallest,
                "smallest_works": bool(smallest) and works(bench, budget_for(start, smallest))}
    reprise.apply(plan, bench.model)
    peaks = [measured_step(bench)[1] for _ in range(3)]
    reserved, raised = under_budget(bench, budget)
    return {"infeasible": False, "predicted": json.loads(notes.read_text(encoding="utf-8"))["predicted_live_bytes"], "measured": max(peaks),
            "budget": budget, "reserved": reserved, "raised": raised, "cap_held": raised is None and reserved <= budget}


def under_budget(bench, budget):
    """Four steps from learning on: highest reserved bytes, and the out-of-memory error that ended them or None."""
    import reprise

    highest = 0
    try:
        reprise.auto_checkpoint(bench.model, budget)
        for _ in range(4):
            highest = max(highest, measured_step(bench)[2])
        return highest, None
    except RuntimeError as error:
        return highest, str(error)
    finally:
        reprise.undo()
        bench.model.zero_grad(set_to_none=False)


def works(bench, budget):
    import reprise

    try:
        reprise.auto_checkpoint(bench.model, budget)
        for _ in range(3):
            step(bench)
        return True
    except RuntimeError:   # Infeasible is one
        return False
    finally:
        reprise.undo()
        bench.model.zero_grad(set_to_none=False)


def one_model(name):
    """Runs in a process of its own: prints a JSON row per cell."""
    import torch

    torch.set_num_threads(2)
    import models

    torch.manual_seed(0)
    bench = models.MODELS[name]()
    for parameter in bench.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    start, added = learn(bench)
    with tempfile.TemporaryDirectory() as folder:
        for fraction in FRACTIONS:
            row = cell(bench, start, int(fraction * added), pathlib.Path(folder) / "prediction.json")
            print(json.dumps({"model": name, "fraction": fraction, "activation_bytes": added, **row}), flush=True)


def show(row):
    head = f"{row['model']:10} {row['fraction']:4.0%} of {row['activation_bytes'] / MIB:7.1f} MiB  "
    if row["infeasible"]:
        return head + f"infeasible (true: {row['fails']}): {row['text']}; smallest {row['smallest_budget']} works: {row['smallest_works']}"
    row["error"] = abs(row["predicted"] - row["measured"]) / row["measured"]
    return head + f"predicted {row['predicted'] / MIB:7.2f}  measured {row['measured'] / MIB:7.2f} MiB  error {row['error']:6.2%}  cap held: {row['cap_held']}{'; ' + row['raised'] if row['raised'] else ''}"


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
    middle = statistics.median(errors)
    print(f"{len(rows)} cells, {len(errors)} feasible: error median {middle:.2%} (wanted <= 1 %), max {max(errors):.2%} (wanted <= 3 %), "
          f"cap held in {sum(r['cap_held'] for r in rows if 'error' in r)}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    wrong = [r for r in rows if (not r["fails"] or not r["smallest_works"] if r["infeasible"] else not r["cap_held"])]
    return 1 if wrong or middle > 0.01 or max(errors) > 0.03 else 0


if __name__ == "__main__":
    sys.exit(main())
