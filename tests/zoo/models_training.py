"""Ways to train: several backwards, gradients of gradients, checkpoints inside, exceptions, threads, hooks, changing shapes."""

import threading

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from models_basic import Block, Language, Stack, ids, next_token
from running import Program, case, simple


def feed_forward(width=64, depth=4, dropout=0.0):
    return nn.Sequential(*[m for _ in range(depth) for m in (nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width), nn.Dropout(dropout))])


class Checkpointed(nn.Module):
    def __init__(self, inner, reentrant):
        super().__init__()
        self.inner, self.reentrant = inner, reentrant

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=self.reentrant)


@case()
def checkpoint_inside():
    return simple(Stack([Checkpointed(Block(dropout=0.1), False), Block(), Checkpointed(Block(), False), Block()]), (torch.randn(4, 48, 64),))


@case()
def reentrant_checkpoint_inside():
    return simple(Stack([Block(dropout=0.1), Checkpointed(Block(dropout=0.1), True), Block()]), (torch.randn(4, 48, 64),))


@case()
def checkpoint_sequential_inside():
    model = nn.Sequential(*[Block() for _ in range(4)])
    return simple(nn.ModuleList([model, Block()]), (torch.randn(4, 32, 64, requires_grad=True),),
                  lambda m, x: m[1](checkpoint_sequential(m[0], 2, x, use_reentrant=False)).square().mean())


class Heads(nn.Module):
    """Three results; the last one's parameters are used by nobody who asks."""

    def __init__(self):
        super().__init__()
        self.body, self.left, self.right, self.unused = feed_forward(), nn.Linear(64, 8), nn.Linear(64, 16), nn.Linear(64, 16)

    def forward(self, x):
        x = self.body(x)
        return self.left(x).tanh(), self.right(x).sigmoid(), self.unused(x).exp()


@case()
def several_and_unused_outputs():
    return simple(Heads(), (torch.randn(96, 64),), lambda m, x: m(x)[0].square().mean() + m(x)[1].mean())


@case()
def two_backwards_of_one_graph():
    model, x = Heads(), torch.randn(96, 64)

    def step(index):
        left, right, _ = model(x)
        left.sum().backward(retain_graph=True)
        first = [p.grad.clone() for p in model.body.parameters()]
        right.square().mean().backward()
        return [left, right, *first]
    return Program(model, step)


@case()
def retain_graph():
    model, x = Language([Block(dropout=0.1) for _ in range(2)]), ids()

    def step(index):
        loss = next_token(model, x)
        loss.backward(retain_graph=True)
        once = [p.grad.clone() for p in model.parameters()]
        loss.backward(retain_graph=True)
        loss.backward()
        return [loss, *once]
    return Program(model, step)


@case()
def double_backward():
    model, x = nn.Sequential(*[m for _ in range(3) for m in (nn.Linear(32, 32), nn.Tanh(), nn.Softplus())]), torch.randn(64, 32)

    def step(index):
        point = x.clone().requires_grad_()
        value = model(point).square().sum()
        (slope,) = torch.autograd.grad(value, point, create_graph=True)
        loss = slope.square().mean() + value * 1e-3
        loss.backward()
        return [loss, slope, point.grad]
    return Program(model, step)


@case()
def third_derivative():
    model, x = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1)), torch.randn(1024, 8)

    def step(index):
        point = x.clone().requires_grad_()
        value = model(point).sum()
        for _ in range(2):
            (slope,) = torch.autograd.grad(value, point, create_graph=True)
            value = slope.square().sum()
        value.backward()
        return [value, point.grad]
    return Program(model, step)


@case()
def accumulation():
    model, optimizer_every = Language([Block(dropout=0.1) for _ in range(2)]), 3

    def step(index):
        losses = []
        for _ in range(optimizer_every):
            loss = next_token(model, ids()) / optimizer_every
            loss.backward()
            losses.append(loss)
        return losses
    return Program(model, step)


@case()
def generative_adversary():
    model = nn.ModuleDict({"make": feed_forward(32, 3), "judge": nn.Sequential(feed_forward(32, 3), nn.Linear(32, 1))})

    def step(index):
        real, noise = torch.randn(64, 32), torch.randn(64, 32)
        made = model["make"](noise)
        mixed = (real * 0.3 + made.detach() * 0.7).requires_grad_()
        (slope,) = torch.autograd.grad(model["judge"](mixed).sum(), mixed, create_graph=True)
        judged = F.softplus(-model["judge"](real)).mean() + F.softplus(model["judge"](made.detach())).mean() + slope.square().mean()
        judged.backward()
        fooled = F.softplus(-model["judge"](made)).mean()
        fooled.backward()
        return [judged, fooled]
    return Program(model, step)


@case()
def gradients_by_name():
    """autograd.grad with inputs: nothing is accumulated, some gradients are not asked for."""
    model, x = Stack([Block() for _ in range(3)]), torch.randn(4, 32, 64, requires_grad=True)

    def step(index):
        loss = model(x).square().mean()
        wanted = [x, model.layers[1].attention.qkv.weight, model.layers[0].norm1.bias]
        return [loss, *torch.autograd.grad(loss, wanted)]
    return Program(model, step)


class Stumbles(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after, self.fail = Block(dropout=0.1), Block(), False

    def forward(self, x):
        x = self.before(x)
        if self.fail:
            raise ValueError("stumbled")
        return self.after(x)


@case()
def exception_in_forward():
    model = Stack([Block(), Stumbles(), Block()])

    def step(index):
        x, said = torch.randn(4, 32, 64), []
        for model.layers[1].fail in (True, False) if index else (False,):
            try:
                loss = model(x).square().mean()
            except ValueError as error:
                said.append(str(error))
        loss.backward()
        return [loss, *said]
    return Program(model, step)


@case()
def exception_in_backward():
    class Refuses(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            raise ValueError("refused")
    model = Stack([Block(dropout=0.1), Block()])

    def step(index):
        x, said = torch.randn(4, 32, 64), []
        try:
            model.layers[1](Refuses.apply(model.layers[0](x))).sum().backward()
        except ValueError as error:
            said.append(str(error))
        loss = model(x).square().mean()
        loss.backward()
        return [loss, *said]
    return Program(model, step)


@case()
def graph_dropped_without_backward():
    model = Stack([Block(dropout=0.1) for _ in range(3)])

    def step(index):
        lost = model(torch.randn(4, 32, 64)).sum()
        del lost
        kept = model(torch.randn(4, 32, 64)).square().mean()
        kept.backward()
        return [kept]
    return Program(model, step)


@case()
def evaluation_between_steps():
    model = Language([Block(dropout=0.1) for _ in range(2)])

    def step(index):
        loss = next_token(model, ids())
        model.eval()
        graded = next_token(model, ids())          # a graph, never walked
        with torch.no_grad():
            free = next_token(model, ids())
        with torch.inference_mode():
            inference = next_token(model, ids()).item()
        model.train()
        loss.backward()
        return [loss, graded, free, inference]
    return Program(model, step)


@case(replays=False)
def forward_in_second_thread():
    model = Stack([Block(dropout=0.1) for _ in range(3)])

    def step(index):
        x, out = torch.randn(4, 32, 64), []
        thread = threading.Thread(target=lambda: out.append(model(x).square().mean()))
        thread.start()
        thread.join()
        out[0].backward()
        return out
    return Program(model, step)


@case()
def backward_in_second_thread():
    model = Stack([Block(dropout=0.1) for _ in range(3)])

    def step(index):
        loss = model(torch.randn(4, 32, 64)).square().mean()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
        return [loss]
    return Program(model, step)


@case()
def two_models_interleaved():
    model = nn.ModuleList([Stack([Block(), Block()]), Stack([Block(), Block()])])

    def step(index):
        first, second = model[0](torch.randn(4, 32, 64)), model[1](torch.randn(4, 16, 64))
        first.square().mean().backward()
        second.square().mean().backward()
        return [first, second]
    return Program(model, step)


@case()
def hooks_of_every_kind():
    model, seen = Stack([Block() for _ in range(3)]), []
    model.layers[0].register_forward_hook(lambda m, x, y: y * 1.5)
    model.layers[1].register_full_backward_hook(lambda m, gi, go: (gi[0] * 0.5,))
    model.layers[2].mlp[0].weight.register_hook(lambda g: g * 2)
    model.layers[2].mlp[0].weight.register_post_accumulate_grad_hook(lambda p: seen.append(p.grad.sum()))

    def step(index):
        seen.clear()
        hidden = model.layers[0](torch.randn(4, 32, 64))
        hidden.register_hook(lambda g: seen.append(g.sum()))
        hidden.retain_grad()
        loss = model.layers[2](model.layers[1](hidden)).square().mean()
        loss.backward()
        return [loss, hidden.grad, *seen]
    return Program(model, step)


@case()
def user_saved_tensor_hooks():
    model = Stack([Block() for _ in range(3)])

    def step(index):
        x = model.layers[0](torch.randn(4, 32, 64))
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.to(torch.float64), lambda t: t.to(torch.float32)):
            x = model.layers[1].mlp[2](F.relu(model.layers[1].mlp[0](x)))
        with torch.autograd.graph.save_on_cpu():
            x = model.layers[2](x)
        loss = x.square().mean()
        loss.backward()
        return [loss]
    return Program(model, step)


@case()
def teacher_without_gradients():
    model = nn.ModuleDict({"student": Stack([Block(dropout=0.1), Block()]), "teacher": Stack([Block(), Block()]).requires_grad_(False)})

    def step(index):
        x = torch.randn(4, 32, 64)
        with torch.no_grad():
            target = model["teacher"](x)
        loss = F.mse_loss(model["student"](x), target) + 0.1 * model["teacher"](model["student"].layers[0](x)).mean()
        loss.backward()
        with torch.no_grad():
            for slow, fast in zip(model["teacher"].parameters(), model["student"].parameters()):
                slow.lerp_(fast, 0.05)
        return [loss]
    return Program(model, step)


@case(steps=5)
def changing_lengths():
    model = Language([Block(dropout=0.1) for _ in range(3)])

    def step(index):
        loss = next_token(model, ids(length=(48, 48, 64, 40, 48)[index]))
        loss.backward()
        return [loss]
    return Program(model, step)


@case(steps=5)
def layers_left_out_at_random():
    model = Stack([Block() for _ in range(4)])

    def step(index):
        x, kept = torch.randn(4, 32, 64), (torch.rand(4) > 0.3).tolist()
        for block, run in zip(model.layers, kept):
            x = block(x) if run else x
        loss = x.square().mean() + 0 * sum(p.sum() for p in model.parameters())
        loss.backward()
        return [loss, sum(kept)]
    return Program(model, step)


@case()
def explicit_generator():
    generator = torch.Generator().manual_seed(7)

    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            noise = torch.randn(x.shape, generator=generator)
            return F.gelu(self.linear(x) * (1 + 0.1 * noise)) * torch.empty_like(x).bernoulli_(0.9, generator=generator)
    model = Stack([Noisy() for _ in range(4)])

    def step(index):
        loss = model(torch.randn(64, 64)).square().mean()
        loss.backward()
        return [loss, generator.get_state()]
    return Program(model, step)


@case()
def reseeded_between_forward_and_backward():
    model = Stack([Block(dropout=0.3) for _ in range(3)])

    def step(index):
        loss = model(torch.randn(4, 32, 64)).square().mean()
        torch.manual_seed(99)
        noise = torch.randn(8)
        loss.backward()
        return [loss, noise, torch.randn(8)]
    return Program(model, step)


@case()
def functional_code():
    """No module computes anything: parameters in a list, functions on them."""
    weights = [torch.randn(64, 64) / 8 for _ in range(6)]
    model = nn.ParameterList([nn.Parameter(w) for w in weights])

    def step(index):
        x = torch.randn(96, 64)
        for weight in model:
            x = x + F.dropout(F.gelu(F.layer_norm(x, (64,)) @ weight), 0.1)
        loss = x.square().mean()
        loss.backward()
        return [loss]
    return Program(model, step)


@case()
def gradient_of_inputs_and_kept_activations():
    """The user keeps intermediate results and reads them after backward."""
    model, x = Stack([Block() for _ in range(3)]), torch.randn(4, 32, 64, requires_grad=True)

    def step(index):
        x.grad = None
        kept, h = [], x
        for block in model.layers:
            h = block(h)
            kept.append(h.detach())
        h.square().mean().backward()
        return [*kept, x.grad]
    return Program(model, step)
