"""What the planner promises: peak, added seconds, proven bound and planning time per budget, on steps recorded from real models.

usage: ./dev bench plans [--models NAME…] [--budgets SHARE…] [--freed] [--no-packing] [--effort TIMES] [--again] [--json FILE]
Each model is recorded once, in a process of its own (out/plans/NAME); after that nothing here needs torch: reprise_plans reads the Profiles, plans and prints.
Shares are of plain's activation bytes; added time is in per cent of the plain step. Peers: the least added time of any correct peer at no more bytes."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ("gpt", "gpt_drop", "llama", "bert", "bert_drop", "vit", "resnet50", "unet", "chain", "gpt_100")
BUDGETS = (0.75, 0.5, 0.35, 0.25, 0.15)
PASSES = 7      # measured for the operators' seconds; the median of equal operators counts
# Least added time (per cent of a step) of any correct peer at 75, 50, 35 and 25 % of plain's bytes; gradients resident.
PEERS = {"gpt": (7.9, 12.8, 16.5, 16.5), "gpt_drop": (26.5, 27.9, 32.7, 40.6), "llama": (12.0, 14.2, 18.6, 21.2), "bert": (9.9, 11.3, 18.8, None), "bert_drop": (None, None, None, None),
         "vit": (9.3, 13.3, None, None), "resnet50": (9.3, 26.1, 26.1, None), "unet": (4.1, None, None, None), "chain": (15.6, 22.9, 22.9, 54.1)}


def bert():
    """models.bert_drop without dropout."""
    import models
    bench = models.bert_drop()
    for module in bench.model.modules():
        if type(module).__name__ == "Dropout":
            module.p = 0.0
        if hasattr(module, "dropout_prob"):
            module.dropout_prob = 0.0
    return bench


def step(bench, freed):
    began = time.process_time()
    bench.loss(bench.model, bench.batch).backward()
    seconds = time.process_time() - began
    bench.model.zero_grad(set_to_none=freed)
    return seconds


def clocked(bench, freed):
    """(operator, CPU seconds) of one step's forward, below autograd as the engine sees it. A shared machine's wall clock counts other people's work too."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    rows = []

    class Clock(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            began = time.thread_time()
            result = function(*args, **(kwargs or {}))
            rows.append((function._schema.name, time.thread_time() - began))
            return result

    with Clock():
        loss = bench.loss(bench.model, bench.batch)
    loss.backward()
    bench.model.zero_grad(set_to_none=freed)
    return rows


def aligned(names, rows):
    """Seconds of each recorded operator. `rows` holds views too; what begins the backward (ones_like) comes after them and counts nothing."""
    seconds, position = [], 0
    for name in names:
        found = next((i for i in range(position, len(rows)) if rows[i][0] == name), None)
        seconds.append(0.0 if found is None else rows[found][1])
        position = position if found is None else found + 1
    return seconds


def record(name, freed, folder):
    """Runs in a process of its own: the Profile of a Pass that keeps everything, and CPU seconds of its operators."""
    import torch

    torch.set_num_threads(1)
    import models
    import reprise

    torch.manual_seed(0)
    bench = bert() if name == "bert" else models.MODELS[name]()
    for parameter in bench.model.parameters():
        parameter.grad = None if freed else torch.zeros_like(parameter)
    step(bench, freed)
    reprise.auto_checkpoint(bench.model, "100%", policy="none")
    step(bench, freed)
    profile = reprise.profile()
    reprise.undo()
    profile.save(folder / "profile.json")
    names = [o["name"] for o in profile.data["body"]["ops"]]
    passes = [aligned(names, clocked(bench, freed)) for _ in range(PASSES)]
    seconds = min(step(bench, freed) for _ in range(PASSES))
    (folder / "seconds.json").write_text(json.dumps({"step_seconds": seconds, "operator_seconds": passes}), encoding="utf-8")


def is_readable(folder):
    """Recorded, and not by an earlier build whose Profile this one refuses."""
    try:
        return (folder / "seconds.json").exists() and plans(folder, []) == []
    except RuntimeError as error:
        if "this build reads" not in str(error):
            raise
        return False


def recorded(name, freed, again):
    folder = ROOT / "out" / "plans" / (name + ("_freed" if freed else ""))
    if again or not is_readable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
        environment.update(REPRISE="1", OMP_NUM_THREADS="1", REPRISE_LOG="0", TRANSFORMERS_VERBOSITY="error")
        subprocess.run([sys.executable, __file__, "--record", name, *(["--freed"] if freed else []), "--folder", str(folder)], check=True, env=environment)
    return folder


def plans(folder, budgets, packing=True, effort=1.0):
    """Rows that reprise_plans prints, one a budget; the last is the smallest limit. Without budgets none: the folder is only read. RuntimeError: what it said instead."""
    tool = pathlib.Path(os.environ.get("REPRISE_BUILD", ROOT / "build")) / "policy" / "reprise_plans"
    run = subprocess.run([tool, *([] if packing else ["--no-packing"]), "--effort", str(effort), folder, *(str(b) for b in budgets)], capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(run.stderr.strip())
    return [json.loads(line) for line in run.stdout.splitlines()]


def cell(plan, row, step_seconds):
    """Predicted peak, added time of the step and of the forward, and how near the bound that is."""
    if plan is None:
        return "nothing fits | | |"
    near = f"{plan['added_seconds'] / plan['lower_bound_seconds']:.3f}" if plan["lower_bound_seconds"] > 0 else "-"
    return f"{plan['predicted_live_bytes'] / row['plain_bytes']:.1%} | +{plan['added_seconds'] / step_seconds:.1%} | {plan['added_seconds'] / row['forward_seconds']:.1%} | {near}"


def show(name, rows, step_seconds):
    first = rows[0]
    print(f"\n{name}: plain {first['plain_bytes'] / 2 ** 20:.1f} MiB, step {step_seconds:.3f} s, forward {first['forward_seconds']:.3f} s, {first['ops']} operators; "
          f"frontier of {first['frontier_plans']} plans in {first['frontier_seconds']:.1f} s")
    print("| asked | predicted peak | added time | of the forward | x bound | planned in | best peer | after the frontier: peak | added time | of the forward | x bound | in |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    peers = dict(zip((0.75, 0.5, 0.35, 0.25), PEERS.get(name, ())))
    for row in rows:
        share = f"{row['share']:.1%}" if row["share"] > 0 else f"smallest, {(row['after'] or row['plan'])['limit_bytes'] / row['plain_bytes']:.1%}"
        peer = peers.get(row["share"])
        print(f"| {share} | {cell(row['plan'], row, step_seconds)} | {row['plan_seconds']:.2f} s | {'' if peer is None else f'+{peer} %'} "
              f"| {cell(row['after'], row, step_seconds)} | {row['after_seconds']:.2f} s |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--budgets", nargs="+", type=float, default=BUDGETS)
    parser.add_argument("--freed", action="store_true", help="gradients freed between steps instead of resident")
    parser.add_argument("--no-packing", action="store_true", help="as if no Value had a packed form")
    parser.add_argument("--effort", type=float, default=1.0, metavar="TIMES", help="of the search; a step that was measured often is planned with more")
    parser.add_argument("--again", action="store_true", help="record anew")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--record", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.record:
        return record(args.record, args.freed, args.folder)
    out = {}
    for name in args.models:
        folder = recorded(name, args.freed, args.again)
        seconds = json.loads((folder / "seconds.json").read_text(encoding="utf-8"))["step_seconds"]
        out[name] = {"step_seconds": seconds, "rows": plans(folder, args.budgets, not args.no_packing, args.effort)}
        show(name, out[name]["rows"], seconds)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(out, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
