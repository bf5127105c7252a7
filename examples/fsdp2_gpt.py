"""The demo's GPT under FSDP2 and a budget for each rank. Two or four processes on one machine:

    torchrun --standalone --nproc-per-node 2 examples/fsdp2_gpt.py --budget 60MiB

All ranks follow one plan, which they agree on through torch's store: same hash on all, and no collective more than without reprise."""

import argparse

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import reprise
from reprise.demo import Settings, build_model

parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
parser.add_argument("--budget", default="60MiB", help="for each rank (default %(default)s); '' measures only")
parser.add_argument("--steps", type=int, default=8)
parser.add_argument("--layers", type=int, default=6)
parser.add_argument("--width", type=int, default=192)
args = parser.parse_args()

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
settings = Settings(layers=args.layers, width=args.width, heads=4, length=128, batch=4)
model = build_model(settings)
mesh = init_device_mesh("cpu", (world,))
for layer in model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.AdamW(model.parameters(), lr=6e-4)

reprise.auto_checkpoint(model, args.budget or None)

draw = torch.Generator().manual_seed(rank)          # each rank its own data
for step in range(args.steps):
    ids = torch.randint(0, 256, (settings.batch, settings.length + 1), generator=draw)
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"rank {rank}, step {step}: loss {loss.item():.4f}, peak reserved {reprise.memory_stats()['peak_reserved_bytes'] / 2**20:.1f} MiB", flush=True)

rows = reprise.distributed.reports()                # every rank takes part
if rank == 0:
    print(reprise.distributed.merged(rows))
dist.destroy_process_group()
