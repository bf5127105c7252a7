"""An FSDP2 training script that knows nothing of reprise. Each rank prints a digest of its losses and of its part of the parameters."""

import hashlib

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down, self.dropout = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width), nn.Dropout(0.1)

    def forward(self, x):
        return x + self.dropout(self.down(F.gelu(self.up(self.norm(x)))))


torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 128), *[Block(128) for _ in range(5)], nn.Linear(128, 10))
mesh = init_device_mesh("cpu", (dist.get_world_size(),))
for layer in model[1:-1]:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
torch.manual_seed(1 + dist.get_rank())
digest = hashlib.blake2b(digest_size=16)
for step in range(8):
    x = torch.randn(1024, 64)
    loss = F.cross_entropy(model(x), x[:, :10].cumsum(1).argmax(1))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    digest.update(loss.detach().numpy().tobytes())
for parameter in model.parameters():
    digest.update(parameter.to_local().detach().contiguous().numpy().tobytes())
print(f"digest {dist.get_rank()} {digest.hexdigest()}", flush=True)
dist.destroy_process_group()
