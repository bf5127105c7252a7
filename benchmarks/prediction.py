"""Predicted against measured peaks and times. The Profile comes from Passes under `none`; each Plan's prediction is on disk before its first step.

usage: ./dev bench prediction [--json FILE] [--models NAME…] [--many]
Added time: predicted / spent on replays and packed forms in the steps themselves (and what whole steps took longer than plain ones: noise of a shared machine is in that).
Twice: by the learning Pass alone, before any step under a Plan; and, under the budget, by the medians that SETTLED steps have fed back, for the steps after them.
6 models x 5 budgets; --many: 9 x 7. What is named infeasible is tried (it has to fail), and the smallest budget named has to work. One thread."""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

MODELS = ("gpt", "gpt_drop", "llama", "bert_drop", "resnet50", "unet")
FRACTIONS = (0.9, 0.7, 0.5, 0.35, 0.2)
MANY_MODELS = ("gpt", "gpt_drop", "chain", "llama", "bert_drop", "resnet50", "vit", "unet", "mlp")
MANY_FRACTIONS = (0.9, 0.75, 0.6, 0.5, 0.35, 0.25, 0.2)
SETTLED, CHECKED = 14, 6     # steps under a budget: until the last search of its own accord is done; those that its prediction is held against
MIB = 1 << 20


def step(bench):
    bench.loss(bench.model, bench.batch).backward()
    bench.model.zero_grad(set_to_none=False)


def learn(bench):
    """Learns from Passes in which everything was kept: bytes live at a step's start, plain's activation bytes, and its CPU seconds."""
    import reprise

    reprise.auto_checkpoint(bench.model, "100%", policy="none")
    rows = [measured_step(bench) for _ in range(6)]
    return rows[-1][0], rows[-1][1], statistics.median(row[3] for row in rows[3:])


def measured_step(bench):
    """(live at the start, bytes added at the peak, peak of reserved bytes, CPU seconds) of one step."""
    import reprise

    reprise.reset_peaks()
    start, began = reprise.memory_stats()["live_bytes"], time.process_time()
    step(bench)
    seconds, stats = time.process_time() - began, reprise.memory_stats()
    return start, stats["peak_live_bytes"] - start, stats["peak_reserved_bytes"], seconds


def predict(limit, notes):
    """The Plan for `limit` activation bytes, its prediction written down before any step under it; or what made it infeasible."""
    import reprise

    try:
        plan = reprise.plan(limit, policy="auto")
    except RuntimeError as error:
        return None, error
    body = plan.data["body"]
    notes.write_text(json.dumps({"limit": limit, "live_bytes": body["predicted_live_bytes"], "added_seconds": body["added_seconds"]}), encoding="utf-8")
    return plan, None


def budget_for(start, limit):
    """Of reserved bytes: what is live before the step and the limit, with room for the rounding of pieces."""
    return int(1.02 * (start + limit)) + 256 * 1024


def cell(bench, start, limit, notes):
    """One Plan: prediction written, steps taken under it, then steps under the budget that it belongs to."""
    import reprise

    plain_seconds = learn(bench)[2]
    plan, error = predict(limit, notes)
    budget = budget_for(start, limit)
    if plan is None:
        smallest = getattr(error, "smallest_budget", None)   # in the unit of the limit: activation bytes
        return {"infeasible": True, "text": str(error), "fails": not works(bench, budget), "smallest_budget": smallest,
                "smallest_works": bool(smallest) and works(bench, budget_for(start, smallest))}
    reprise.apply(plan, bench.model)
    rows, spent = [], []
    for _ in range(6):
        rows.append(measured_step(bench))
        spent.append(reprise.report().data["measured"]["added_seconds"])
    predicted = json.loads(notes.read_text(encoding="utf-8"))
    return {"infeasible": False, "predicted": predicted["live_bytes"], "measured": max(row[1] for row in rows), "plain_seconds": plain_seconds,
            "predicted_added_seconds": predicted["added_seconds"], "measured_added_seconds": statistics.median(row[3] for row in rows[1:]) - plain_seconds,
            "spent_seconds": statistics.median(spent[1:]),
            "budget": budget, **under_budget(bench, budget)}


def under_budget(bench, budget):
    """Steps from learning on: highest reserved bytes, what the last Plan predicted of them and of added seconds, and the out-of-memory error that ended the steps or None."""
    import reprise

    row, spent = {"reserved": 0, "predicted_reserved": None, "last_reserved": None, "raised": None}, []
    try:
        reprise.auto_checkpoint(bench.model, budget)
        for index in range(SETTLED + CHECKED):
            row["last_reserved"] = measured_step(bench)[2]
            row["reserved"] = max(row["reserved"], row["last_reserved"])
            report = reprise.report().data
            if index == SETTLED - 1 and "plan" in report:
                row["settled_seconds"] = report["predicted"]["added_seconds"]
            if index >= SETTLED:
                spent.append(report["measured"]["added_seconds"])
        row["settled_spent_seconds"] = statistics.median(spent)
        if "plan" in report and report["plan"]["limit_bytes"] > 0:   # both count from what no Plan can change
            row["predicted_reserved"] = budget - report["plan"]["limit_bytes"] + report["predicted"]["peak_reserved_bytes"]
    except RuntimeError as error:
        row["raised"] = str(error)
    finally:
        reprise.undo()
        bench.model.zero_grad(set_to_none=False)
    row["cap_held"] = row["raised"] is None and row["reserved"] <= budget
    return row


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


def one_model(name, fractions):
    """Runs in a process of its own: prints a JSON row per cell."""
    import torch

    torch.set_num_threads(1)
    import models

    torch.manual_seed(0)
    bench = models.MODELS[name]()
    for parameter in bench.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    start, added, _ = learn(bench)
    with tempfile.TemporaryDirectory() as folder:
        for fraction in fractions:
            row = cell(bench, start, int(fraction * added), pathlib.Path(folder) / "prediction.json")
            print(json.dumps({"model": name, "fraction": fraction, "activation_bytes": added, **row}), flush=True)


def is_near(predicted, spent, plain):
    """Within 10 % or 1 % of a plain step."""
    return abs(predicted - spent) <= max(0.1 * spent, 0.01 * plain)


def show(row):
    head = f"{row['model']:10} {row['fraction']:4.0%} of {row['activation_bytes'] / MIB:7.1f} MiB  "
    if row["infeasible"]:
        return head + f"infeasible (true: {row['fails']}): {row['text']}; smallest {row['smallest_budget']} works: {row['smallest_works']}"
    row["error"] = abs(row["predicted"] - row["measured"]) / row["measured"]
    if row["predicted_reserved"]:
        row["reserved_error"] = abs(row["predicted_reserved"] - row["last_reserved"]) / row["last_reserved"]
    row["first_time_holds"] = is_near(row["predicted_added_seconds"], row["spent_seconds"], row["plain_seconds"])
    settled = ""
    if "settled_seconds" in row:
        row["time_holds"] = is_near(row["settled_seconds"], row["settled_spent_seconds"], row["plain_seconds"])
        settled = f"; settled {row['settled_seconds'] / row['plain_seconds']:5.1%} / {row['settled_spent_seconds'] / row['plain_seconds']:5.1%}"
    return (head + f"predicted {row['predicted'] / MIB:7.2f}  measured {row['measured'] / MIB:7.2f} MiB  error {row['error']:6.2%}  "
            f"reserved {row.get('reserved_error', 0):6.2%}  added {row['predicted_added_seconds'] / row['plain_seconds']:5.1%} / "
            f"{row['spent_seconds'] / row['plain_seconds']:5.1%} (step {row['measured_added_seconds'] / row['plain_seconds']:5.1%}){settled}  cap held: {row['cap_held']}{'; ' + row['raised'] if row['raised'] else ''}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--models", nargs="+")
    parser.add_argument("--many", action="store_true", help="9 models x 7 budgets")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        return one_model(args.one, MANY_FRACTIONS if args.many else FRACTIONS)
    rows = []
    for name in args.models or (MANY_MODELS if args.many else MODELS):
        run = subprocess.run([sys.executable, __file__, "--one", name, *(["--many"] if args.many else [])], stdout=subprocess.PIPE, text=True, check=True)
        for text in run.stdout.splitlines():
            if text.startswith("{"):
                rows.append(json.loads(text))
                print(show(rows[-1]), flush=True)
    errors = [r["error"] for r in rows if "error" in r]
    middle = statistics.median(errors)
    print(f"{len(rows)} cells, {len(errors)} feasible: error median {middle:.2%} (wanted <= 1 %), max {max(errors):.2%} (wanted <= 3 %), "
          f"cap held in {sum(r['cap_held'] for r in rows if 'error' in r)}")
    reserved = [r["reserved_error"] for r in rows if "reserved_error" in r]
    if reserved:
        print(f"reserved bytes under the budget: error median {statistics.median(reserved):.2%}, max {max(reserved):.2%}, exact live bytes in {sum(e == 0 for e in errors)}")
    settled = [r for r in rows if "time_holds" in r]
    print(f"added time within 10 % or 1 % of the step: by the medians fed back in {sum(r['time_holds'] for r in settled)} of {len(settled)} (wanted: 9 of 10), "
          f"by the learning Pass alone in {sum(r.get('first_time_holds', False) for r in rows)} of {len(errors)}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    wrong = [r for r in rows if (not r["fails"] or not r["smallest_works"] if r["infeasible"] else not r["cap_held"])]
    return 1 if wrong or middle > 0.01 or max(errors) > 0.03 else 0


if __name__ == "__main__":
    sys.exit(main())
