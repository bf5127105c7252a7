"""Programs that legally overwrite what a replay needs, programs that plain torch refuses, and writes that nobody sees.

Legal means: autograd did not save what is overwritten, so plain torch computes the right gradients. A replay would read the new content."""

import ctypes

import torch
import torch.nn as nn
import torch.nn.functional as F

from models_basic import Block, Stack
from running import Program, case, simple


def squares(y):
    return y.square().mean()


# ---- legal writes

@case()
def embedding_max_norm_twice():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.block = nn.Embedding(40, 64, max_norm=1.0), Block()

        def forward(self, a, b):
            return self.block(self.table(a) * 2) + F.gelu(self.table(b) * 3)
    return simple(Model(), (torch.randint(0, 40, (4, 16)), torch.randint(0, 40, (4, 16))))


@case()
def old_spectral_norm_twice():
    layer = nn.utils.spectral_norm(nn.Linear(64, 64))
    return simple(nn.Sequential(layer, nn.Tanh(), layer, nn.GELU(), nn.Linear(64, 64)), (torch.randn(64, 64),))


@case()
def batch_norm_shared_twice():
    norm = nn.BatchNorm1d(64)
    return simple(nn.Sequential(nn.Linear(64, 64), norm, nn.GELU(), nn.Linear(64, 64), norm, nn.Tanh()), (torch.randn(64, 64),))


@case()
def key_value_cache_by_slice():
    """The cache is written slice by slice under no_grad and read in between, as generation during training does."""
    class Cached(nn.Module):
        def __init__(self):
            super().__init__()
            self.proj, self.out = nn.Linear(64, 64), nn.Linear(64, 64)
            self.register_buffer("cache", torch.zeros(4, 32, 64))

        def forward(self, x):
            out = []
            for start in range(0, 32, 8):
                part = self.proj(x[:, start : start + 8])
                with torch.no_grad():
                    self.cache[:, start : start + 8] = part
                out.append(F.gelu(part + self.cache.mean(1, keepdim=True)))
            return self.out(torch.cat(out, 1))
    return simple(Stack([Cached(), Cached()]), (torch.randn(4, 32, 64),))


class Shifted(nn.Module):
    """Adds a buffer, which autograd does not save, and changes it by `update` right after."""

    def __init__(self, update):
        super().__init__()
        self.linear, self.update = nn.Linear(64, 64), update
        self.register_buffer("shift", torch.randn(64))

    def forward(self, x):
        y = self.linear(x)
        for _ in range(3):
            y = F.gelu(y + self.shift)
            with torch.no_grad():
                self.update(self.shift, y)
        return y


def shifted(update):
    return simple(Stack([Shifted(update) for _ in range(3)]), (torch.randn(64, 64),))


@case()
def buffer_counted_between_reads():
    return shifted(lambda shift, y: shift.add_(1))


@case()
def buffer_follows_average():
    return shifted(lambda shift, y: shift.lerp_(y.mean(0), 0.1))


@case()
def buffer_drawn_again():
    return shifted(lambda shift, y: shift.normal_())


@case()
def buffer_copied_over():
    return shifted(lambda shift, y: shift.copy_(y[0]))


@case()
def buffer_written_with_out():
    return shifted(lambda shift, y: torch.mul(y[1], 0.5, out=shift))


@case()
def buffer_written_by_foreach():
    return shifted(lambda shift, y: torch._foreach_mul_([shift, shift[:8]], 0.5))


@case()
def buffer_scattered_into():
    return shifted(lambda shift, y: shift.index_copy_(0, torch.tensor([1, 5]), y[0, :2]))


@case()
def buffer_resorted_through_view():
    return shifted(lambda shift, y: shift.view(8, 8)[2:4].copy_(shift.view(8, 8)[:2].clone()))


@case()
def input_buffer_refilled_before_backward():
    model, buffer = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)), torch.empty(64, 64)

    def step(index):
        buffer.copy_(torch.randn(64, 64))
        loss = squares(model(buffer + 1))
        buffer.zero_()
        loss.backward()
        return [loss]
    return Program(model, step)


@case()
def bias_stepped_before_backward():
    model, x = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.Tanh()), torch.randn(64, 64)

    def step(index):
        loss = squares(model(x))
        with torch.no_grad():
            model[0].bias.mul_(0.9)
            model[2].bias.add_(0.1)
        loss.backward()
        return [loss]
    return Program(model, step)


@case()
def first_weight_stepped_before_backward():
    """The input needs no gradient, so linear does not save its weight."""
    model, x = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)), torch.randn(64, 64)

    def step(index):
        loss = squares(model(x))
        with torch.no_grad():
            model[0].weight.mul_(0.9)
        loss.backward()
        return [loss]
    return Program(model, step)


class AfterUse(nn.Module):
    """An activation changed in place after a consumer that did not save it."""

    def __init__(self, change):
        super().__init__()
        self.linear, self.change = nn.Linear(64, 64), change

    def forward(self, x):
        y = self.linear(x) + 1
        z = y * 3
        y = self.change(y)
        return F.gelu(z) + y.sin()


@case()
def activation_changed_after_use():
    return simple(Stack([AfterUse(lambda y: y.add_(1)) for _ in range(3)]), (torch.randn(64, 64),))


@case()
def activation_changed_through_view():
    def change(y):
        y.t()[3:9].mul_(0.5)
        return y
    return simple(Stack([AfterUse(change) for _ in range(3)]), (torch.randn(64, 64),))


@case()
def activation_changed_through_detach():
    def change(y):
        y.detach().zero_()
        return y
    return simple(Stack([AfterUse(change) for _ in range(3)]), (torch.randn(64, 64),))


@case()
def activation_overwritten_whole():
    return simple(Stack([AfterUse(lambda y: y.copy_(y.flip(0).clone())) for _ in range(3)]), (torch.randn(64, 64),))


@case()
def scratch_buffer_shared_by_layers():
    scratch = torch.empty(64, 64)

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            with torch.no_grad():
                torch.mul(x, 0.5, out=scratch)
            return F.gelu(self.linear(x) + scratch)
    return simple(Stack([Layer() for _ in range(4)]), (torch.randn(64, 64),))


@case()
def memory_bank_written_before_backward():
    class Bank(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.at = nn.Linear(64, 64), 0
            self.register_buffer("bank", torch.randn(128, 64))

        def forward(self, x):
            q = self.linear(x)
            near = F.gelu(q + self.bank[self.at : self.at + 64])
            self.at = (self.at + 64) % 128
            self.bank[self.at : self.at + 64] = q.detach()
            return near.tanh()
    return simple(Stack([Bank(), Bank()]), (torch.randn(64, 64),))


@case()
def gradient_written_into_input_of_forward():
    """A hook uses the first layer's input as scratch space while backward runs."""
    model, x = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.Tanh()), torch.empty(64, 64)

    def step(index):
        x.copy_(torch.randn(64, 64))
        hidden = model[1](model[0](x + 1))
        loss = squares(model[3](model[2](hidden)))
        hidden.register_hook(lambda g: x.copy_(g) * 1)
        loss.backward()
        return [loss, x]
    return Program(model, step)


# ---- plain torch refuses these: the same error, and the next step works

def refused(spoil):
    """A program whose second step spoils what backward needs; the error's text is a result."""
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Sigmoid())

    def step(index):
        x, said = torch.randn(8, 16), []
        first = model[1](model[0](x))
        loss = squares(model[3](model[2](first)))
        if index == 1:
            try:
                spoil(model, first, loss)
                loss.backward()
            except RuntimeError as error:
                said.append(str(error))
            for p in model.parameters():
                p.grad = torch.zeros_like(p)
        else:
            loss.backward()
        return [loss, len(said), *said]
    return Program(model, step)


@case()
def refused_activation_changed():
    return refused(lambda model, first, loss: first.detach().add_(1))


@case()
def refused_weight_stepped():
    return refused(lambda model, first, loss: model[2].weight.detach().add_(1))


@case()
def refused_second_backward():
    return refused(lambda model, first, loss: loss.backward())


@case()
def refused_leaf_changed():
    return refused(lambda model, first, loss: model[0].weight.add_(1))


# ---- writes nobody sees: equal to plain, or an error of ours; never wrong numbers

class Foreign(torch.autograd.Function):
    """A custom Function whose forward changes its result where torch does not look."""

    @staticmethod
    def forward(ctx, x, write):
        y = x * 2
        write(y)
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g * y.sign() * 2, None


def numpy_write(tensor):
    tensor.detach().numpy()[..., :8] *= -1.5


def pointer_write(tensor):
    for i in range(8):
        ctypes.c_float.from_address(tensor.data_ptr() + 4 * i).value = -float(i + 1)


def moved_write(tensor):
    source = torch.full((16,), -0.25)
    ctypes.memmove(tensor.data_ptr(), source.data_ptr(), 64)


def foreign(write):
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            return F.gelu(Foreign.apply(self.linear(x), write))
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(64, 64),))


@case(unseen=True)
def unseen_numpy_in_function():
    return foreign(numpy_write)


@case(unseen=True)
def unseen_pointer_in_function():
    return foreign(pointer_write)


@case(unseen=True)
def unseen_memmove_in_function():
    return foreign(moved_write)


class WritesBetween(nn.Module):
    def __init__(self, write):
        super().__init__()
        self.linear, self.write = nn.Linear(64, 64), write

    def forward(self, x):
        y = self.linear(x) + 1
        self.write(y)
        return F.gelu(y)


@case(unseen=True)
def unseen_data_attribute():
    def write(y):
        y.data.mul_(0.5)
    return simple(Stack([WritesBetween(write) for _ in range(3)]), (torch.randn(64, 64),))


@case(unseen=True)
def unseen_numpy_between_ops():
    return simple(Stack([WritesBetween(numpy_write) for _ in range(3)]), (torch.randn(64, 64),))


def unseen_after_forward(write):
    model = nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.Tanh())

    def step(index):
        x = torch.randn(64, 64)
        loss = squares(model(x + 1))
        write(model, x)
        loss.backward()
        return [loss]
    return Program(model, step)


@case(unseen=True)
def unseen_numpy_into_input_after_forward():
    return unseen_after_forward(lambda model, x: numpy_write(x))


@case(unseen=True)
def unseen_data_of_bias_after_forward():
    return unseen_after_forward(lambda model, x: model[0].bias.data.add_(1))


@case(unseen=True)
def unseen_data_replaced_after_forward():
    def write(model, x):
        model[0].bias.data = model[0].bias.data + 1
    return unseen_after_forward(write)


@case(unseen=True)
def unseen_storage_resized_to_zero():
    return unseen_after_forward(lambda model, x: x.untyped_storage().resize_(0))
