"""Small models that stress one thing each: layers, sharing, views, randomness, numbers of other kinds."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from running import case, simple


class Attention(nn.Module):
    def __init__(self, width, heads, dropout=0.0):
        super().__init__()
        self.qkv, self.out, self.heads, self.dropout = nn.Linear(width, 3 * width), nn.Linear(width, width), heads, dropout

    def forward(self, x, mask=None):
        b, t, w = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=mask is None)
        return self.out(mixed.transpose(1, 2).flatten(2))


class Block(nn.Module):
    """A pre-norm Transformer block."""

    def __init__(self, width=64, heads=4, dropout=0.0, attention_dropout=0.0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, attention_dropout)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout))

    def forward(self, x, mask=None):
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))


class Stack(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Language(nn.Module):
    """Token ids in, logits out."""

    def __init__(self, blocks, width=64, vocabulary=64, tied=False):
        super().__init__()
        self.token, self.blocks, self.norm = nn.Embedding(vocabulary, width), Stack(blocks), nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary, bias=False)
        if tied:
            self.head.weight = self.token.weight

    def forward(self, ids):
        return self.head(self.norm(self.blocks(self.token(ids))))


def ids(batch=4, length=64, vocabulary=64):
    return torch.randint(0, vocabulary, (batch, length))


def next_token(model, tokens):
    return F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())


@case()
def mlp():
    return simple(nn.Sequential(*[m for _ in range(6) for m in (nn.Linear(128, 128), nn.ReLU())]), (torch.randn(256, 128),))


@case()
def gpt_flash():
    return simple(Language([Block(dropout=0.1) for _ in range(4)]), (ids(),), next_token)


@case()
def gpt_attention_dropout():
    return simple(Language([Block(dropout=0.1, attention_dropout=0.2) for _ in range(4)]), (ids(),), next_token)


@case()
def attention_with_bias():
    class Biased(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias, self.blocks = nn.Parameter(torch.randn(4, 32, 32) * 0.1), nn.ModuleList(Block() for _ in range(3))

        def forward(self, x):
            for block in self.blocks:
                x = block(x, self.bias + torch.full((32, 32), -1e9).triu(1))
            return x
    return simple(Biased(), (torch.randn(4, 32, 64),))


@case()
def conv_batchnorm_inplace_relu():
    layers = [nn.Sequential(nn.Conv2d(i, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.Dropout2d(0.1)) for i in (3, 16, 16, 16)]
    return simple(Stack(layers), (torch.randn(8, 3, 24, 24),))


@case()
def lstm():
    class Layers(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(48, 64, 2, batch_first=True, dropout=0.1, bidirectional=True), nn.Linear(128, 48)

        def forward(self, x):
            return self.head(self.lstm(x)[0])
    return simple(Stack([Layers(), Layers()]), (torch.randn(8, 24, 48),))


@case()
def gru():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(64, 64, 2, dropout=0.2)

        def forward(self, x):
            return self.gru(x)[0]
    return simple(Stack([Layer(), Layer()]), (torch.randn(20, 8, 64),))


@case()
def unrolled_rnn():
    class Unrolled(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.head = nn.LSTMCell(32, 64), nn.Linear(64, 32)

        def forward(self, x):
            h = c = x.new_zeros(x.shape[1], 64)
            out = []
            for frame in x:
                h, c = self.cell(frame, (h, c))
                out.append(self.head(h))
            return torch.stack(out)
    return simple(Unrolled(), (torch.randn(24, 16, 32),))


class Experts(nn.Module):
    """Top-2 of 4 experts; index_add gathers what they say."""

    def __init__(self, width=64):
        super().__init__()
        self.gate = nn.Linear(width, 4)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width)) for _ in range(4))

    def forward(self, x):
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        out = torch.zeros_like(x)
        for index, expert in enumerate(self.experts):
            token, place = torch.where(chosen == index)
            out.index_add_(0, token, expert(x[token]) * weights[token, place, None])
        return x + out


@case()
def mixture_of_experts():
    return simple(Stack([Experts(), Experts(), Experts()]), (torch.randn(256, 64),))


@case()
def scatter_graph_network():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.message, self.update = nn.Linear(64, 32), nn.Linear(64, 32)

        def forward(self, x, source, target):
            sent = self.message(torch.cat([x[source], x[target]], -1)).relu()
            gathered = torch.zeros_like(x).scatter_reduce(0, target[:, None].expand_as(sent), sent, "amax", include_self=False)
            return x + self.update(torch.cat([x, gathered], -1)).tanh()

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(Layer() for _ in range(4))

        def forward(self, x, source, target):
            for layer in self.layers:
                x = layer(x, source, target)
            return x
    edges = torch.randint(0, 100, (2, 800))
    return simple(Network(), (torch.randn(100, 32), edges[0], edges[1]))


@case()
def tied_weights():
    return simple(Language([Block() for _ in range(3)], tied=True), (ids(),), next_token)


@case()
def shared_blocks():
    block, other = Block(dropout=0.1), Block()
    return simple(Stack([block, block, other, block]), (torch.randn(4, 64, 64),))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        y = x * x
        ctx.save_for_backward(x, y)
        ctx.offset = 1.0
        return y + ctx.offset

    @staticmethod
    def backward(ctx, g):
        x, y = ctx.saved_tensors
        return g * 2 * x + 0.125 * g * y


@case()
def custom_function():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(64, 64)

        def forward(self, x):
            return Square.apply(self.linear(x)).tanh()
    return simple(Stack([Layer() for _ in range(4)]), (torch.randn(128, 64),))


@case()
def bf16_autocast():
    def loss(model, tokens):
        with torch.autocast("cpu", torch.bfloat16):
            return next_token(model, tokens)
    return simple(Language([Block(dropout=0.1) for _ in range(3)]), (ids(),), loss)


@case()
def views_and_inplace_chains():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, 64) / 8)
            self.register_buffer("count", torch.zeros(()))

        def forward(self, x):
            self.count.add_(1)
            y = x @ self.weight
            y[:, :4] += 1
            y.mul_(0.5).tanh_()
            z = y.view(-1, 2, 32).clone()
            z[:, 0].sigmoid_()
            z = z.clone()
            z.transpose(1, 2)[:, ::2].mul_(0.5)
            return torch.cat([z.flatten(1) * y, x]).narrow(0, 0, x.shape[0]) + torch.rand_like(x)
    return simple(Stack([Layer() for _ in range(4)]), (torch.randn(64, 64),))


@case()
def complex_numbers():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(32, 32, dtype=torch.complex64) / 6)

        def forward(self, z):
            z = z @ self.weight
            return z * torch.sigmoid(z.abs()) + z.conj() * 0.1
    model = nn.Sequential(*[Layer() for _ in range(4)])
    return simple(model, (torch.randn(128, 32, dtype=torch.complex64),), lambda m, z: torch.view_as_real(m(z)).square().mean())


@case()
def fourier_mixer():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.filter, self.linear = nn.Parameter(torch.randn(33, 32, dtype=torch.complex64) * 0.2), nn.Linear(32, 32)

        def forward(self, x):
            mixed = torch.fft.irfft(torch.fft.rfft(x, dim=1) * self.filter, n=x.shape[1], dim=1)
            return x + F.gelu(self.linear(mixed))
    return simple(Stack([Layer() for _ in range(4)]), (torch.randn(4, 64, 32),))


@case()
def state_space():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.decay, self.inner, self.out = nn.Parameter(torch.randn(32)), nn.Linear(32, 64), nn.Linear(32, 32)

        def forward(self, x):
            value, gate = self.inner(x).chunk(2, -1)
            decay = -F.softplus(self.decay) * torch.arange(x.shape[1])[:, None] / 8
            state = torch.cumsum(value * torch.exp(-decay).clamp(max=1e4), 1) * torch.exp(decay)
            return x + self.out(state * gate.sigmoid())
    return simple(Stack([Layer() for _ in range(4)]), (torch.randn(4, 32, 32),))


@case()
def variational_autoencoder():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encode = nn.Sequential(nn.Linear(128, 96), nn.Tanh(), nn.Linear(96, 32))
            self.decode = nn.Sequential(nn.Linear(16, 96), nn.Tanh(), nn.Linear(96, 128))

        def forward(self, x):
            mean, log_variance = self.encode(x).chunk(2, -1)
            drawn = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
            return F.mse_loss(self.decode(drawn), x) - 0.5 * (1 + log_variance - mean.square() - log_variance.exp()).mean()
    return simple(Model(), (torch.randn(256, 128),))


@case()
def dilated_convolutions():
    class Layer(nn.Module):
        def __init__(self, dilation):
            super().__init__()
            self.conv, self.mix = nn.Conv1d(24, 48, 2, dilation=dilation, padding=dilation), nn.Conv1d(24, 24, 1)

        def forward(self, x):
            a, b = self.conv(x)[..., : x.shape[-1]].chunk(2, 1)
            return x + self.mix(torch.tanh(a) * torch.sigmoid(b))
    return simple(Stack([Layer(2 ** i) for i in range(4)]), (torch.randn(4, 24, 96),))


@case()
def convolution_3d():
    layers = [nn.Sequential(nn.Conv3d(i, 8, 3, padding=1), nn.InstanceNorm3d(8, affine=True), nn.LeakyReLU(0.1, inplace=True), nn.MaxPool3d(2)) for i in (1, 8)]
    return simple(nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 64, 4)), (torch.randn(2, 1, 16, 16, 16),))


@case()
def spectral_norm_parametrization():
    norm = nn.utils.parametrizations.spectral_norm
    return simple(nn.Sequential(*[m for _ in range(4) for m in (norm(nn.Linear(64, 64)), nn.Softplus())]), (torch.randn(128, 64),))


@case()
def weight_norm_parametrization():
    norm = nn.utils.parametrizations.weight_norm
    return simple(nn.Sequential(*[m for _ in range(4) for m in (norm(nn.Linear(64, 64)), nn.SiLU())]), (torch.randn(128, 64),))


@case()
def embedding_bag():
    model = nn.Sequential(nn.EmbeddingBag(100, 64, mode="mean"), nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64), nn.Tanh())
    return simple(model, (torch.randint(0, 100, (64, 12)),))


@case()
def low_rank_adapters():
    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen, self.down, self.up = nn.Linear(64, 64).requires_grad_(False), nn.Linear(64, 4, bias=False), nn.Linear(4, 64, bias=False)

        def forward(self, x):
            return F.gelu(self.frozen(x) + self.up(F.dropout(self.down(x), 0.1, self.training)))
    return simple(Stack([Adapted() for _ in range(4)]), (torch.randn(128, 64),))


@case()
def linear_algebra_float64():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = nn.Parameter(torch.randn(16, 16, dtype=torch.float64) / 4)

        def forward(self, x):
            gram = x @ x.mT + torch.eye(16, dtype=x.dtype)
            return torch.linalg.solve_triangular(torch.linalg.cholesky(gram), x @ self.mix, upper=False).tanh()
    return simple(Stack([Layer() for _ in range(3)]), (torch.randn(8, 16, 16, dtype=torch.float64),))


@case()
def einsum_and_gather():
    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.core = nn.Parameter(torch.randn(32, 8) * 0.3), nn.Parameter(torch.randn(32, 8, 32) * 0.2)

        def forward(self, x):
            rows = self.table[x.argmax(-1)]
            order = x.sort(-1).indices
            return torch.einsum("bi,ijk,bj->bk", x, self.core, rows).gather(1, order).tanh() + x
    return simple(Stack([Layer() for _ in range(4)]), (torch.randn(64, 32),))


@case()
def connectionist_temporal_classification():
    class Speech(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.gru, self.head = nn.Conv1d(16, 48, 3, padding=1), nn.GRU(48, 32, batch_first=True), nn.Linear(32, 12)

        def forward(self, x):
            return self.head(self.gru(F.relu(self.conv(x)).transpose(1, 2))[0]).log_softmax(-1).transpose(0, 1)
    targets, lengths = torch.randint(1, 12, (4, 6)), (torch.full((4,), 40), torch.full((4,), 6))
    return simple(Speech(), (torch.randn(4, 16, 40),), lambda m, x: F.ctc_loss(m(x), targets, *lengths))


@case()
def group_norm_and_pixel_shuffle():
    layers = [nn.Sequential(nn.Conv2d(8, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.Mish(), nn.PixelShuffle(2), nn.AvgPool2d(2)) for _ in range(3)]
    return simple(Stack(layers), (torch.randn(4, 8, 16, 16),))


@case()
def channels_last_convolutions():
    model = nn.Sequential(*[m for i in (3, 16, 16) for m in (nn.Conv2d(i, 16, 3, padding=1), nn.BatchNorm2d(16), nn.Hardswish())]).to(memory_format=torch.channels_last)
    return simple(model, (torch.randn(4, 3, 20, 20).to(memory_format=torch.channels_last),))
