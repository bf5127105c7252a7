"""Blocks are found in the trace: the exact count on eight kinds of models, the same under autocast and without a model."""

import os
import pathlib
import re
import subprocess

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import reprise

BUILD = pathlib.Path(os.environ.get("REPRISE_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))


def encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(64, 4, 128, batch_first=True), 5, enable_nested_tensor=False), torch.randn(4, 16, 64)


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    model = GPT2LMHeadModel(GPT2Config(vocab_size=128, n_positions=32, n_embd=64, n_layer=6, n_head=4, use_cache=False, bos_token_id=0, eos_token_id=0))
    return model, torch.randint(0, 128, (2, 32))


def llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=160, num_hidden_layers=7, num_attention_heads=4, max_position_embeddings=32, use_cache=False)
    return LlamaForCausalLM(config), torch.randint(0, 128, (2, 32))


def resnet50():
    import torchvision
    return torchvision.models.resnet50(num_classes=10), torch.randn(2, 3, 64, 64)


def sequential():
    body = [nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 96), nn.SiLU(), nn.Linear(96, 48), nn.Tanh()) for _ in range(9)]
    return nn.Sequential(nn.Linear(16, 48), nn.ReLU(), *body, nn.Linear(48, 4), nn.Sigmoid()), torch.randn(32, 16)


class Unrolled(nn.Module):
    def __init__(self):
        super().__init__()
        self.inside, self.across, self.out = nn.Linear(24, 48), nn.Linear(48, 48), nn.Linear(48, 8)

    def forward(self, frames):
        h = frames.new_zeros(frames.shape[1], 48)
        for frame in frames:
            h = torch.tanh(self.inside(frame) + self.across(h))
        return self.out(h)


def unrolled():
    return Unrolled(), torch.randn(20, 16, 24)


class Functional(nn.Module):
    """Parameters only; functions do the work."""

    def __init__(self):
        super().__init__()
        self.weights = nn.ParameterList([nn.Parameter(torch.randn(64, 64) / 8) for _ in range(8)])

    def forward(self, x):
        for weight in self.weights:
            x = x + F.gelu(F.layer_norm(x, (64,)) @ weight)
        return x


def functional():
    return Functional(), torch.randn(64, 64)


# ResNet-50: 3 + 4 + 6 + 3 bottlenecks; the first of each stage has a downsampling branch besides, and is one all the same.
EXPECTED = {encoder: 5, gpt2: 6, llama: 7, resnet50: 16, sequential: 9, unrolled: 20, functional: 8}


def blocks_of(make, named, autocast):
    torch.manual_seed(0)
    model, x = make()
    model.train()
    reprise.auto_checkpoint(model if named else None, "100%", policy="none")
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = model(x)
        getattr(out, "logits", out).float().square().mean().backward()
    count = reprise.report().data["profile"]["blocks"]
    reprise.undo()
    return count


@pytest.mark.parametrize("autocast", [False, True], ids=["float32", "autocast"])
@pytest.mark.parametrize("named", [True, False], ids=["model", "no model"])
@pytest.mark.parametrize("make", EXPECTED, ids=lambda make: make.__name__)
def test_blocks(make, named, autocast):
    assert blocks_of(make, named, autocast) == EXPECTED[make]


def test_blocks_of_a_libtorch_program():
    done = subprocess.run([next(BUILD.rglob("reprise_example_train")), "4"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert re.search(r", (\d+) Blocks", done.stdout).group(1) == "8"


def test_decisions_name_the_regions():
    torch.manual_seed(0)
    model, x = sequential()
    reprise.auto_checkpoint(model, "100%", policy="per_block")
    for _ in range(3):
        model(x).square().mean().backward()
    decisions = reprise.report().data["decisions"]
    reprise.undo()
    assert len(decisions) == 9
    assert [d["region"].split(".")[0] for d in decisions] == [str(i) for i in range(2, 11)]
    assert all(d["dropped_bytes"] > 0 and d["reason"] for d in decisions[:-1])
