"""The shortest use: two lines added to a training loop."""

import torch
import torch.nn as nn

import reprise

torch.manual_seed(0)
model = nn.Sequential(*[nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256)) for _ in range(12)])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

reprise.auto_checkpoint(model, "190MiB")

for step in range(6):
    x = torch.randn(2048, 256)
    loss = (model(x) - x.roll(1, dims=1)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.4f}, peak reserved {reprise.memory_stats()['peak_reserved_bytes'] / 2**20:.1f} MiB")

print(reprise.report())
