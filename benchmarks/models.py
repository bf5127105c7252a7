"""The measured models: float32, random weights, a training step of 0.3 to 2 seconds on one core. Each maker returns a Bench.

Sizes are those of the comparison with other tools, so that figures can be put side by side."""

from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint


@dataclass
class Bench:
    model: nn.Module
    batch: tuple
    loss: Callable                       # loss(model, batch) -> scalar
    stack: nn.ModuleList | None = None   # the repeated blocks, where other tools can wrap them


class Attention(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.dropout = heads, dropout

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(width, -1))
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.dropout if self.training else 0.0)
        return F.dropout(self.out(mixed.transpose(1, 2).reshape(batch, length, width)), self.dropout, self.training)


class Block(nn.Module):
    def __init__(self, width, heads, dropout):
        super().__init__()
        self.norm1, self.attention, self.norm2 = nn.LayerNorm(width), Attention(width, heads, dropout), nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(dropout))

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    def __init__(self, layers, width, heads, length, vocabulary, dropout):
        super().__init__()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Parameter(torch.randn(length, width) * 0.02)
        self.layers = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

    def forward(self, ids):
        x = self.token(ids) + self.position[: ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


class Chain(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


class Unet(nn.Module):
    def __init__(self, width=24, depth=4, classes=4):
        super().__init__()
        sizes = [width * 2 ** i for i in range(depth + 1)]

        def convolve(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.GroupNorm(8, o), nn.SiLU(), nn.Conv2d(o, o, 3, padding=1, bias=False), nn.GroupNorm(8, o), nn.SiLU())
        self.down = nn.ModuleList(convolve(i, o) for i, o in zip([3, *sizes], sizes))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, stride=2) for i, o in zip(sizes, sizes[1:]))
        self.up = nn.ModuleList(convolve(2 * i, i) for i in sizes[:-1])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x):
        skips = []
        for index, stage in enumerate(self.down):
            x = stage(F.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for index in reversed(range(len(self.up))):
            x = self.up[index](torch.cat([self.grow[index](x), skips[index]], 1))
        return self.head(x)


def cross_entropy(model, batch):
    out = model(batch[0])
    out = getattr(out, "logits", out)
    if batch[1].dim() == 2:
        return F.cross_entropy(out.flatten(0, 1), batch[1].flatten())
    return F.cross_entropy(out, batch[1])


def tokens(batch, length, vocabulary=512):
    return tuple(torch.randint(0, vocabulary, (2, batch, length)))


def pictures(batch, side, classes=100):
    return torch.randn(batch, 3, side, side), torch.randint(0, classes, (batch,))


def gpt(dropout=0.0, layers=12, width=256, length=512, batch=2):
    model = Gpt(layers, width, 4, length, 512, dropout)
    return Bench(model, tokens(batch, length), cross_entropy, model.layers)


def gpt_drop():
    return gpt(0.1)


def gpt_100():
    """Deep and thin: for the planner's time and its distance from the bound."""
    return gpt(layers=100, width=128, length=256, batch=1)


def chain(layers=64, width=256, batch=4096):
    model = Chain(nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(layers))
    for layer in model.layers:
        nn.init.kaiming_normal_(layer[0].weight)
    return Bench(model, (torch.randn(batch, width),), lambda m, b: m(b[0]).square().mean(), model.layers)


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    model = LlamaForCausalLM(LlamaConfig(vocab_size=512, hidden_size=256, intermediate_size=688, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
                                         max_position_embeddings=512, use_cache=False, attn_implementation="sdpa"))
    return Bench(model, tokens(2, 512), cross_entropy)


def bert_drop():
    from transformers import BertConfig, BertForMaskedLM
    model = BertForMaskedLM(BertConfig(vocab_size=512, hidden_size=256, num_hidden_layers=6, num_attention_heads=4, intermediate_size=1024, max_position_embeddings=256))
    return Bench(model, tokens(4, 256), cross_entropy)


def resnet50():
    import torchvision
    return Bench(torchvision.models.resnet50(num_classes=100), pictures(8, 96), cross_entropy)


def vit():
    import torchvision
    model = torchvision.models.VisionTransformer(image_size=112, patch_size=16, num_layers=6, num_heads=12, hidden_dim=768, mlp_dim=3072, num_classes=100)
    nn.init.normal_(model.heads.head.weight, std=0.02)   # torchvision zeroes it: every gradient below would be 0
    return Bench(model, pictures(4, 112), cross_entropy, None)


def unet():
    return Bench(Unet(), (torch.randn(2, 3, 128, 128), torch.randint(0, 4, (2, 128, 128))), lambda m, b: F.cross_entropy(m(b[0]), b[1]))


def mlp():
    layers = [m for _ in range(8) for m in (nn.Linear(1024, 1024), nn.ReLU())]
    return Bench(nn.Sequential(*layers, nn.Linear(1024, 100)), (torch.randn(512, 1024), torch.randint(0, 100, (512,))), cross_entropy)


MODELS = {f.__name__: f for f in (gpt, gpt_drop, gpt_100, chain, llama, bert_drop, resnet50, vit, unet, mlp)}


class Checkpointed(nn.Module):
    """A block under torch.utils.checkpoint; context_fn chooses what selective checkpointing keeps."""

    def __init__(self, inner, **options):
        super().__init__()
        self.inner, self.options = inner, options

    def forward(self, x):
        return checkpoint(self.inner, x, use_reentrant=False, **self.options)


def keeping_attention():
    """Selective checkpointing that keeps the attention kernels' results and replays the rest of a block."""
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
    kept = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default}

    def policy(context, operator, *args, **kwargs):
        return CheckpointPolicy.MUST_SAVE if operator in kept else CheckpointPolicy.PREFER_RECOMPUTE
    return create_selective_checkpoint_contexts(policy)


def wrap_blocks(stack, **options):
    for index, block in enumerate(stack):
        stack[index] = Checkpointed(block, **options)
