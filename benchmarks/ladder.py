"""The classic ladder on a chain of N layers: work and memory of each scheme, theory beside what was measured, as a table and as an SVG curve.

usage: ./dev bench ladder [--layers N] [--json FILE] [--svg FILE]
Work: layer forwards run again in one step, counted by the engine. Memory: activations held at the peak of a step, by the allocator (one activation = one
layer's result of `width x batch` floats). Gradients are resident; the loss is a sum, which takes 4 bytes of its own.

Closed forms, with one trigger per layer (a layer is Linear + ReLU, and ReLU's backward needs the layer's own result, so that is replayed too):
  none                            memory N             work 0
  chunks(C)                       memory C + N/C       work: every layer but those whose results are held as Sources, once
  full                            memory 1             work N (N + 1) / 2
  chunks(C, hold_inside=False)    memory C             work C * (N/C)(N/C + 1)/2, less the held results"""

import argparse
import json
import math
import pathlib
import sys
import time

import torch
import torch.nn as nn

import reprise


class Chain(nn.Module):
    def __init__(self, layers, width):
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(layers))
        for layer in self.layers:
            nn.init.kaiming_normal_(layer[0].weight)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


OPERATORS_PER_LAYER = 2   # addmm and relu; the transposed weight is a view


def schemes(n):
    """(policy, memory in activations, work in layers, one pass?) by the closed forms."""
    root = round(math.sqrt(n))
    rows = [("none", n, 0, True), ("full", 1, n * (n + 1) // 2, False)]
    for c in (4, 8, 16):
        if c < n:
            rows.append((f"chunks({c})", c + n // c, one_pass_work(n, c), True))
    rows.append(("sqrt", 2 * root, one_pass_work(n, root), True))
    for c in (4, 8, 16):
        if c < n:
            rows.append((f"chunks({c}, hold_inside=False)", c, again_work(n, c), False))
    rows.append(("sqrt(hold_inside=False)", root, again_work(n, root), False))
    return rows


def borders(n, c):
    """Layers at which chunks 1 … C-1 begin; their inputs, the results of the layers before, are held."""
    return [k * n // c for k in range(1, c)]


def one_pass_work(n, c):
    return n - len(borders(n, c))


def again_work(n, c):
    """Each layer's backward replays from its chunk's start up to its own result; the last layer's result of a chunk but the last is held."""
    edges, total = [0, *borders(n, c), n], 0
    for index, (low, high) in enumerate(zip(edges, edges[1:])):
        size = high - low
        total += size * (size + 1) // 2 - (size if index < c - 1 else 0)
    return total


def measure(policy, n, width, batch):
    """(memory in activations, work in layers, CPU seconds of a step) of a settled step."""
    torch.manual_seed(0)
    chain, x = Chain(n, width), torch.randn(batch, width)
    for parameter in chain.parameters():
        parameter.grad = torch.zeros_like(parameter)
    reprise.auto_checkpoint(chain, "100%", policy=policy)
    for _ in range(3):
        before, start, cpu = reprise.counters(), reprise.memory_stats()["live_bytes"], time.process_time()
        reprise.reset_peaks()
        chain(x).sum().backward()
        cpu = time.process_time() - cpu
        peak, after = reprise.memory_stats()["peak_live_bytes"] - start, reprise.counters()
    reprise.undo()
    return peak / (4 * width * batch), (after["replayed"] - before["replayed"]) / OPERATORS_PER_LAYER, cpu


def table(n, width, batch):
    rows = []
    for policy, memory, work, one_pass in schemes(n):
        found_memory, found_work, cpu = measure(policy, n, width, batch)
        rows.append({"policy": policy, "memory_theory": memory, "memory": found_memory, "work_theory": work, "work": found_work, "cpu_seconds": cpu,
                     "allowed": memory + (3 if one_pass else 5) + 64 / (4 * width * batch)})
    return rows


def show(rows):
    print(f"{'scheme':30} {'memory':>8} {'theory':>8} {'work':>8} {'theory':>8} {'CPU s':>8}")
    for r in rows:
        marks = ("" if r["memory"] <= r["allowed"] else "  MEMORY ABOVE") + ("" if r["work"] == r["work_theory"] else "  OTHER WORK")
        print(f"{r['policy']:30} {r['memory']:8.2f} {r['memory_theory']:8} {r['work']:8.1f} {r['work_theory']:8} {r['cpu_seconds']:8.3f}{marks}")


def svg(rows, n):
    """Work against memory, both logarithmic: theory as rings, measured as dots."""
    wide, high, left, bottom = 640, 420, 60, 370
    top_work = max(r["work_theory"] for r in rows) * 1.3

    def place(memory, work):
        return left + (wide - left - 20) * math.log(max(1, memory)) / math.log(1.3 * n), bottom - (bottom - 20) * math.log1p(work) / math.log1p(top_work)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="11">', f'<rect width="{wide}" height="{high}" fill="white"/>',
             f'<path d="M{left} 20V{bottom}H{wide - 20}" fill="none" stroke="black"/>',
             f'<text x="{left}" y="14">layer forwards run again (log)</text>', f'<text x="{wide - 190}" y="{bottom + 34}">activations at the peak (log)</text>']
    for value in (1, 2, 4, 8, 16, 32, 64):
        if value <= n:
            parts.append(f'<text x="{place(value, 0)[0]:.0f}" y="{bottom + 16}" text-anchor="middle">{value}</text>')
    for value in (0, 10, 100, 1000):
        if value <= top_work:
            parts.append(f'<text x="{left - 6}" y="{place(1, value)[1] + 4:.0f}" text-anchor="end">{value}</text>')
    for r in rows:
        x, y = place(r["memory_theory"], r["work_theory"])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="6" fill="none" stroke="#888"/>')
        x, y = place(r["memory"], r["work"])
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#b03030"/><text x="{x + 8:.1f}" y="{y - 6:.1f}">{r["policy"]}</text>')
    parts.append(f'<text x="{wide - 190}" y="34">ring: theory, dot: measured, N = {n}</text></svg>')
    return "\n".join(parts) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--layers", type=int, default=64)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--svg", metavar="FILE", default="out/ladder.svg")
    args = parser.parse_args()
    rows = table(args.layers, args.width, args.batch)
    show(rows)
    path = pathlib.Path(args.svg)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(svg(rows, args.layers), encoding="utf-8")
    print(f"curve: {path}")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0 if all(r["memory"] <= r["allowed"] and r["work"] == r["work_theory"] for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
