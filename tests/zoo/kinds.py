"""Tensors outside the allow list (kept and counted, never a crash), and settings changed between forward and backward."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from models_basic import Block, Language, Stack, ids, next_token
from running import Program, case, simple


@case()
def sparse_gradients():
    model = nn.Sequential(nn.Embedding(50, 32, sparse=True), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))
    return simple(model, (torch.randint(0, 50, (8, 16)),))


@case()
def sparse_matrices():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(32, 32)
            self.adjacency = (0.1 * (torch.rand(64, 64) < 0.1)).to_sparse()
            self.rows = (0.1 * (torch.rand(64, 64) < 0.1)).to_sparse_csr()

        def forward(self, x):
            x = F.gelu(torch.sparse.mm(self.adjacency, self.linear(x)))
            return F.gelu(self.rows @ x) + x
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(64, 32),))


@case()
def fake_quantised_weights():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            weight = torch.fake_quantize_per_tensor_affine(self.linear.weight, 0.02, 0, -128, 127)
            return F.gelu(F.linear(x, weight, self.linear.bias))
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(64, 64),))


@case()
def quantised_tensors():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            y = self.linear(x)
            with torch.no_grad():
                coarse = torch.quantize_per_tensor(y, 0.05, 128, torch.quint8)
                fine = coarse.clone().dequantize()
            return F.gelu(y + (fine - y).detach())
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(64, 64),))


@case()
def nested_strided():
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def loss(m, a, b):
        nested = torch.nested.nested_tensor([a, b])
        return torch.nested.to_padded_tensor(m(nested), 0.0).square().mean()
    return simple(model, (torch.randn(5, 32), torch.randn(9, 32)), loss)


@case()
def nested_jagged():
    model = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def loss(m, a, b):
        nested = torch.nested.nested_tensor([a, b], layout=torch.jagged)
        return sum(part.square().mean() for part in m(nested).unbind())
    return simple(model, (torch.randn(5, 32), torch.randn(9, 32)), loss)


@case()
def mkldnn_tensors():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            return F.gelu(self.linear(x).to_mkldnn().relu().to_dense())
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(64, 64),))


@case()
def conjugate_and_negative_views():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 32, dtype=torch.complex64) / 6)

        def forward(self, z):
            turned = z.conj() @ self.weight
            return torch.complex(turned.real.tanh(), turned.conj().imag.sin()) * z.abs().clamp(max=2)
    return simple(nn.Sequential(*[Layer() for _ in range(3)]), (torch.randn(64, 32, dtype=torch.complex64),),
                  lambda m, z: torch.view_as_real(m(z)).square().mean())


class Tagged(torch.Tensor):
    """A subclass with Python behaviour and no kernel of its own."""


class Wrapped(torch.Tensor):
    """A wrapper subclass: the real tensor is inside, operators arrive in Python."""

    @staticmethod
    def __new__(cls, inner):
        return torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=inner.device, requires_grad=False)

    def __init__(self, inner):
        self.inner = inner

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        def inside(x):
            return x.inner if isinstance(x, cls) else x
        out = function(*torch.utils._pytree.tree_map(inside, args), **torch.utils._pytree.tree_map(inside, kwargs or {}))
        return torch.utils._pytree.tree_map(lambda x: cls(x) if isinstance(x, torch.Tensor) else x, out)


@case()
def function_subclass():
    return simple(Stack([Block() for _ in range(2)]), (torch.randn(4, 32, 64).as_subclass(Tagged),), lambda m, x: m(x).square().mean().as_subclass(torch.Tensor))


@case(replays=False)
def dispatch_subclass():
    model, x = nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 32)), torch.randn(16, 32)

    def step(index):
        weight = Wrapped(x).requires_grad_()
        loss = model[2](F.gelu(weight * 2).sin()).square().mean()
        inner = loss.inner if isinstance(loss, Wrapped) else loss
        plain = model(x).square().mean()
        plain.backward()
        return [inner, plain]
    return Program(model, step)


@case()
def functorch_inside():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 32) / 6)

        def forward(self, x):
            slopes = torch.func.vmap(torch.func.grad(lambda row: (row @ self.weight).tanh().square().sum()))(x)
            return F.gelu(x @ self.weight) + 0.1 * slopes
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(48, 32),))


@case()
def forward_mode_inside():
    model = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Sigmoid())

    def loss(m, x):
        value, slope = torch.func.jvp(m, (x,), (torch.ones_like(x),))
        return value.square().mean() + slope.square().mean()
    return simple(model, (torch.randn(48, 32),), loss)


@torch.library.custom_op("reprise_zoo::noisy_scale", mutates_args=())
def noisy_scale(x: torch.Tensor, by: float) -> torch.Tensor:
    return x * by + torch.randn_like(x) * 0.01


noisy_scale.register_autograd(lambda ctx, g: (g * ctx.by, None), setup_context=lambda ctx, inputs, output: setattr(ctx, "by", inputs[1]))


@case()
def python_custom_operator():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            return F.gelu(noisy_scale(self.linear(x), 1.5))
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(64, 64),))


@case()
def uninitialised_memory_filled_later():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            y = torch.empty(x.shape[0], 128)
            y[:, :64] = self.linear(x)
            y[:, 64:] = x
            return F.gelu(y)[:, 32:96] + torch.empty_like(x).copy_(x)
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(64, 64),))


def changed(change, restore, make=None):
    """A program that changes a setting after forward and restores it after backward."""
    model = make() if make else Language([Block(dropout=0.1) for _ in range(2)])

    def step(index):
        loss = next_token(model, ids())
        change()
        try:
            loss.backward()
        finally:
            restore()
        return [loss]
    return Program(model, step)


class MakesTensors(nn.Module):
    """A block that creates tensors of the default type while it runs."""

    def __init__(self):
        super().__init__()
        self.block, self.linear = Block(), nn.Linear(64, 64)

    def forward(self, x):
        ramp = torch.linspace(0, 1, 64) + torch.ones(64) * 0.5 + torch.rand(64)
        return F.gelu(self.linear(self.block(x)) * ramp + torch.arange(64) / 64)


@case()
def default_dtype_changed():
    return changed(lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32),
                   lambda: Language([MakesTensors() for _ in range(2)]))


@case()
def thread_count_changed():
    return changed(lambda: torch.set_num_threads(1), lambda: torch.set_num_threads(2))


@case()
def matmul_precision_changed():
    return changed(lambda: torch.set_float32_matmul_precision("medium"), lambda: torch.set_float32_matmul_precision("highest"))


@case()
def deterministic_flag_changed():
    return changed(lambda: torch.use_deterministic_algorithms(True), lambda: torch.use_deterministic_algorithms(False))


@case()
def mkldnn_switched_off():
    def switch(on):
        torch.backends.mkldnn.enabled = on
    return changed(lambda: switch(False), lambda: switch(True))


@case()
def denormals_flushed():
    return changed(lambda: torch.set_flush_denormal(True), lambda: torch.set_flush_denormal(False))


@case()
def autocast_during_backward():
    context = []

    def enter():
        context.append(torch.autocast("cpu", torch.bfloat16))
        context[-1].__enter__()
    return changed(enter, lambda: context.pop().__exit__(None, None, None))


@case()
def gradients_disabled_during_backward():
    return changed(lambda: torch.set_grad_enabled(False), lambda: torch.set_grad_enabled(True))
