"""Trains some steps and prints what it saw as JSON: resumed.py FIRST END [--budget BYTES] [--load FOLDER] [--save FOLDER] [--other]."""

import argparse
import hashlib
import json
import pathlib

import torch
import torch.nn as nn
import torch.nn.functional as F

import reprise

parser = argparse.ArgumentParser()
parser.add_argument("first", type=int)
parser.add_argument("end", type=int)
parser.add_argument("--budget", type=int)
parser.add_argument("--load", type=pathlib.Path)
parser.add_argument("--save", type=pathlib.Path)
parser.add_argument("--other", action="store_true", help="another activation function than the one that was learned")
args = parser.parse_args()


class Layer(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x):
        return x + F.dropout((torch.tanh if args.other else F.gelu)(self.linear(x)), 0.1)


torch.manual_seed(0)
model = nn.Sequential(*[Layer(256) for _ in range(8)])
optimizer = torch.optim.AdamW(model.parameters())
if args.load:
    state = torch.load(args.load / "checkpoint.pt")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
if args.budget:
    reprise.auto_checkpoint(model, args.budget)
    if args.load:
        reprise.resume(reprise.Learned.load(args.load / "learned.json"))
losses, learned = [], []
for step in range(args.first, args.end):
    torch.manual_seed(1000 + step)
    loss = model(torch.randn(1024, 256)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    losses.append(loss.item().hex())
    learned.append(reprise.counters()["learned"])
if args.save:
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, args.save / "checkpoint.pt")
    reprise.learned().save(args.save / "learned.json")
digest = hashlib.sha256()
for parameter in model.parameters():
    digest.update(parameter.detach().numpy().tobytes())
print(json.dumps({"losses": losses, "parameters": digest.hexdigest(), "learned": learned, "counters": reprise.counters(), "memory": reprise.memory_stats(),
                  "plan": reprise.report().data.get("plan") if args.budget else None}))
