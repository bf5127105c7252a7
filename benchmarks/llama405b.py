"""63 GiB of activations: Llama 3 405B's step at batch 1, measured on the *simulated* device, and what each scheme leaves of it.

usage: ./dev bench llama405b [--layers N] [--json FILE]
The classic figure counts one hidden tensor of 4 x 16,384 bfloat16 features a layer: 126 layers x 4096 tokens x 65,536 x 2 bytes = 63.0 GiB. The first model has
just that one (an MLP without gate whose activation saves its result); its hidden tensors are counted as the allocator and the engine saw them.
The second is the real shape: 128 heads of 128, 8 of them for keys and values, an MLP of 53,248 with a gate. What autograd saves of it is listed per layer.
Parameters and gradients lie on the simulated device too (no host memory stands behind them); there is no optimizer. Sizes are exact, times a rough model's."""

import argparse
import collections
import json
import os
import pathlib
import sys

GIB, MIB = 1 << 30, 1 << 20
TOKENS, WIDTH, LAYERS, HEADS, KEYS, HIDDEN, VOCABULARY = 4096, 16384, 126, 128, 8, 53248, 128256
CLASSIC = ("none", "full", "per_block", "sqrt", "chunks(9)", "chunks(14)")


def start():
    sys.path.insert(0, os.path.join(os.environ["REPRISE_BUILD"], "tests", "simcuda"))
    os.environ["REPRISE"], os.environ["REPRISE_LOG"] = "1", "0"
    os.environ.update(SIMCUDA_TERA_OPERATIONS="989", SIMCUDA_GIGABYTES="3350")
    import simcuda

    return simcuda.activate(memory_mib=6 << 20, hollow=True, capability=90, name="Simulated H100, of 6 TiB")


def models():
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    class PlainLayer(nn.Module):
        """One hidden tensor of four times the width: saved by the activation as its result and by the second product as its input, which is the same tensor."""

        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

        def forward(self, x):
            return x + self.down(F.relu(self.up(x)))

    def rotated(x, turn):
        first, second = x.chunk(2, -1)
        return x * turn[0] + torch.cat([-second, first], -1) * turn[1]

    class LlamaLayer(nn.Module):
        def __init__(self):
            super().__init__()
            size = WIDTH // HEADS
            self.attention_norm, self.mlp_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
            self.q, self.k, self.v, self.o = (nn.Linear(a, b, bias=False) for a, b in ((WIDTH, WIDTH), (WIDTH, KEYS * size), (WIDTH, KEYS * size), (WIDTH, WIDTH)))
            self.gate, self.up, self.down = nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(WIDTH, HIDDEN, bias=False), nn.Linear(HIDDEN, WIDTH, bias=False)

        def forward(self, x, turn):
            h = self.attention_norm(x)
            q, k, v = (part.view(1, TOKENS, -1, WIDTH // HEADS).transpose(1, 2) for part in (self.q(h), self.k(h), self.v(h)))
            mixed = F.scaled_dot_product_attention(rotated(q, turn), rotated(k, turn), v, is_causal=True, enable_gqa=True)
            x = x + self.o(mixed.transpose(1, 2).reshape(1, TOKENS, WIDTH))
            h = self.mlp_norm(x)
            return x + self.down(F.silu(self.gate(h)) * self.up(h))

    class Stack(nn.Module):
        def __init__(self, layer, layers, llama):
            super().__init__()
            self.layers = nn.ModuleList(layer() for _ in range(layers))
            self.llama = llama
            if llama:
                self.embedding, self.norm, self.head = nn.Embedding(VOCABULARY, WIDTH), nn.RMSNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY, bias=False)

        def forward(self, x):
            if not self.llama:
                for layer in self.layers:
                    x = layer(x)
                return x.mean()
            turn = torch.ones(2, TOKENS, WIDTH // HEADS, device="cuda", dtype=torch.bfloat16)
            ids, x = x, self.embedding(x)
            for layer in self.layers:
                x = layer(x, turn)
            return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), ids.flatten())

    return {"classic": (lambda layers: Stack(PlainLayer, layers, False), lambda: torch.ones(1, TOKENS, WIDTH, device="cuda", dtype=torch.bfloat16)),
            "llama": (lambda layers: Stack(LlamaLayer, layers, True), lambda: torch.zeros(1, TOKENS, device="cuda", dtype=torch.long))}


def measured(name, layers):
    """The Profile of one step, and the bytes that the step added to what was there when its forward ended, by torch's own counters."""
    import torch

    import reprise

    build, batch = models()[name]
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        model = build(layers)
        torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    x = batch()
    reprise.auto_checkpoint(model, None)
    before = torch.cuda.memory_allocated()
    loss = model(x)
    held = torch.cuda.memory_allocated() - before
    torch.cuda.reset_peak_memory_stats()
    loss.backward()
    del loss
    return {"parameters": sum(p.numel() for p in model.parameters()), "held_when_forward_ends": held, "profile": reprise.profile().data["body"], "resident": before}


def saved_by_shape(profile, layers):
    """(operator, bytes of one, how many, of them in each layer) of what autograd saves and the step made, most bytes first."""
    rows = collections.Counter()
    for value in profile["values"]:
        if value["saved"] and value["makers"]:
            rows[profile["ops"][value["makers"][-1]]["name"], value["bytes"]] += 1
    return sorted(((name, size, count, count / layers) for (name, size), count in rows.items()), key=lambda row: -row[1] * row[2])


def schemes(names, limits):
    import reprise

    for name in names:
        yield name, reprise.plan(policy=name).data["body"]
    for limit in limits:
        yield f"auto, {limit / GIB:.0f} GiB", reprise.plan(budget=limit).data["body"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--part", choices=("classic", "llama"), default=None)
    parser.add_argument("--json")
    options = parser.parse_args()
    start()
    found = {}
    for part in ("classic", "llama") if options.part is None else (options.part,):
        result = found[part] = measured(part, options.layers)
        rows = saved_by_shape(result["profile"], options.layers)
        print(f"{part}: {options.layers} layers, {result['parameters'] / 1e9:.1f} billion parameters, 1 x {TOKENS} tokens, bfloat16, simulated")
        print(f"  held for backward when the forward ends: {result['held_when_forward_ends'] / GIB:.2f} GiB")
        if part == "classic":
            hidden = [row for row in rows if row[1] == TOKENS * 4 * WIDTH * 2]
            bytes_of_them = result["hidden_bytes"] = sum(size * count for _, size, count, _ in hidden)
            print(f"  of it hidden tensors of {TOKENS} x {4 * WIDTH}: {sum(row[2] for row in hidden)} of {TOKENS * 4 * WIDTH * 2 / MIB:.0f} MiB = {bytes_of_them / GIB:.1f} GiB")
        for name, size, count, each in rows[:14]:
            print(f"  {size / MIB:8.1f} MiB x {count:4} ({each:4.1f} a layer) {name:45} {size * count / GIB:7.2f} GiB")
        result["schemes"] = {}
        step = 3 * sum(op["forward_seconds"] for op in result["profile"]["ops"])
        for name, plan in schemes(CLASSIC, (60 * GIB, 30 * GIB) if part == "llama" else ()):
            result["schemes"][name] = {"peak_bytes": plan["predicted_live_bytes"], "added_seconds": plan["added_seconds"]}
            print(f"  {name:14} peak above the step's start {plan['predicted_live_bytes'] / GIB:7.2f} GiB, {100 * plan['added_seconds'] / step:5.1f} % of three times the forward")
        del result["profile"]
        import gc

        gc.collect()
        import torch

        torch.cuda.empty_cache()
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps({**found, "simulated": True}, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
