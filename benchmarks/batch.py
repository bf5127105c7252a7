"""Under one cap: the largest batch of the demo's GPT (with texts of 64 bytes) without recomputation, the largest and the fastest with it, and samples a second of these in alternating rounds.

usage: ./dev bench batch [--budget BYTES] [--length BYTES] [--rounds N] [--json FILE]
The default budget holds parameters, gradients and AdamW's state, and what a plain step of two samples needs beside them. CPU seconds, one thread."""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict

from paired import Worker, interval, line, rounds

MIB = 1 << 20
BUDGET = "212MiB"
LENGTH = 64
MOST = 32


def find(policy, budget, length):
    """In a process of its own: what largest_batch says."""
    import torch

    torch.set_num_threads(1)
    import reprise
    from reprise import demo

    run = demo.Run(demo.Settings(length=length))

    def step(batch):
        run.settings.batch = batch
        run.step()
    print(json.dumps(asdict(reprise.largest_batch(step, budget, range(1, MOST + 1), model=run.model, policy=policy, steps=2))))


def found(policy, budget, length):
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
    environment.update(REPRISE="1", OMP_NUM_THREADS="1", REPRISE_LOG="0")
    run = subprocess.run([sys.executable, __file__, "--find", policy, "--budget", budget, "--length", str(length)], stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(run.stdout.splitlines()[-1])


def show(name, result):
    for which in ("largest", "fastest"):
        row = result[which]
        print(f"{name}, {which}: batch {row['batch']}, {row['samples_per_second']:.2f} samples/s, MFU {row['mfu']:.1%}, {row['replayed']} operators run again, "
              f"{row['peak_reserved_bytes'] / MIB:.1f} MiB reserved; predicted {row['predicted_samples_per_second']:.2f} samples/s")
    print(f"    {result['prediction']}; {result['why_not_larger']}; run: {', '.join(str(r['batch']) + ('' if r['fits'] else ' (does not fit)') for r in result['tried'])}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", default=BUDGET)
    parser.add_argument("--length", type=int, default=LENGTH, help="bytes of a sample; the shorter, the more a step's fixed part weighs (default %(default)s, the demo's: 256)")
    parser.add_argument("--rounds", type=int, default=15, help="at least 6, or there is no 95 %% interval")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--find", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.find:
        return find(args.find, args.budget, args.length)
    if args.rounds < 6:
        sys.exit("batch: --rounds must be at least 6, or there is no 95 % interval")
    plain, planned = found("none", args.budget, args.length), found("auto", args.budget, args.length)
    print(f"the demo's GPT, samples of {args.length} bytes, within {args.budget}")
    show("without recomputation", plain)
    show("with recomputation", planned)
    sizes = [plain["largest"]["batch"], planned["fastest"]["batch"], planned["largest"]["batch"]]
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker("demo", "none" if i == 0 else "auto", budget=args.budget, batch=size, length=args.length)) for i, size in enumerate(sizes)]
        for worker in workers:
            worker.warm_up(6)
        table = rounds(workers, args.rounds)
    out = {"budget": args.budget, "plain": plain, "planned": planned, "sizes": sizes, "rounds": table}
    for index, name in ((1, "fastest"), (2, "largest")):
        ratio = [(sizes[index] / row[index]) / (sizes[0] / row[0]) for row in table]
        print(line(f"samples a CPU second, batch {sizes[index]} ({name}) with recomputation over batch {sizes[0]} without", ratio))
        out[name] = interval(ratio)
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(out, indent=1), encoding="utf-8")
    return 0 if out["fastest"][1] > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
