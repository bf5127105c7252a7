"""A small GPT with dropout whose steps have random lengths. usage: lengths.py STEPS SEED BUDGET|0 RESULT.json
Leaves, per step, the loss and a hash of all gradients, and its peak of reserved bytes; at the end what is live and reserved. What is observed lies outside torch's memory."""

import gc
import hashlib
import json
import random
import sys

import torch
import torch.nn.functional as F

import reprise
from reprise import demo

steps, seed, budget, result = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
LONGEST = 64
model = demo.build_model(demo.Settings(layers=4, width=64, heads=4, length=LONGEST, batch=8, dropout=0.1, seed=seed))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
for parameter in model.parameters():
    parameter.grad = torch.zeros_like(parameter)
if budget:
    reprise.auto_checkpoint(model, budget)
draw, rows = random.Random(seed), []
torch.manual_seed(seed)
for index in range(steps):
    length = LONGEST if index == 0 else draw.randint(8, LONGEST)
    reprise.reset_peaks()
    start = reprise.memory_stats()["live_bytes"]
    ids = torch.randint(0, 256, (8, length + 1))
    loss = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    digest = hashlib.blake2b(digest_size=16)
    for parameter in model.parameters():
        digest.update(parameter.grad.numpy().tobytes())
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    stats = reprise.memory_stats()
    rows.append({"length": length, "loss": loss.item().hex(), "gradients": digest.hexdigest(), "start": start, "peak_live": stats["peak_live_bytes"], "peak_reserved": stats["peak_reserved_bytes"]})
    del ids, loss
gc.collect()
stats = reprise.memory_stats()
counters = reprise.counters()
with open(result, "w", encoding="utf-8") as file:
    json.dump({"rows": rows, "live_bytes": stats["live_bytes"], "reserved_bytes": stats["reserved_bytes"], "counters": counters,
               "parameters": {k: hashlib.blake2b(v.numpy().tobytes(), digest_size=16).hexdigest() for k, v in model.state_dict().items()}}, file)
