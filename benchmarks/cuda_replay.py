"""Reserved over live bytes on a CUDA device: torch's own allocator, ours, and ours by plan, in the same run, on the *simulated* device (pages of 2 MiB, sizes rounded to 512).

usage: ./dev bench cuda_replay [--traces DIR] [--skip-training] [--skip-lifetimes] [--only MODEL…] [--json FILE]
Lifetimes (id,lower,upper,size) are replayed as four equal steps; `least cap` is the least of a list of shares of the live peak under which three steps complete. Training: steps
of real modules, of one length and of random ones, each allocator in a process of its own, and of one length at planned places too (the last four steps, with whatever a step has
beside its region); what kernels compute is nothing, what they allocate is torch's. The first three models are small (peaks of 170 to 490 MB, of which one page is up to 1.2 %); the
rest are of a real card's size, their gradients freed between two steps (freed) or not (kept).
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
SMALL, STEPS = ("encoder", "mlp", "llama"), 14
LARGE = ("gpt2 float32 freed", "gpt2 float32 kept", "gpt2 bfloat16 freed", "gpt2 bfloat16 kept", "llama-0.3B bfloat16 freed", "llama-0.3B bfloat16 kept", "resnet50 float32 freed")


def line(name, allocator, ratio, calls, least_cap=None):
    cap = "" if least_cap is None else "   none" if least_cap == 0 else f"{least_cap:7.3f}"
    print(f"{name:36} {allocator:8} reserved / live {ratio:7.4f}   device calls after 2 steps {calls:5}   least cap {cap}", flush=True)


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


def large_model_of(name):
    """The same, and its optimizer: GPT-2 small and a Llama at 8 x 1024 tokens under AdamW, ResNet-50 at 64 x 224 x 224 under SGD with momentum."""
    import torch

    with torch.device("cuda"):
        if name == "resnet50":
            import torchvision

            model, pictures, classes = torchvision.models.resnet50(), torch.randn(64, 3, 224, 224), torch.zeros(64, dtype=torch.long)
            return model, lambda _: torch.nn.functional.cross_entropy(model(pictures), classes), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

        shape = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 16, "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 32000}
        model = GPT2LMHeadModel(GPT2Config(use_cache=False)) if name == "gpt2" else LlamaForCausalLM(LlamaConfig(max_position_embeddings=1024, use_cache=False, **shape))
        tokens = torch.zeros(8, 1024, dtype=torch.long)
    return model, lambda _: model(input_ids=tokens, labels=tokens).loss, torch.optim.AdamW(model.parameters())


def model_of(name):
    """(what is trained, its loss for a length, its optimizer)"""
    import torch

    if name in {each.split()[0] for each in LARGE}:
        return large_model_of(name)
    model, loss_of = small_model_of(name)
    return model, loss_of, torch.optim.AdamW(model.parameters())


def small_model_of(name):
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

    large = name in LARGE
    device = simcuda.activate(memory_mib=81920 if large else 32768, hollow=large)
    import torch

    kind, number, gradients = name.split() if large else (name, "float32", "freed")
    model, loss_of, optimizer = model_of(kind)
    draw, calls = random.Random(1), []
    if planned:
        import reprise

        reprise.auto_checkpoint(model, "100%")
    for index in range(STEPS):
        if planned and index == STEPS - 4:
            torch.cuda.reset_peak_memory_stats()  # the places are known by now
        before = sum(map(device.calls, ("cudaMalloc", "cudaFree", "cuMemCreate", "cuMemUnmap")))
        with torch.autocast("cuda", torch.bfloat16, enabled=number == "bfloat16"):
            loss = loss_of(draw.randrange(80, 128) if varies else 128)
        loss.backward()
        del loss
        optimizer.step()
        optimizer.zero_grad(set_to_none=gradients == "freed")
        torch.cuda.synchronize()
        calls.append(sum(map(device.calls, ("cudaMalloc", "cudaFree", "cuMemCreate", "cuMemUnmap"))) - before)
    print(json.dumps({"name": f"{name}, {'random lengths' if varies else 'one length'}", "reserved": torch.cuda.max_memory_reserved(), "peak": torch.cuda.max_memory_allocated(),
                      "calls": calls}))


def training(names):
    rows = []
    for name in names:
        for varies in (False, True) if name in SMALL else (False,):
            for allocator in ("native", "ours") if varies else ("native", "ours", "planned"):
                run = subprocess.run([sys.executable, "-W", "ignore", __file__, "--one", name, str(int(varies)), str(int(allocator == "planned"))], capture_output=True, text=True, check=False,
                                     env={**os.environ, "REPRISE": "0" if allocator == "native" else "1", "REPRISE_LOG": "0"})
                if run.returncode != 0:
                    sys.exit(f"{name}: {run.stderr[-2000:]}")
                row = {**json.loads(run.stdout.splitlines()[-1]), "allocator": allocator}
                rows.append(row)
                line(row["name"], allocator, row["reserved"] / row["peak"], sum(row["calls"][2:]))
                print(f"    peak of live bytes {row['peak'] / 1e6:.0f} MB; device calls of each step: {' '.join(map(str, row['calls']))}", flush=True)
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--traces", default="")
    parser.add_argument("--skip-training", action="store_true")
    parser.add_argument("--skip-lifetimes", action="store_true")
    parser.add_argument("--only", nargs="+", default=SMALL + LARGE, choices=SMALL + LARGE, metavar="MODEL", help="of the training part")
    parser.add_argument("--json")
    parser.add_argument("--one", nargs=3, metavar=("MODEL", "VARIES", "PLANNED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        train(arguments.one[0], arguments.one[1] == "1", arguments.one[2] == "1")
        return
    print("simulated CUDA device")
    rows = {"lifetimes": [] if arguments.skip_lifetimes else lifetimes(arguments.traces), "training": [] if arguments.skip_training else training(arguments.only)}
    if arguments.json:
        pathlib.Path(arguments.json).write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
