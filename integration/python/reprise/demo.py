"""`python -m reprise demo`: a byte-level GPT trained plainly, then inside half of its activation bytes, and the proof that both runs are equal.

Each run is a process of its own with the same seeds. The plain one knows reprise only as an allocator that counts. From its peak comes the
budget of the other: the bytes live when a step starts (parameters, gradients, optimizer state, batch) plus a fraction of what the step adds.
Exit status: 0 when all losses and all final parameters are equal and reserved bytes never exceeded the budget, 1 otherwise."""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import asdict, dataclass

MIB = 1 << 20


@dataclass
class Settings:
    steps: int = 30
    layers: int = 9
    width: int = 320
    heads: int = 5
    length: int = 256
    batch: int = 8
    dropout: float = 0.1
    seed: int = 0
    data: str | None = None
    generate: int = 0
    policy: str = "auto"
    device: str = "cpu"


def read_text(path, limit=4 * MIB):
    """The user's file, or the Python standard library's sources, in a fixed order."""
    if path is not None:
        text = pathlib.Path(path).read_bytes()
    else:
        text, folder = b"", pathlib.Path(sysconfig.get_paths()["stdlib"])
        for source in sorted(folder.glob("*.py")):
            text += source.read_bytes()
            if len(text) >= limit:
                break
    return text[:limit]


def build_model(settings):
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class Block(nn.Module):
        def __init__(self, width, heads, dropout):
            super().__init__()
            self.heads = heads
            self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.dropout = nn.Dropout(dropout)

        def attend(self, x):
            batch, length, width = x.shape
            q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(mixed.transpose(1, 2).reshape(batch, length, width))

        def forward(self, x):
            x = x + self.dropout(self.attend(self.norm_attention(x)))
            return x + self.dropout(self.down(F.gelu(self.up(self.norm_mlp(x)))))

    class ByteGPT(nn.Module):
        def __init__(self):
            super().__init__()
            self.length = settings.length
            self.token, self.position = nn.Embedding(256, settings.width), nn.Embedding(settings.length, settings.width)
            self.dropout = nn.Dropout(settings.dropout)
            self.layers = nn.ModuleList(Block(settings.width, settings.heads, settings.dropout) for _ in range(settings.layers))
            self.norm, self.head = nn.LayerNorm(settings.width), nn.Linear(settings.width, 256, bias=False)

        def forward(self, ids):
            x = self.dropout(self.token(ids) + self.position(torch.arange(ids.shape[1], device=ids.device)))
            for layer in self.layers:
                x = layer(x)
            return self.head(self.norm(x))

    torch.manual_seed(settings.seed)
    return ByteGPT()


class Run:
    """One training run: model, optimizer and data from the settings alone, so that two processes do the same."""

    def __init__(self, settings):
        import torch

        self.settings, self.model = settings, build_model(settings).to(settings.device)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=6e-4)
        for parameter in self.model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        text = bytearray(read_text(settings.data))
        if len(text) <= settings.length + 1:
            raise SystemExit(f"reprise demo: the text has {len(text)} bytes; at least {settings.length + 2} are needed")
        self.text = torch.frombuffer(text, dtype=torch.uint8)
        self.draw = torch.Generator().manual_seed(settings.seed + 1)
        self.losses = []

    def batch(self):
        import torch

        length = self.settings.length
        starts = torch.randint(0, len(self.text) - length - 1, (self.settings.batch,), generator=self.draw)
        rows = torch.stack([self.text[s : s + length + 1] for s in starts.tolist()]).long()
        rows = rows.to(self.settings.device)
        return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()

    def step(self):
        """One optimizer step; gradients stay resident, so what the step adds to live bytes are its activations."""
        import torch.nn.functional as F

        ids, targets = self.batch()
        loss = F.cross_entropy(self.model(ids).flatten(0, 1), targets.flatten())
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self.losses.append(loss.detach())
        return loss.item()

    def sample(self, count):
        """Text drawn from the model, as bytes."""
        import torch

        self.model.eval()
        ids = self.text[: self.settings.length // 2].long()[None].to(self.settings.device)
        with torch.no_grad():
            for _ in range(count):
                logits = self.model(ids[:, -self.settings.length :])[0, -1] / 0.8
                drawn = torch.multinomial(logits.softmax(-1).cpu(), 1, generator=self.draw)[None]
                ids = torch.cat([ids, drawn.to(ids.device)], 1)
        return bytes(ids[0, -count:].tolist())


class Memory:
    """Live, allocated and reserved bytes of the device, now and at most since reset_peaks()."""

    def __init__(self, device):
        self.on_cuda = device != "cpu"

    def reset_peaks(self):
        import torch

        import reprise

        if self.on_cuda:
            torch.cuda.reset_peak_memory_stats()
        else:
            reprise.reset_peaks()

    def now(self):
        import torch

        import reprise

        if not self.on_cuda:
            return reprise.memory_stats()
        stats, figures = torch.cuda.memory_stats(), {}
        for ours, theirs in (("live", "requested"), ("allocated", "allocated"), ("reserved", "reserved")):
            figures[f"{ours}_bytes"] = stats[f"{theirs}_bytes.all.current"]
            figures[f"peak_{ours}_bytes"] = stats[f"{theirs}_bytes.all.peak"]
        return figures


def progress(name, index, steps, loss, tokens_per_second, stats, budget):
    """One line that overwrites itself on a terminal; every tenth step a line of its own elsewhere."""
    width = 24
    done = round(width * (index + 1) / steps)
    held = f"{stats['reserved_bytes'] / MIB:6.1f} MiB reserved, peak {stats['peak_reserved_bytes'] / MIB:6.1f}"
    limit = f" of {budget / MIB:.1f} MiB" if budget else " MiB (no budget)"
    line = f"{name:9} [{'#' * done}{'.' * (width - done)}] {index + 1:3}/{steps}  loss {loss:6.4f}  {tokens_per_second:6.0f} tokens/s  {held}{limit}"
    if sys.stderr.isatty():
        print("\r" + line, end="\n" if index + 1 == steps else "", file=sys.stderr, flush=True)
    elif (index + 1) % 10 == 0 or index + 1 == steps:
        print(line, file=sys.stderr, flush=True)


def train(settings, budget=None, on_step=None):
    """The run of one process: a Run and one row of figures per step. Without a budget reprise only counts.
    on_step(index, row) sees each row as it appears."""
    import reprise

    run, rows, memory = Run(settings), [], Memory(settings.device)
    if budget:
        reprise.auto_checkpoint(run.model, budget, policy=settings.policy)
    tokens = settings.batch * settings.length
    for index in range(settings.steps):
        memory.reset_peaks()
        before, wall, cpu = memory.now(), time.perf_counter(), time.process_time()
        loss = run.step()
        wall, cpu, after = time.perf_counter() - wall, time.process_time() - cpu, memory.now()
        row = {"loss": loss, "seconds": wall, "cpu_seconds": cpu, "start_live_bytes": before["live_bytes"], "live_bytes": after["live_bytes"],
               "peak_live_bytes": after["peak_live_bytes"], "peak_allocated_bytes": after["peak_allocated_bytes"],
               "peak_reserved_bytes": after["peak_reserved_bytes"]}
        rows.append(row)
        progress("budgeted" if budget else "plain", index, settings.steps, loss, tokens / wall, after, budget)
        if on_step:
            on_step(index, row)
    return run, rows


def child(settings, budget, out):
    """What a child process does: trains and leaves losses, parameters, figures and the report in a file."""
    import torch

    import reprise

    run, rows = train(settings, budget)
    result = {"losses": torch.stack(run.losses).cpu(), "parameters": {k: v.detach().cpu() for k, v in run.model.state_dict().items()}, "rows": rows,
              "parameter_count": sum(p.numel() for p in run.model.parameters()), "device": device_name(settings.device)}
    if budget:
        report = reprise.report()
        result.update(report_text=str(report), report=report.data)
        reprise.undo(run.model)
    if settings.generate:
        result["sample"] = run.sample(settings.generate)
    torch.save(result, out)


def spawn(settings, budget, folder):
    """Runs child() in a process of its own and returns what it left."""
    import torch

    out = os.path.join(folder, "budgeted.pt" if budget else "plain.pt")
    command = [sys.executable, "-m", "reprise", "demo", "--child", json.dumps({"settings": asdict(settings), "budget": budget, "out": out})]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("REPRISE")}
    environment["REPRISE"] = "1"
    status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode
    if status != 0:
        raise SystemExit(f"reprise demo: the {'budgeted' if budget else 'plain'} run ended with status {status}")
    return torch.load(out, weights_only=False)


def settled(rows):
    """Rows of the steps after optimizer state has appeared and the first plan has been made."""
    return rows[2:] if len(rows) > 4 else rows[-1:]


def budget_for(rows, fraction):
    """Bytes live at the start of a settled step plus `fraction` of what the step adds, and those two figures."""
    start = max(r["start_live_bytes"] for r in settled(rows))
    added = max(r["peak_live_bytes"] - r["start_live_bytes"] for r in settled(rows))
    return start + math.floor(fraction * added), start, added


def compare(plain, budgeted, budget):
    """The claims, each true or false."""
    import torch

    same_keys = plain["parameters"].keys() == budgeted["parameters"].keys()
    return {"losses_equal": torch.equal(plain["losses"], budgeted["losses"]),
            "parameters_equal": same_keys and all(torch.equal(v, budgeted["parameters"][k]) for k, v in plain["parameters"].items()),
            "cap_held": max(r["peak_reserved_bytes"] for r in budgeted["rows"]) <= budget}


def step_figures(rows, start):
    middle = settled(rows)
    return {"step_seconds": statistics.median(r["seconds"] for r in middle), "step_cpu_seconds": statistics.median(r["cpu_seconds"] for r in middle),
            "peak_live_bytes": max(r["peak_live_bytes"] for r in rows), "peak_reserved_bytes": max(r["peak_reserved_bytes"] for r in rows),
            "activation_bytes": max(r["peak_live_bytes"] for r in middle) - start, "steps": rows}


def summary_text(result, settings):
    plain, budgeted, claims = result["plain"], result["budgeted"], result["claims"]
    def row(name, figures):
        return (f"  {name:9} activations {figures['activation_bytes'] / MIB:7.1f} MiB   peak live {figures['peak_live_bytes'] / MIB:7.1f} MiB   "
                f"peak reserved {figures['peak_reserved_bytes'] / MIB:7.1f} MiB   step {figures['step_seconds']:.2f} s ({figures['step_cpu_seconds']:.2f} s CPU)")
    yes = {True: "yes", False: "NO"}
    return "\n".join([
        "", f"byte-level GPT, {result['parameter_count'] / 1e6:.1f} M parameters, {settings.layers} layers, width {settings.width}, "
        f"{settings.batch} x {settings.length} bytes, dropout {settings.dropout}, AdamW, {settings.steps} steps, on: {result['device']}",
        row("plain", plain), row("budgeted", budgeted),
        f"  budget    {result['budget_bytes'] / MIB:.1f} MiB = {result['start_live_bytes'] / MIB:.1f} MiB live at a step's start "
        f"+ {result['fraction']:.0%} of plain's {result['plain_activation_bytes'] / MIB:.1f} MiB of activations",
        f"  step time {budgeted['step_cpu_seconds'] / plain['step_cpu_seconds']:.3f} x plain (CPU time, medians)",
        f"  all {settings.steps} losses equal to the last bit: {yes[claims['losses_equal']]}; final parameters equal: {yes[claims['parameters_equal']]}; "
        f"reserved bytes within the budget in every step: {yes[claims['cap_held']]}"])


def parser():
    p = argparse.ArgumentParser(prog="python -m reprise demo", description=__doc__.split("\n\n")[0])
    p.add_argument("--steps", type=int, default=Settings.steps, help="optimizer steps of each run (default %(default)s)")
    p.add_argument("--data", metavar="FILE", help="text to train on (default: the Python standard library's sources)")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--fraction", type=float, default=0.5, help="part of plain's activation bytes to stay within (default %(default)s)")
    p.add_argument("--policy", default="auto", help="how to choose what is replayed (default %(default)s)")
    p.add_argument("--json", metavar="FILE", help="write everything as JSON")
    p.add_argument("--generate", type=int, nargs="?", const=300, default=0, metavar="BYTES", help="sample text from the trained model")
    p.add_argument("--batch", type=int, default=Settings.batch)
    p.add_argument("--child", help=argparse.SUPPRESS)
    return p


def run_both(settings, fraction):
    """Plain, then budgeted: the demo's whole result, and the two children's raw ones."""
    with tempfile.TemporaryDirectory(prefix="reprise-demo-") as folder:
        plain = spawn(settings, None, folder)
        budget, start, added = budget_for(plain["rows"], fraction)
        budgeted = spawn(settings, budget, folder)
    result = {"settings": asdict(settings), "fraction": fraction, "budget_bytes": budget, "start_live_bytes": start, "plain_activation_bytes": added,
              "parameter_count": plain["parameter_count"], "device": plain["device"], "plain": step_figures(plain["rows"], start), "budgeted": step_figures(budgeted["rows"], start),
              "claims": compare(plain, budgeted, budget), "report": budgeted["report"]}
    return result, budgeted


def device_name(device):
    import torch

    return torch.cuda.get_device_name() if device == "cuda" else "CPU"


def has_cuda():
    import torch

    return torch.cuda.is_available()


def main(arguments):
    args = parser().parse_args(arguments)
    if args.child:
        request = json.loads(args.child)
        child(Settings(**request["settings"]), request["budget"], request["out"])
        return 0
    if args.steps < 1 or args.batch < 1 or not 0 < args.fraction:
        print("reprise demo: --steps, --batch and --fraction must be positive", file=sys.stderr)
        return 2
    if args.device == "cuda" and not has_cuda():
        print("reprise demo: --device cuda needs a CUDA device (./dev demo --device cuda --simulated runs without one)", file=sys.stderr)
        return 2
    settings = Settings(steps=args.steps, batch=args.batch, data=args.data, generate=args.generate, policy=args.policy, device=args.device)
    started = time.perf_counter()
    result, budgeted = run_both(settings, args.fraction)
    result["total_seconds"] = time.perf_counter() - started
    print(budgeted["report_text"].rstrip())
    print(summary_text(result, settings))
    if "sample" in budgeted:
        print("\n" + budgeted["sample"].decode("utf-8", "replace"))
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0 if all(result["claims"].values()) else 1
