"""reprise beside every peer that runs on a CPU: bytes, step time and counted added work, per model, and whether a peer is better anywhere at no more bytes.

usage: ./dev bench peers [--models NAME…] [--schemes NAME…] [--caps SHARE…] [--rounds N] [--minutes M] [--predicted] [--freed] [--again] [--json FILE]
Each cell runs in a process of its own; timed steps alternate with plain's. What is done is in out/peers.json and is not run again (--again forgets the models named),
so a run that --minutes ended goes on where it stopped. It also writes out/peers.md, and per model out/peers_MODEL.svg: memory against step time.

Two measures of what a scheme adds to a step:
  time   the ratio of CPU seconds to plain's step of the same round: what a user sees, but noise of a shared machine is in it
  work   Σ seconds of the operators that run again, over plain's step seconds: counted, no noise but that of the operators' medians, one clock for peers and ours; Python's part of a
         peer is not in it
equal: loss, all gradients and all buffers of four steps have plain's bits. --predicted: our column by the planner alone, from one recorded step; nothing of ours runs."""

import argparse
import json
import pathlib
import statistics
import sys
import time
from collections import defaultdict

import pareto
import plans
from paired import interval
from peer_cell import Cell, Ended

ROOT = pathlib.Path(__file__).resolve().parent.parent
MIB = 1 << 20
MODELS = ("gpt", "gpt_drop", "llama", "bert", "bert_drop", "vit", "resnet50", "unet", "chain", "mlp")
SCHEMES = ("block_1", "block_2", "block_4", "sqrt_sequential", "sac_matmuls", "sac_attention", "compile_0.1", "compile_0.3", "compile_0.5", "compile_0.7", "ckptplan_0.3",
           "ckptplan_0.5", "remat")
CAPS = (0.9, 0.75, 0.5, 0.35, 0.25, 0.15)
CURVE = (0.95, 0.85, 0.65, 0.6, 0.42, 0.3, 0.2, 0.12)
HARDLY = 0.002      # of a step: operators' medians are no better known
PAGES = 64 << 10    # what pages and slabs may add to a peer's live bytes: our Plan is priced with them, live bytes are compared with live bytes
FOOTNOTES = """\
Not in the table: torch's SAC ILP (`torch.distributed._tools`) aborts the process on a CPU, its cost models need CUDA; DTR's simulator is no package that pip installs; Rotor and
rockmate do not import beside this torch. For the chain the drawing has theory's optimum instead. ckptplan has no bytes on a CPU: it is given this harness's. ckptplan and
torch_remat are there after `./dev bench peers` installed requirements/peers.txt."""


def median_step(cell, rounds, plain):
    """Alternating rounds: [(cell's CPU seconds, plain's)]."""
    found = []
    for index in range(rounds):
        pair = [cell.ask("step")["cpu"], plain.ask("step")["cpu"]] if index % 2 else [plain.ask("step")["cpu"], cell.ask("step")["cpu"]][::-1]
        found.append(pair)
    return found


def name_of(key):
    """aten.addmm.default [(8, 8), (8, 8)] is aten::addmm."""
    return "::".join(key.split(" ")[0].split(".")[:2])


def counted_peer(table, plain):
    """Seconds of what ran more often than under plain, at plain's own seconds a call."""
    seconds = 0.0
    for key, (calls, took) in table.items():
        before = plain.get(key)
        if before:
            seconds += max(0, calls - before[0]) * before[1] / before[0]
        else:
            seconds += took
    return seconds


class Recorded:
    """One plain step, recorded: operators' seconds for our Plans, and the planner's own answers."""

    def __init__(self, name, freed, again):
        self.folder = plans.recorded(name, freed, again)
        clock = json.loads((self.folder / "seconds.json").read_text(encoding="utf-8"))
        profile = json.loads((self.folder / "profile.json").read_text(encoding="utf-8"))["body"]
        self.step_seconds = clock["step_seconds"]
        equal = {}
        for index, op in enumerate(profile["ops"]):
            equal.setdefault(op["signature"], []).extend(row[index] for row in clock["operator_seconds"])
        self.seconds = [statistics.median(equal[op["signature"]]) for op in profile["ops"]]
        self.names = [op["name"] for op in profile["ops"]]
        self.packed = {v["trace_value"]: v["packed"] for v in profile["values"] if v.get("packed")}

    def clock_of(self, table):
        """Our medians over the seconds of `table`, one plain step's under a dispatch mode on a shared machine: of the operators that forward alone runs."""
        mine, theirs = defaultdict(lambda: [0, 0.0]), defaultdict(lambda: [0, 0.0])
        for rows, pairs in ((mine, zip(self.names, ((1, s) for s in self.seconds))), (theirs, ((name_of(key), row) for key, row in table.items()))):
            for name, (calls, seconds) in pairs:
                rows[name][0] += calls
                rows[name][1] += seconds
        both = [name for name in mine if name in theirs and mine[name][0] == theirs[name][0]]
        return sum(mine[name][1] for name in both) / sum(theirs[name][1] for name in both)

    def work(self, plan):
        """Seconds that a followed Plan adds, by the same medians."""
        again = sum(self.seconds[int(op)] * times for op, times in plan["again"].items())
        packed = [self.packed[v]["pack_seconds"] for v in plan["packed"]]
        unpacked = [(self.packed[int(v)]["unpack_seconds"] or self.packed[int(v)]["pack_seconds"]) * times for v, times in plan["unpacked"].items()]
        return again + sum(packed) + sum(unpacked)

    def predict(self, shares):
        """{share: (share of plain's bytes at the peak, added seconds over the step's)}; None where nothing fits."""
        out = {}
        for row in plans.plans(self.folder, shares)[:-1]:
            plan = row["plan"]
            out[row["share"]] = plan and (plan["predicted_live_bytes"] / row["plain_bytes"], plan["added_seconds"] / self.step_seconds)
        return out


class Bench:
    def __init__(self, args):
        self.args, self.file = args, pathlib.Path(args.json)
        self.until = time.monotonic() + 60 * args.minutes
        try:
            self.state = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError):
            self.state = {}
        if args.again:
            for name in args.models:
                self.state.pop(name, None)

    def save(self):
        self.file.parent.mkdir(exist_ok=True)
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.state, indent=1) + "\n", encoding="utf-8")
        part.replace(self.file)

    def late(self):
        return time.monotonic() > self.until

    def plain_of(self, name, row, cell):
        if "plain" not in row:
            row["plain"] = {**cell.ask("check"), **cell.ask("count")}
            row["plain"]["cpu"] = [cell.ask("step")["cpu"] for _ in range(max(2, self.args.rounds))]
            self.save()
        else:
            cell.ask("check")   # warms up
        return row["plain"]

    def cell(self, name, scheme, limit, plain_cell, plain, recorded):
        """One row of the table."""
        with Cell(name, scheme, limit, not self.args.freed) as cell:
            if "refused" in cell.started:
                return {"refused": cell.started["refused"]}
            try:
                row = cell.ask("check")
                row["equal"] = row.pop("fingerprints") == plain["fingerprints"] and row.pop("buffers") == plain["buffers"]
                row["rounds"] = median_step(cell, self.args.rounds, plain_cell)
                if scheme == "auto":
                    row["work"] = recorded.work(row.pop("plan")) / recorded.step_seconds
                else:
                    row.pop("plan")
                    row["work"] = None if scheme.startswith("compile") else self.count(cell, plain, recorded)
                return row
            except Ended as error:
                return {"refused": str(error)}

    def count(self, cell, plain, recorded):
        """None where the operators that run cannot be seen. (A compiled step is not even asked: under a dispatch mode it runs as if it were not compiled.)"""
        try:
            table = cell.ask("count")["table"]
        except Ended:
            return None
        seen = sum(calls for calls, _ in table.values())
        return counted_peer(table, plain["table"]) * recorded.clock_of(plain["table"]) / recorded.step_seconds if seen >= sum(calls for calls, _ in plain["table"].values()) else None

    def cells_of(self, row, plain):
        """(key, scheme, limit) of what is to be run; per-block's own peak is known only when per-block has run."""
        wanted = [(scheme, scheme, None) for scheme in self.args.schemes]
        if not self.args.predicted:
            wanted += [(f"auto@{cap:g}", "auto", int(cap * plain["peak"])) for cap in self.args.caps]
            per_block = row["cells"].get("block_1", {}).get("peak")
            if per_block:
                wanted.append(("auto@per_block", "auto", per_block))
        return [each for each in wanted if each[0] not in row["cells"]]

    def model(self, name):
        row = self.state.setdefault(name, {"cells": {}})
        recorded = Recorded(name, self.args.freed, self.args.again)
        with Cell(name, "none", None, not self.args.freed) as plain_cell:
            plain = self.plain_of(name, row, plain_cell)
            while not self.late():
                wanted = self.cells_of(row, plain)
                if not wanted:
                    break
                key, scheme, limit = wanted[0]
                row["cells"][key] = found = self.cell(name, scheme, limit, plain_cell, plain, recorded)
                print(f"  {name:9} {key:16} {said(found, plain)}", flush=True)
                self.save()
        peaks = {key: found["peak"] / plain["peak"] for key, found in row["cells"].items() if "peak" in found and not key.startswith("auto")}
        room = PAGES / plain["peak"]
        shares = sorted({*self.args.caps, *CURVE, *(round(p + r, 6) for p in peaks.values() if p < 1 for r in (0, room))})
        row["predicted"] = {f"{share:.6f}": found for share, found in recorded.predict(shares).items()}
        row["step_seconds"] = recorded.step_seconds
        row["layer_seconds"] = statistics.median(recorded.seconds[:1]) if name != "chain" else sum(recorded.seconds) / 64
        self.save()


def ratios(row):
    return [a / b for a, b in row["rounds"]]


def over_plain(work):
    return "-" if work is None else f"{1 + work:.3f}"


def said(row, plain):
    if "refused" in row:
        return f"refused: {row['refused'][:120]}"
    return f"{row['peak'] / plain['peak']:6.1%}  time {time_of(row)}  work {over_plain(row['work'])}  equal {row['equal']}"


def time_of(row):
    values = ratios(row)
    if len(values) < 6:
        return f"{statistics.median(values):.3f} ({min(values):.3f} … {max(values):.3f})"
    middle, low, high = interval(values)
    return f"{middle:.3f} [{low:.3f}, {high:.3f}]"


def best_peer(cells, peak, measure):
    """The correct peer that adds least at no more bytes, or None."""
    fitting = [(measure(r), key) for key, r in cells.items() if not key.startswith("auto") and r.get("equal") and r["peak"] <= peak and measure(r) is not None]
    return min(fitting, default=None)


def middle_time(row):
    return statistics.median(ratios(row))


def predicted_at(row, share):
    """(peak, added work) of the planner's answer for a share, or None."""
    return row["predicted"].get(f"{share:.6f}")


def cap_rows(row, caps):
    """[(what was asked, our peak, our time or None, our work, best peer by work, best peer by time)]"""
    plain, cells, out = row["plain"]["peak"], row["cells"], []
    for cap in [*caps, "per_block"]:
        share = cells.get("block_1", {}).get("peak", 0) / plain if cap == "per_block" else cap
        if not share:
            continue
        run, found = cells.get(f"auto@{cap:g}" if cap != "per_block" else "auto@per_block"), predicted_at(row, round(share, 6))
        name = f"{share:.1%}" + (" (per block's)" if cap == "per_block" else "")
        works, times = best_peer(cells, share * plain, lambda r: r["work"]), best_peer(cells, share * plain, middle_time)
        if run and "peak" in run:
            out.append((name, run["peak"] / plain, run, run["work"], works, times, "ran, " + ("equal" if run["equal"] else "NOT EQUAL")))
        elif run:
            out.append((name, None, None, None, works, times, "nothing fits" if "nfeasible" in run["refused"] or "nothing found" in run["refused"] else run["refused"][:60]))
        else:
            out.append((name, found and found[0], None, found and found[1], works, times, "predicted" if found else "nothing fits, predicted"))
    return out


def verdict(ours, theirs, slack=0.0):
    if theirs is None:
        return "no peer"
    if ours is None:
        return "no"
    return "yes" if ours <= theirs[0] + slack else "no"


def time_verdict(run, cells, theirs):
    """By intervals of rounds: ours over the peer's. Not shown: they overlap."""
    if run is None or theirs is None:
        return "-"
    mine, other = sorted(ratios(run)), sorted(ratios(cells[theirs[1]]))
    if statistics.median(mine) <= theirs[0]:
        return "yes"
    return "not shown" if min(mine) <= max(other) else "no"


def table_of(name, row, caps):
    plain, cells = row["plain"], row["cells"]
    lines = [f"\n## {name}: plain {plain['peak'] / MIB:.1f} MiB, step {row['step_seconds']:.3f} s\n", "| scheme | peak | MiB | time | work | equal |", "|---|---|---|---|---|---|"]
    for key, r in sorted(cells.items(), key=lambda item: -item[1].get("peak", 0)):
        if "refused" in r:
            lines.append(f"| {key} | refused: {r['refused'][:110]} | | | | |")
        else:
            lines.append(f"| {key} | {r['peak'] / plain['peak']:.1%} | {r['peak'] / MIB:.1f} | {time_of(r)} | {over_plain(r['work'])} | {'yes' if r['equal'] else '**no**'} |")
    lines += ["\n| cap | our peak | our time | our work | | best correct peer by work | by time | never worse: work | time |", "|---|---|---|---|---|---|---|---|---|"]
    for asked, peak, run, work, works, times, how in cap_rows(row, caps):
        ours = f"{peak:.1%} | {time_of(run) if run else '-'} | {over_plain(work)}" if peak is not None else "- | - | -"
        lines.append(f"| {asked} | {ours} | {how} | {f'{works[1]} {1 + works[0]:.3f}' if works else 'none'} | {f'{times[1]} {times[0]:.3f}' if times else 'none'} | {verdict(work, works, HARDLY)} "
                     f"| {time_verdict(run, cells, times)} |")
    return lines + at_peers_bytes(row)


def at_peers_bytes(row):
    """Our predicted work at each correct peer's own bytes."""
    plain, lines = row["plain"]["peak"], ["\n| at the bytes of | peak | its work | ours, predicted | never worse |", "|---|---|---|---|---|"]
    for key, r in row["cells"].items():
        if key.startswith("auto") or not r.get("equal") or r["peak"] >= plain or r["work"] is None:
            continue
        found = predicted_at(row, round((r["peak"] + PAGES) / plain, 6))
        if not found or found[0] > r["peak"] / plain:
            found = predicted_at(row, round(r["peak"] / plain, 6))
        ours = f"{1 + found[1]:.3f}" if found else "nothing fits"
        lines.append(f"| {key} | {r['peak'] / plain:.1%} | {1 + r['work']:.3f} | {ours} | {verdict(found and found[1], (r['work'], key), HARDLY)} |")
    return lines


def draw(name, row):
    plain, cells = row["plain"]["peak"], row["cells"]
    curve = sorted((found[0], 1 + found[1]) for found in row["predicted"].values() if found)
    peers = {key: r for key, r in cells.items() if "peak" in r and not key.startswith("auto")}
    drawing = pareto.Drawing(f"{name}: plain {plain / MIB:.0f} MiB", min(2.0, max([1.1, *(middle_time(r) * 1.03 for r in peers.values()), *(b for a, b in curve if a > 0.14)])))
    if name == "chain":
        drawing.curve(pareto.chain_curve(64, plain, 4 * MIB, row["layer_seconds"], row["step_seconds"]), "#999", "theory's optimum over layers", "4 3")
    drawing.curve(curve, "#06c", "reprise, predicted")
    for key, r in cells.items():
        if "peak" in r:
            ours = key.startswith("auto")
            drawing.measured(r["peak"] / plain, None if r["work"] is None else 1 + r["work"], middle_time(r), "" if ours else key,
                             "#06c" if ours else "#a33" if r["equal"] else "#bbb")
    return drawing.svg()


def sum_up(state, caps):
    """(line for people, whether no correct peer is better by work at no more bytes)"""
    cells, worse = 0, []
    for name, row in state.items():
        for asked, peak, run, work, works, *_ in cap_rows(row, caps):
            if works is None and work is None:
                continue
            cells += 1
            if verdict(work, works, HARDLY) == "no":
                worse.append(f"{name} {asked} ({works[1]})")
    text = f"{len(state)} models, {cells} cells: a correct peer adds less work at no more bytes in {len(worse)}" + (": " + ", ".join(worse) if worse else "")
    return text, not worse


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--schemes", nargs="+", default=SCHEMES, metavar="SCHEME")
    parser.add_argument("--caps", nargs="+", type=float, default=CAPS, metavar="SHARE")
    parser.add_argument("--rounds", type=int, default=6, help="timed steps of each cell (from 6 on there is an interval)")
    parser.add_argument("--minutes", type=float, default=240, help="stop then; the next run goes on")
    parser.add_argument("--predicted", action="store_true", help="our column by the planner alone")
    parser.add_argument("--freed", action="store_true", help="gradients freed between steps instead of resident")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--json", metavar="FILE", default=str(ROOT / "out" / "peers.json"))
    args = parser.parse_args()
    if args.rounds < 1 or any(not 0 < cap <= 1 for cap in args.caps):
        sys.exit("peers: --rounds must be at least 1, caps shares of plain's bytes in (0, 1]")
    bench = Bench(args)
    for name in args.models:
        if not bench.late():
            bench.model(name)
    done = {name: row for name, row in bench.state.items() if "predicted" in row}
    text = "\n".join([*(line for name, row in done.items() for line in table_of(name, row, args.caps)), "", FOOTNOTES])
    bench.file.with_suffix(".md").write_text(text + "\n", encoding="utf-8")
    for name, row in done.items():
        (bench.file.parent / f"{bench.file.stem}_{name}.svg").write_text(draw(name, row), encoding="utf-8")
    line, held = sum_up(done, args.caps)
    print(text, line, sep="\n")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
