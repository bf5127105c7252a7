"""Step time by alternating rounds: per_block against torch.utils.checkpoint, everything kept against plain, auto against the best peers on the GPT.

usage: ./dev bench steps [--pairs N] [--fresh N] [--part per_block|recording|placement|peers] [--json FILE]
Each line: median ratio of CPU time [95 % interval]. The rounds are spread over `fresh` sets of new processes, since where a process's memory lies is luck
that alternating cannot even out. Below it, what does not depend on luck: activation bytes, operators run again, and their own seconds."""

import argparse
import json
import statistics
import sys
from contextlib import ExitStack

from paired import Worker, interval, line, rounds

MIB = 1 << 20


def measure(recipes, count, fresh):
    """(rounds, last warm row and operators of each worker). recipes: functions from the rows of the workers before them to a Worker."""
    table, rows, operators = [], [], []
    for index in range(fresh):
        with ExitStack() as stack:
            workers, rows = [], []
            for make in recipes:
                workers.append(stack.enter_context(make(rows)))
                rows.append(workers[-1].warm_up())
            table += rounds(workers, (count + index) // fresh)
            operators = operators or [worker.operators() for worker in workers]
    return table, rows, operators


def activations(rows):
    return "activations " + " / ".join(f"{row['peak'] / MIB:.1f}" for row in rows) + " MiB"


PER_BLOCK = (("per_block plan over torch.utils.checkpoint, gpt", "gpt", "per_block", "checkpoint", 1.0),
             ("per_block plan over torch.utils.checkpoint, gpt with dropout", "gpt_drop", "per_block", "checkpoint", 1.0),
             ("per_block plan over torch.utils.checkpoint, demo", "demo", "per_block", "checkpoint", 1.0))
RECORDING = (("everything kept (recording) over plain, demo", "demo", "none", "plain", 1.03),
             ("all fits (auto, whole machine) over plain, demo", "demo", "auto", "plain", 1.005))


def against(pairs, args, out):
    """Ratios to torch's own checkpoint on the same blocks, or to plain."""
    for name, model, first, second, bound in pairs:
        table, rows, operators = measure([lambda _: Worker(model, first), lambda _: Worker(model, second)], args.pairs, args.fresh)
        found = [a / b for a, b in table]
        least = [min(column) for column in zip(*table)]
        print(line(name, found, bound))
        print(f"    least step {least[0]:.4f} / {least[1]:.4f} s = {least[0] / least[1]:.4f}; {activations(rows)}; run again: {rows[0]['replayed']} operators; "
              f"operators of a step seen by the dispatcher: {operators[0]['operators']} / {operators[1]['operators']}", flush=True)
        out[name] = {"rounds": table, "interval": interval(found), "least": least, "bound": bound, "bytes": [row["peak"] for row in rows], "operators": operators,
                     "replayed": rows[0]["replayed"]}


def against_peers(args, out):
    """auto at no more bytes than each peer: its added time over the peer's added time, both measured against plain in the same round."""
    for resident in (True, False):
        for peer in ("checkpoint", "checkpoint_attention"):
            name = f"auto over {peer}, added time, gradients {'resident' if resident else 'freed'}, gpt"
            table, rows, operators = measure([lambda _: Worker("gpt", "plain", resident=resident), lambda _: Worker("gpt", peer, resident=resident),
                                              lambda before: Worker("gpt", "auto", limit=before[1]["peak"], resident=resident)], args.pairs, args.fresh)
            ratio = [(auto - plain) / max(1e-9, other - plain) for plain, other, auto in table]
            middle = [statistics.median(column) for column in zip(*table)]
            again = operators[1]["operators"] - operators[0]["operators"]
            print(line(name, ratio, 0.9))
            print(f"    step over plain {middle[2] / middle[0]:.4f} / {middle[1] / middle[0]:.4f} (medians, plain {middle[0]:.3f} s); {activations([rows[2], rows[1]])}; "
                  f"run again: {rows[2]['replayed']} operators, {rows[2]['planned_seconds']:.4f} s by the Plan / {again} operators, "
                  f"{operators[1]['seconds'] - operators[0]['seconds']:.4f} s", flush=True)
            out[name] = {"rounds": table, "interval": interval(ratio), "medians": middle, "bound": 0.9, "bytes": [rows[2]["peak"], rows[1]["peak"]], "operators": operators,
                         "replayed": rows[2]["replayed"], "planned_seconds": rows[2]["planned_seconds"]}


def against_best_fit(args, out):
    """What serving a step at its planned places costs, or saves: the same Plan's step without them. No bar is asked for."""
    for model, share in (("gpt", 1.2), ("gpt", 0.5), ("demo", 0.5)):
        name = f"auto at planned places over auto by best fit, {model}, {share:.0%} of plain's activation bytes"
        def capped(before, share=share, model=model, **settings):
            return Worker(model, "auto", budget=int(1.02 * (before[0]["start"] + share * before[0]["peak"])) + MIB // 4, settings=settings)
        table, rows, _ = measure([lambda _: Worker(model, "plain"), capped, lambda before: capped(before, REPRISE_PLACEMENT="0")], args.pairs, args.fresh)
        found = [placed / fitted for _, placed, fitted in table]
        print(line(name, found))
        print(f"    reserved {rows[1]['reserved'] / MIB:.1f} / {rows[2]['reserved'] / MIB:.1f} MiB at {activations(rows[1:])}", flush=True)
        out[name] = {"rounds": table, "interval": interval(found), "bound": 1.0, "bytes": [row["peak"] for row in rows], "reserved": [row["reserved"] for row in rows]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=18, help="rounds per line")
    parser.add_argument("--fresh", type=int, default=3, help="sets of new processes they are spread over")
    parser.add_argument("--part", choices=["all", "per_block", "recording", "placement", "peers"], default="all")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.pairs < 6 or not 1 <= args.fresh <= args.pairs:
        sys.exit("steps: --pairs must be at least 6, or there is no 95 % interval, and --fresh between 1 and that")
    out = {}
    for part, pairs in (("per_block", PER_BLOCK), ("recording", RECORDING)):
        if args.part in ("all", part):
            against(pairs, args, out)
    if args.part in ("all", "placement"):
        against_best_fit(args, out)
    if args.part in ("all", "peers"):
        against_peers(args, out)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)
    held = [name for name, row in out.items() if row["interval"][2] < row["bound"] + 0.01]
    print(f"{len(held)} of {len(out)} shown to hold")
    return 0 if len(held) == len(out) else 1


if __name__ == "__main__":
    sys.exit(main())
