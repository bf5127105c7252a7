"""Programs in which one rank fails; run on every rank."""

import os
import signal
import time

import torch.distributed as dist
from programs import Job, budget_of, build, train

FAILING = 1


def killed(step_of_death=3):
    def on_step(step):
        if step == step_of_death and dist.get_rank() == FAILING:
            os.kill(os.getpid(), signal.SIGKILL)
    return train(Job("fsdp2", steps=6), "100%", "full", on_step=on_step).losses


def raising(step_of_error=3):
    def on_step(step):
        if step == step_of_error and dist.get_rank() == FAILING:
            raise ValueError("this rank's data are broken")
    return train(Job("fsdp2", steps=6), "100%", "full", on_step=on_step).losses


def infeasible(engine):
    """The failing rank's budget leaves a tenth of what the step adds: the optimizer fits in there, no step does."""
    job = Job(engine, steps=6, batch=16)
    plain = train(job)
    return train(job, budget_of(plain, "activations", 0.1) if dist.get_rank() == FAILING else 4 * max(plain.peak_live_bytes))


def absent(seconds):
    """The failing rank makes its model, as all do, and then trains no step."""
    job = Job("ddp", steps=2)
    if dist.get_rank() != FAILING:
        return train(job, "100%").losses
    build(job)
    time.sleep(2 * seconds)
    return None
