"""A training script that knows nothing of reprise. Run it inside a budget without changing a line:

    REPRISE_BUDGET=120MiB REPRISE_REPORT=report.txt python examples/environment_only.py"""

import torch
import torch.nn as nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(64, 512), *[nn.Sequential(nn.Linear(512, 512), nn.GELU(), nn.Dropout(0.1)) for _ in range(8)], nn.Linear(512, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
for step in range(6):
    x = torch.randn(2048, 64)
    y = (x[:, :10].cumsum(1)).argmax(1)
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(f"step {step}: loss {loss.item():.6f}")
