"""An ordinary CUDA training script, as `python -m reprise simulate` is given one: it knows nothing of reprise or of the simulator."""

import argparse

import torch
import torch.nn as nn

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--peak", action="store_true", help="stop after two steps and print the most bytes that were live")
options = parser.parse_args()


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


torch.manual_seed(0)
model = nn.Sequential(*[Block(256) for _ in range(8)]).cuda()
optimizer = torch.optim.AdamW(model.parameters())
for step in range(1_000_000):
    x = torch.randn(options.batch * 64, 256).cuda()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(step, loss.item())
    if options.peak and step == 1:
        print("peak", torch.cuda.max_memory_allocated())
        break
