"""Steps for `python -m reprise largest-batch`: a small network whose activations grow with the batch, and steps that cannot be used."""

import torch
import torch.nn as nn

torch.manual_seed(0)
model = nn.Sequential(*[nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64)) for _ in range(4)])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)


def step(batch):
    x = torch.randn(batch * 64, 64)
    (model(x) - x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)


def without_the_argument(batch):
    step(4)


def without_backward(batch):
    torch.randn(batch, 8)


def broken(batch):
    raise ZeroDivisionError("the script's own")


no_function = 3
