"""A transformers model inside a budget: GPT-2 with random weights on random tokens, compared with its plain run."""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

import reprise


def train(budget=None, steps=5):
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=1024, n_positions=128, n_embd=256, n_layer=6, n_head=4, use_cache=False, bos_token_id=0, eos_token_id=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    if budget is not None:
        reprise.auto_checkpoint(model, budget)
    losses = []
    for _ in range(steps):
        tokens = torch.randint(0, 1024, (4, 128))
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


plain = train()
budgeted = train("180MiB")
print(reprise.report())
print("losses equal to plain:", plain == budgeted)
raise SystemExit(plain != budgeted)
