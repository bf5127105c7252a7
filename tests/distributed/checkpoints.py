"""Saving and resuming with torch.distributed.checkpoint; run on every rank."""

from dataclasses import replace

import torch
import torch.distributed.checkpoint as dcp
from programs import Job, build, fingerprint, take_step
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, get_state_dict, set_state_dict

import reprise

JOB = Job("fsdp2", dropout=0.0)          # data and numbers depend on the number of ranks only through what a rank draws


def make(budget):
    torch.manual_seed(3)
    model = build(replace(JOB))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    if budget:
        reprise.auto_checkpoint(model, budget, policy="full")
    return model, optimizer


def whole(model):
    """The whole model's state by name, as get_model_state_dict gathers it on rank 0."""
    state = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    return {name: fingerprint(value) for name, value in state.items()}


def save(folder, budget):
    model, optimizer = make(budget)
    try:
        losses = [take_step(model, optimizer, JOB, step) for step in range(3)]
        model_state, optimizer_state = get_state_dict(model, optimizer)
        dcp.save({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)
        return losses, whole(model)
    finally:
        reprise.undo()


def resume(folder, budget):
    model, optimizer = make(budget)
    try:
        model_state, optimizer_state = get_state_dict(model, optimizer)
        dcp.load({"model": model_state, "optimizer": optimizer_state}, checkpoint_id=folder)
        set_state_dict(model, optimizer, model_state_dict=model_state, optim_state_dict=optimizer_state)
        resumed = whole(model)
        return resumed, [take_step(model, optimizer, JOB, step) for step in range(3, 6)], whole(model)
    finally:
        reprise.undo()
