"""Step time by alternating pairs: per_block against torch.utils.checkpoint, everything kept against plain, auto against the best peers on the GPT.

usage: ./dev bench steps [--pairs N] [--part overheads|peers] [--json FILE]   Each line: median ratio of CPU time [95 % interval]."""

import argparse
import json
import sys

from paired import Worker, interval, line, ratios

MIB = 1 << 20


def overheads(pairs, out):
    """Ratios to plain and to torch's own checkpoint on the same blocks."""
    for name, model, first, second, bound in (
            ("per_block plan over torch.utils.checkpoint, gpt", "gpt", "per_block", "checkpoint", 1.0),
            ("per_block plan over torch.utils.checkpoint, gpt with dropout", "gpt_drop", "per_block", "checkpoint", 1.0),
            ("everything kept (recording) over plain, gpt", "gpt", "none", "plain", 1.03),
            ("all fits (auto, whole machine) over plain, gpt", "gpt", "auto", "plain", 1.005)):
        with Worker(model, first) as a, Worker(model, second) as b:
            rows = a.warm_up(), b.warm_up()
            found = ratios(a, b, pairs)
        print(line(name, found, bound), f"  bytes {rows[0]['peak'] / MIB:.1f} against {rows[1]['peak'] / MIB:.1f} MiB", flush=True)
        out[name] = {"ratios": found, "interval": interval(found), "bound": bound, "bytes": [r["peak"] for r in rows]}


def against_peers(pairs, out):
    """auto at no more bytes than each peer: its added time over the peer's added time, both measured against plain in the same round."""
    for resident in (True, False):
        for peer in ("checkpoint", "checkpoint_attention"):
            where = "resident" if resident else "freed"
            name = f"auto over {peer}, added time, gradients {where}, gpt"
            with Worker("gpt", "plain", resident=resident) as plain, Worker("gpt", peer, resident=resident) as other:
                plain.warm_up()
                rows = other.warm_up()
                with Worker("gpt", "auto", limit=rows["peak"], resident=resident) as ours:
                    mine = ours.warm_up(8)
                    found = [added(plain, other, ours) for _ in range(pairs)]
            middle = [sum(column) / len(column) for column in zip(*found)]
            ratio = [(a / p - 1) / max(1e-9, o / p - 1) for p, o, a in found]
            print(line(name, ratio, 0.9), f"  bytes {mine['peak'] / MIB:.1f} against {rows['peak'] / MIB:.1f} MiB; "
                  f"over plain {middle[2] / middle[0]:.3f} against {middle[1] / middle[0]:.3f}", flush=True)
            out[name] = {"triples": found, "interval": interval(ratio), "bound": 0.9, "bytes": [mine["peak"], rows["peak"]]}


def added(plain, other, ours):
    return tuple(worker.step()["cpu"] for worker in (plain, other, ours))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--part", choices=["all", "overheads", "peers"], default="all")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args()
    if args.pairs < 6:
        sys.exit("steps: --pairs must be at least 6, or there is no 95 % interval")
    out = {}
    if args.part in ("all", "overheads"):
        overheads(args.pairs, out)
    if args.part in ("all", "peers"):
        against_peers(args.pairs, out)
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(out, file, indent=1)


if __name__ == "__main__":
    main()
