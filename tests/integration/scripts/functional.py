"""Functional code without one module; knows nothing of reprise. Its last line is a digest of all losses and final parameters."""

import hashlib

import torch
import torch.nn.functional as F

torch.manual_seed(0)
torch.set_num_threads(2)
weights = [(torch.randn(384, 384) / 20).requires_grad_() for _ in range(12)]
digest = hashlib.sha256()
for step in range(6):
    x = torch.randn(2048, 384)
    h = x
    for weight in weights:
        h = h + F.dropout(F.silu(F.layer_norm(h, (384,)) @ weight), 0.1)
    loss = (h - x.roll(1, 1)).square().mean()
    gradients = torch.autograd.grad(loss, weights)
    with torch.no_grad():
        for weight, gradient in zip(weights, gradients):
            weight.sub_(gradient, alpha=0.1)
    digest.update(loss.detach().numpy().tobytes())
for weight in weights:
    digest.update(weight.detach().numpy().tobytes())
print("digest", digest.hexdigest())
