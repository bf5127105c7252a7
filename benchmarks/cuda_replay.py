"""Reserved over live bytes on a CUDA device: torch's own allocator, ours, and ours by plan, in the same run, on the *simulated* device (pages of 2 MiB, sizes rounded to 512).

usage: ./dev bench cuda_replay [--traces DIR] [--skip-training] [--json FILE]
Lifetimes (id,lower,upper,size) are replayed as four equal steps; `least cap` is the least of a list of shares of the live peak under which three steps complete. Training: steps
of real modules, of one length and of random ones, each allocator in a process of its own, and of one length at planned places too (the last four steps, with whatever a step has
beside its region); what kernels compute is nothing, what they allocate is torch's.
Device calls: pages or segments asked for or given back in a step; the figure is of the steps from the third on."""

import argparse
import glob
import json
import os
import pathlib
import random
import subprocess
import sys

BUILD = pathlib.Path(os.environ["REPRISE_BUILD"])
SIMCUDA = pathlib.Path(__file__).resolve().parent.parent / "tests" / "simcuda"
sys.path.insert(0, str(SIMCUDA))
MODELS, STEPS = ("encoder", "mlp", "llama"), 14


def line(name, allocator, ratio, calls, least_cap=None):
    cap = "" if least_cap is None else "   none" if least_cap == 0 else f"{least_cap:7.3f}"
    print(f"{name:24} {allocator:8} reserved / live {ratio:7.4f}   device calls after 2 steps {calls:5}   least cap {cap}", flush=True)


def lifetimes(folder):
    import simcuda

    environment = {**os.environ, "LD_PRELOAD": ":".join(map(str, simcuda.libraries())), "REPRISE_LOG": "0", "SIMCUDA_MEMORY_MIB": "65536"}
    files = sorted(glob.glob(f"{folder}/*.csv")) if folder else []
    run = subprocess.run([BUILD / "benchmarks" / "reprise_cuda_replay", *files], stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if run.returncode != 0:
        sys.exit(f"reprise_cuda_replay ended with {run.returncode}")
    rows = [json.loads(text) for text in run.stdout.splitlines()]
    for row in rows:
        line(row["name"], row["allocator"], row["reserved"] / row["peak"], sum(row["calls"][2:]), row.get("least_cap"))
    return rows


def model_of(name):
    """(what is trained, its loss for a length)"""
    import torch

    if name == "encoder":
        layer = torch.nn.TransformerEncoderLayer(512, 8, 2048, batch_first=True)
        model = torch.nn.TransformerEncoder(layer, 6, enable_nested_tensor=False).cuda()
        return model, lambda length: model(torch.randn(8, length, 512, device="cuda")).square().mean()
    if name == "mlp":
        model = torch.nn.Sequential(*[part for _ in range(8) for part in (torch.nn.Linear(777, 777), torch.nn.GELU(), torch.nn.Dropout(0.1))]).cuda()
        return model, lambda length: model(torch.randn(length * 13, 777, device="cuda")).square().mean()
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(LlamaConfig(hidden_size=256, intermediate_size=700, num_hidden_layers=6, num_attention_heads=8, vocab_size=3000, max_position_embeddings=512)).cuda()
    return model, lambda length: model(input_ids=torch.zeros(4, length, dtype=torch.long, device="cuda")).logits.float().square().mean()


def train(name, varies, planned):
    """In a process of its own: one JSON row. planned: under auto_checkpoint with all of the device's memory, so that a step that repeats lies at its places."""
    import simcuda

    device = simcuda.activate(memory_mib=32768)
    import torch

    model, loss_of = model_of(name)
    optimizer, draw, calls = torch.optim.AdamW(model.parameters()), random.Random(1), []
    if planned:
        import reprise

        reprise.auto_checkpoint(model, "100%")
    for index in range(STEPS):
        if planned and index == STEPS - 4:
            torch.cuda.reset_peak_memory_stats()  # the places are known by now
        before = sum(map(device.calls, ("cudaMalloc", "cudaFree", "cuMemCreate", "cuMemUnmap")))
        loss_of(draw.randrange(80, 128) if varies else 128).backward()
        optimizer.step()
        optimizer.zero_grad()
        torch.cuda.synchronize()
        calls.append(sum(map(device.calls, ("cudaMalloc", "cudaFree", "cuMemCreate", "cuMemUnmap"))) - before)
    print(json.dumps({"name": f"{name}, {'random lengths' if varies else 'one length'}", "reserved": torch.cuda.max_memory_reserved(), "peak": torch.cuda.max_memory_allocated(),
                      "calls": calls}))


def training():
    rows = []
    for name in MODELS:
        for varies in (False, True):
            for allocator in ("native", "ours") if varies else ("native", "ours", "planned"):
                run = subprocess.run([sys.executable, "-W", "ignore", __file__, "--one", name, str(int(varies)), str(int(allocator == "planned"))], capture_output=True, text=True, check=False,
                                     env={**os.environ, "REPRISE": "0" if allocator == "native" else "1", "REPRISE_LOG": "0"})
                if run.returncode != 0:
                    sys.exit(f"{name}: {run.stderr[-2000:]}")
                row = {**json.loads(run.stdout.splitlines()[-1]), "allocator": allocator}
                rows.append(row)
                line(row["name"], allocator, row["reserved"] / row["peak"], sum(row["calls"][2:]))
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--traces", default="")
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--json")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "VARIES", "PLANNED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        train(arguments.one[0], arguments.one[1] == "1", arguments.one[2] == "1")
        return
    print("simulated CUDA device")
    rows = {"lifetimes": lifetimes(arguments.traces), "training": [] if arguments.skip_training else training()}
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
