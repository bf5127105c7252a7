"""A short budgeted training run against the plain one, for torch versions that are not tested fully. Prints one line."""

import sys

import torch
import torch.nn as nn

import reprise


def train(budget):
    torch.manual_seed(0)
    layers = [nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64), nn.Dropout(0.1)) for _ in range(6)]
    model, losses = nn.Sequential(*layers), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    if budget:
        reprise.auto_checkpoint(model, budget, policy="per_block")
    for _ in range(4):
        loss = model(torch.randn(512, 64)).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
    counters = reprise.counters()
    reprise.undo()
    return torch.stack(losses), [p.detach() for p in model.parameters()], counters


plain_losses, plain_parameters, _ = train(None)
losses, parameters, counters = train("1GiB")
equal = torch.equal(plain_losses, losses) and all(map(torch.equal, plain_parameters, parameters))
print(f"torch {torch.__version__}: {'equal' if equal else 'DIFFERENT'}, {counters['replayed']} ops replayed, {counters['dropped']} values dropped")
sys.exit(0 if equal and counters["replayed"] > 0 else 1)
