"""How each peer trains one of the measured models: arm(name, model name, Bench) changes the instance and returns what replaces the Bench's loss, or None.

A scheme that cannot serve a model raises Refused with its reason (the peer's own words where it has some); that is a row of the table, too.
Schemes: none, block_K (torch.utils.checkpoint on every K-th block), sqrt_sequential (checkpoint_sequential with √N segments), sac_matmuls and sac_attention
(selective checkpointing of each block that keeps matrix products / attention), compile_B (torch.compile with aot_eager and activation_memory_budget B),
ckptplan_F (its planner at a fraction F of its own estimate), remat (torch_remat on every block)."""

import dataclasses
import functools
import math
import types

import torch
import torch.nn as nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, checkpoint_sequential, create_selective_checkpoint_contexts

ATEN = torch.ops.aten
ATTENTION = ATEN._scaled_dot_product_flash_attention_for_cpu.default
PRODUCTS = {ATEN.mm.default, ATEN.addmm.default, ATEN.bmm.default, ATEN.baddbmm.default, ATEN.convolution.default, ATTENTION}


class Refused(Exception):
    """A peer does not serve this model."""


class Chained(nn.Module):
    """Stands where a model walked its blocks: runs all of them by `run(functions, hidden)`. What a caller passes beside the hidden state goes to each block."""

    def __init__(self, blocks, run):
        super().__init__()
        self.blocks, self.run = nn.ModuleList(blocks), run

    def forward(self, hidden, *rest, **named):
        return self.run([functools.partial(call, block, rest, named) for block in self.blocks], hidden)


def call(block, rest, named, hidden):
    return block(hidden, *rest, **named)


@dataclasses.dataclass
class Place:
    """The blocks of a model, and how to put something else in their place."""
    blocks: list
    replace: object = None      # replace(module); None: the blocks are no chain


def put(owner, name, walked):
    """Replaces owner.name, which its owner walks (a ModuleList) or calls."""
    return lambda module: setattr(owner, name, nn.ModuleList([module]) if walked else module)


def resnet_place(model):
    stages = (model.layer1, model.layer2, model.layer3, model.layer4)

    def replace(module):
        model.layer1, model.layer2, model.layer3, model.layer4 = module, nn.Identity(), nn.Identity(), nn.Identity()
    return Place([block for stage in stages for block in stage], replace)


def place_of(name, model):
    if name in ("gpt", "gpt_drop", "chain"):
        return Place(list(model.layers), put(model, "layers", True))
    if name == "llama":
        return Place(list(model.model.layers), put(model.model, "layers", True))
    if name in ("bert", "bert_drop"):
        return Place(list(model.bert.encoder.layer), put(model.bert.encoder, "layer", True))
    if name == "vit":
        return Place(list(model.encoder.layers), put(model.encoder, "layers", False))
    if name == "resnet50":
        return resnet_place(model)
    if name == "unet":
        return Place([*model.down, *reversed(model.up)])
    if name == "mlp":
        return Place([nn.Sequential(*model[i:i + 2]) for i in range(0, len(model) - 1, 2)] + [model[-1]], functools.partial(replace_children, model))
    raise ValueError(f"no blocks known for model {name!r}")


def replace_children(model, module):
    """Of a Sequential: all its children by one."""
    for index in range(1, len(model)):
        model[index] = nn.Identity()
    model[0] = module


def chain_of(place):
    if place.replace is None:
        raise Refused("its blocks are no chain of calls with one input")
    return place


def every(k, **options):
    def arm(name, bench):
        place = place_of(name, bench.model)
        for block in place.blocks[::k]:
            block.forward = functools.partial(checkpoint, block.forward, use_reentrant=False, **options)
        if name == "mlp":
            place.replace(nn.Sequential(*place.blocks))
    return arm


def keeping(operators):
    """Selective checkpointing: the results of these operators are kept, the rest of a block runs again."""
    def policy(context, operator, *args, **kwargs):
        return CheckpointPolicy.MUST_SAVE if operator in operators else CheckpointPolicy.PREFER_RECOMPUTE
    return every(1, context_fn=lambda: create_selective_checkpoint_contexts(policy))


def sqrt_sequential(name, bench):
    place = chain_of(place_of(name, bench.model))
    segments = max(1, round(math.sqrt(len(place.blocks))))
    place.replace(Chained(place.blocks, lambda functions, hidden: checkpoint_sequential(functions, segments, hidden, use_reentrant=False)))


def compiled(budget):
    def arm(name, bench):
        import torch._functorch.config as config
        run = torch.compile(bench.loss, backend="aot_eager")

        def loss(model, batch):
            with config.patch(activation_memory_budget=budget):
                return run(model, batch)
        return loss
    return arm


def remat(name, bench):
    try:
        import torch_remat
    except ImportError as error:
        raise Refused(str(error)) from error
    place = place_of(name, bench.model)
    generator = types.SimpleNamespace(snapshot=torch.get_rng_state, restore=torch.set_rng_state)   # it does not keep random state itself
    for index, block in enumerate(place.blocks):
        block.forward = torch_remat.checkpoint(region_name=f"block{index}", recompute_state_hooks=(generator,))(block.forward)
    if name == "mlp":
        place.replace(nn.Sequential(*place.blocks))


class Link(nn.Module):
    """A block as a module of one input; the rest comes from the call that reaches the chain."""

    def __init__(self, block, given):
        super().__init__()
        self.block, self.given = block, given

    def forward(self, hidden):
        return self.block(hidden, *self.given["rest"], **self.given["named"])


def arrive(place, bench):
    """Runs up to the first block: what reaches it."""
    seen = {}

    def note(module, args, named):
        seen.update(hidden=args[0].detach(), rest=args[1:], named=named)
    hook = place.blocks[0].register_forward_pre_hook(note, with_kwargs=True)
    with torch.no_grad():
        bench.loss(bench.model, bench.batch)
    hook.remove()
    return seen


def kept_bytes(links, hidden):
    """Bytes that each link holds for its backward, beside its input."""
    import reprise

    out = []
    for link in links:
        hidden = hidden.detach().requires_grad_()
        before = reprise.memory_stats()["live_bytes"]
        result = link(hidden)
        out.append(max(0, reprise.memory_stats()["live_bytes"] - before - hidden.untyped_storage().nbytes()))
        hidden = result
    return out


def ckptplan(fraction):
    """Its profiler and planner. On a CPU it has no bytes of its own and refuses to plan, so it is given this harness's."""
    def arm(name, bench):
        try:
            import ckptplan as tool
        except ImportError as error:
            raise Refused(str(error)) from error
        place = chain_of(place_of(name, bench.model))
        given = arrive(place, bench)
        links = [Link(block, given) for block in place.blocks]
        buffers = {n: b.clone() for n, b in bench.model.named_buffers()}
        blocks = tool.declare_blocks(nn.ModuleList(links), [(f"b{i}", link) for i, link in enumerate(links)])
        measured = tool.profile_blocks(blocks, (given["hidden"],), device="cpu", num_warmup=1, num_trials=3)
        held = kept_bytes(links, given["hidden"])
        profiles = [dataclasses.replace(p, timing_only=False, activation_bytes_estimate=b, activation_bytes_method="isolated_forward_delta") for p, b in zip(measured, held)]
        try:
            plan = tool.plan_checkpoints(profiles, blocks, target_kind="activation_budget_bytes", target_value=fraction * sum(held), planner="dynamic_programming")
        except tool.InfeasibleTargetError as error:
            raise Refused(f"InfeasibleTargetError: {error}") from error
        for buffer_name, buffer in bench.model.named_buffers():
            if buffer_name in buffers:
                buffer.copy_(buffers[buffer_name])
        bench.model.zero_grad()
        chain = tool.apply_plan(blocks, plan, (given["hidden"],))
        holder = Chained(place.blocks, lambda functions, hidden: chain(hidden))
        first = holder.forward

        def forward(hidden, *rest, **named):
            given.update(rest=rest, named=named)
            return first(hidden)
        holder.forward = forward
        place.replace(holder)
    return arm


FIXED = {"none": lambda name, bench: None, "sqrt_sequential": sqrt_sequential, "sac_matmuls": keeping(PRODUCTS), "sac_attention": keeping({ATTENTION}), "remat": remat}
PEERS = ("block_1", "block_2", "block_4", "sqrt_sequential", "sac_matmuls", "sac_attention", "compile_0.1", "compile_0.3", "compile_0.5", "compile_0.7", "ckptplan_0.3",
         "ckptplan_0.5", "remat")


def arm(scheme, name, bench):
    if scheme in FIXED:
        return FIXED[scheme](name, bench)
    kind, _, number = scheme.partition("_")
    makers = {"block": lambda n: every(int(n)), "compile": lambda n: compiled(float(n)), "ckptplan": lambda n: ckptplan(float(n))}
    if kind not in makers:
        raise ValueError(f"no scheme {scheme!r}; there is: {', '.join([*FIXED, *(f'{k}_N' for k in makers)])}")
    return makers[kind](number)(name, bench)
