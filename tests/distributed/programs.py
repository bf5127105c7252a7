"""Training programs that a rank runs, plainly or under reprise, and what is observed of them. Imported by every rank's process."""

import contextlib
import gc
import hashlib
import re
from dataclasses import dataclass, field, replace

import torch
import torch.distributed as dist
import torch.nn as nn
import torch.nn.functional as F
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import reprise
from reprise.demo import Settings, build_model

VOCABULARY = 256


@dataclass
class Job:
    """One training run. engine: "ddp", "fsdp2", "hsdp" or "tensor". model: "gpt", the demo's, or "llama", of Hugging Face's transformers."""

    engine: str
    model: str = "gpt"
    steps: int = 20
    micro_batches: int = 1               # gradients are accumulated over so many; all but the last without communication
    reshard: object = None               # fully_shard's reshard_after_forward; None: its default
    half: bool = False                   # parameters gathered and computed in bfloat16, gradients reduced in float32
    offload: bool = False
    freed: bool = True                   # zero_grad(set_to_none=True)
    lengths: tuple = ()                  # sequence length per rank; (): all the model's
    layers: int = 4
    width: int = 64
    length: int = 64
    batch: int = 4
    dropout: float = 0.1


@dataclass
class Seen:
    """What one rank saw, in plain values."""

    losses: list = field(default_factory=list)
    state: dict = field(default_factory=dict)            # name -> fingerprint: parameters, optimizer state, generator
    collectives: list = field(default_factory=list)      # names in order
    start_live_bytes: list = field(default_factory=list) # per step
    peak_live_bytes: list = field(default_factory=list)
    peak_reserved_bytes: list = field(default_factory=list)
    counters: dict = field(default_factory=dict)
    report: dict = field(default_factory=dict)


def fingerprint(tensor):
    if isinstance(tensor, DTensor):
        tensor = tensor.to_local()
    tensor = tensor.detach().contiguous()
    raw = tensor.reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.blake2b(raw, digest_size=16).hexdigest()}"


def mesh_of(job):
    world = dist.get_world_size()
    if job.engine == "hsdp":
        return init_device_mesh("cpu", (2, world // 2), mesh_dim_names=("replicate", "shard"))
    return init_device_mesh("cpu", (world,))


def sharded(model, job):
    options = {"mesh": mesh_of(job)}
    if job.reshard is not None:
        options["reshard_after_forward"] = job.reshard
    if job.half:
        options["mp_policy"] = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    if job.offload:
        options["offload_policy"] = CPUOffloadPolicy(pin_memory=False)
    for layer in layers_of(model):
        fully_shard(layer, **options)
    return fully_shard(model, **options)


def tensor_parallel(model):
    """The two matrices of each layer's MLP cut over all ranks, as usual: by columns, then by rows."""
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for layer in model.layers:
        parallelize_module(layer, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    return model


def llama(job):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, hidden_size=job.width, intermediate_size=2 * job.width, num_hidden_layers=job.layers, num_attention_heads=4,
                                        num_key_value_heads=2, max_position_embeddings=job.length, attention_dropout=job.dropout, use_cache=False))


def layers_of(model):
    return model.model.layers if hasattr(model, "model") else model.layers


def logits_of(output):
    return getattr(output, "logits", output)


def build(job):
    if job.model == "llama":
        model = llama(job)
    else:
        model = build_model(Settings(layers=job.layers, width=job.width, heads=4, length=job.length, batch=job.batch, dropout=job.dropout))
    if job.engine == "ddp":
        return DistributedDataParallel(model)
    return tensor_parallel(model) if job.engine == "tensor" else sharded(model, job)


@contextlib.contextmanager
def communicating(model, wanted):
    """Gradients are reduced in the last micro-batch only."""
    if isinstance(model, DistributedDataParallel):
        with contextlib.nullcontext() if wanted else model.no_sync():
            yield
    else:
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(wanted)
        yield


COLLECTIVE = re.compile(r"^(c10d|_c10d_functional)::")


def collectives_of(profile):
    """Names of the collectives, in the order in which this rank called them. torch's own profiler sees them, whether reprise is there or not."""
    events = [(e.start_ns(), e.name()) for e in profile.profiler.kineto_results.events() if COLLECTIVE.match(e.name())]   # events() would build a tree of all
    return [name for _, name in sorted(events)]


def batches(job, step):
    """Each rank's own data."""
    rank = 0 if job.engine == "tensor" else dist.get_rank()   # tensor-parallel ranks share a batch
    length = job.lengths[rank] if job.lengths else job.length
    draw = torch.Generator().manual_seed(1000 * step + rank)
    return [torch.randint(0, VOCABULARY, (job.batch, length + 1), generator=draw) for _ in range(job.micro_batches)]


def take_step(model, optimizer, job, step):
    losses = []
    data = batches(job, step)
    for index, ids in enumerate(data):
        with communicating(model, index + 1 == len(data)):
            loss = F.cross_entropy(logits_of(model(ids[:, :-1])).flatten(0, 1).float(), ids[:, 1:].flatten()) / len(data)
            loss.backward()
        losses.append(loss.item())
    optimizer.step()
    optimizer.zero_grad(set_to_none=job.freed)
    return losses


def observe_state(seen, model, optimizer):
    names = {p: n for n, p in model.named_parameters()}
    for parameter, name in names.items():
        seen.state[name] = fingerprint(parameter)
        for key, value in optimizer.state[parameter].items():
            seen.state[f"{name}.{key}"] = fingerprint(value)
    seen.state["generator"] = fingerprint(torch.get_rng_state())


def train(job, budget=None, policy="auto", agree=True, on_step=None):
    """The whole run on this rank. budget: None trains plainly, a number of bytes or a list with one per rank trains under reprise.
    on_step(step) is called before each step."""
    gc.collect()                          # FSDP modules are reference cycles
    torch.manual_seed(7 if job.engine == "tensor" else 7 + dist.get_rank())
    seen = Seen()
    before = reprise.counters()
    model = build(job)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    try:
        if budget is not None:
            reprise.auto_checkpoint(model, budget[dist.get_rank()] if isinstance(budget, list) else budget, policy=policy, agree=agree)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            for step in range(job.steps):
                if on_step:
                    on_step(step)
                reprise.reset_peaks()
                seen.start_live_bytes.append(reprise.memory_stats()["live_bytes"])
                seen.losses.append(take_step(model, optimizer, job, step))
                stats = reprise.memory_stats()
                seen.peak_live_bytes.append(stats["peak_live_bytes"])
                seen.peak_reserved_bytes.append(stats["peak_reserved_bytes"])
        seen.collectives = collectives_of(profile)
        observe_state(seen, model, optimizer)
        after = reprise.counters()
        seen.counters = {k: after[k] - before[k] for k in after if isinstance(after[k], int)}
        if budget is not None:
            seen.report = reprise.report().data
    finally:
        reprise.undo()
    return seen


def both(job, steps, part=None, policy="auto", agree=True):
    """Plain, then under reprise. part: None leaves room for everything; ("peak", 0.6) is a budget of 60 % of plain's peak on this rank,
    ("activations", 0.6) one that leaves room for 60 % of what plain's step adds."""
    job = replace(job, steps=steps)
    plain = train(job)
    return plain, train(job, budget_of(plain, *part) if part else "100%", policy, agree)


def budget_of(plain, kind, fraction):
    start, peak = max(plain.start_live_bytes[2:]), max(plain.peak_live_bytes[2:])
    return int(fraction * peak) if kind == "peak" else int(1.02 * (start + fraction * (peak - start)))   # 2 % for the pieces' rounding


def refused():
    """A model of FSDP's first kind: what auto_checkpoint says of it, and the losses of three steps with it, before and after that was asked."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    def run(ask):
        torch.manual_seed(7)
        model = FullyShardedDataParallel(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)), device_id=torch.device("cpu"))
        text = None
        if ask:
            try:
                reprise.auto_checkpoint(model, "100%")
            except TypeError as error:
                text = str(error)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        losses = []
        for step in range(3):
            loss = model(torch.full((4, 16), 1.0 + step + dist.get_rank())).square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return text, losses, reprise.counters()["passes"]
    return run(False), run(True)


def pipeline(budget_part):
    """Two stages under GPipe, four micro-batches a step: losses and parameters of three steps, plainly and under reprise, and what the engine did."""
    from torch.distributed.pipelining import PipelineStage, ScheduleGPipe

    def run(budget):
        torch.manual_seed(7)
        blocks = [nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Dropout(0.1), nn.Linear(256, 64)) for _ in range(8)]
        rank = dist.get_rank()
        stage_module = nn.Sequential(*blocks[4 * rank:4 * rank + 4])
        schedule = ScheduleGPipe(PipelineStage(stage_module, rank, 2, torch.device("cpu")), 4, loss_fn=lambda out, wanted: (out - wanted).square().mean())
        optimizer = torch.optim.SGD(stage_module.parameters(), lr=0.1)
        before = reprise.counters()["replayed"]
        if budget is not None:
            reprise.auto_checkpoint(stage_module, budget, policy="auto" if budget_part else "full")
        seen, peak = [], 0
        torch.manual_seed(rank)
        try:
            for step in range(4):
                draw = torch.Generator().manual_seed(step)
                x, wanted = torch.randn(64, 64, generator=draw), torch.randn(64, 64, generator=draw)
                reprise.reset_peaks()
                losses = []
                schedule.step(*((x,) if rank == 0 else ()), **({"target": wanted, "losses": losses} if rank == 1 else {}))
                optimizer.step()
                optimizer.zero_grad()
                seen += [loss.item() for loss in losses]
                peak = reprise.memory_stats()["peak_reserved_bytes"]
            return seen, [fingerprint(p) for p in stage_module.parameters()], reprise.counters()["replayed"] - before, peak
        finally:
            reprise.undo()
    plain = run(None)
    return plain, run(int(budget_part * plain[3]) if budget_part else "100%")
