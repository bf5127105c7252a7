"""Models as people have them: torch.nn's Transformer, torchvision, transformers; random weights, cut small."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from running import case, simple


def images(batch, side, classes=10):
    return torch.randn(batch, 3, side, side), torch.randint(0, classes, (batch,))


def classify(model, pixels, labels):
    out = model(pixels)
    return F.cross_entropy(getattr(out, "logits", out), labels)


def label_tokens(model, tokens):
    return model(input_ids=tokens, labels=tokens).loss


@case()
def transformer_encoder():
    layer = nn.TransformerEncoderLayer(64, 4, 128, dropout=0.1, batch_first=True)
    return simple(nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), (torch.randn(4, 32, 64),))


@case()
def transformer_with_decoder():
    model = nn.Transformer(64, 4, 2, 2, 128, dropout=0.1, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(24)
    return simple(model, (torch.randn(4, 32, 64), torch.randn(4, 24, 64)), lambda m, a, b: m(a, b, tgt_mask=mask).square().mean())


@case()
def torchvision_resnet50():
    import torchvision
    return simple(torchvision.models.resnet50(num_classes=10), images(2, 64), classify)


@case()
def torchvision_mobilenet():
    import torchvision
    return simple(torchvision.models.mobilenet_v3_small(num_classes=10), images(4, 48), classify)


@case()
def torchvision_densenet():
    import torchvision
    return simple(torchvision.models.DenseNet(growth_rate=8, block_config=(3, 3, 3), num_init_features=16, drop_rate=0.1, num_classes=10), images(4, 64), classify)


@case()
def torchvision_swin():
    import torchvision
    model = torchvision.models.SwinTransformer([4, 4], 24, [2, 2], [2, 4], [4, 4], dropout=0.1, stochastic_depth_prob=0.2, num_classes=10)
    return simple(model, images(2, 64), classify)


@case()
def torchvision_convnext():
    import torchvision
    from torchvision.models.convnext import CNBlockConfig
    model = torchvision.models.ConvNeXt([CNBlockConfig(24, 48, 2), CNBlockConfig(48, None, 2)], stochastic_depth_prob=0.1, num_classes=10)
    return simple(model, images(2, 64), classify)


@case()
def hf_gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel
    config = GPT2Config(vocab_size=128, n_positions=48, n_embd=64, n_layer=3, n_head=4, use_cache=False)
    return simple(GPT2LMHeadModel(config).train(), (torch.randint(0, 128, (4, 48)),), label_tokens)


@case()
def hf_gpt2_with_cache():
    from transformers import GPT2Config, GPT2LMHeadModel
    config = GPT2Config(vocab_size=128, n_positions=48, n_embd=64, n_layer=2, n_head=4, use_cache=True)
    return simple(GPT2LMHeadModel(config).train(), (torch.randint(0, 128, (4, 48)),), label_tokens)


@case()
def hf_llama():
    from transformers import LlamaConfig, LlamaForCausalLM
    config = LlamaConfig(vocab_size=128, hidden_size=64, intermediate_size=160, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                         max_position_embeddings=48, use_cache=False)
    return simple(LlamaForCausalLM(config).train(), (torch.randint(0, 128, (4, 48)),), label_tokens)


@case()
def hf_bert():
    from transformers import BertConfig, BertForMaskedLM
    config = BertConfig(vocab_size=128, hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, max_position_embeddings=48)
    return simple(BertForMaskedLM(config).train(), (torch.randint(0, 128, (4, 48)),), label_tokens)


@case()
def hf_vit():
    from transformers import ViTConfig, ViTForImageClassification
    config = ViTConfig(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=128, image_size=48, patch_size=8, num_labels=10,
                       hidden_dropout_prob=0.1, attention_probs_dropout_prob=0.1)
    return simple(ViTForImageClassification(config).train(), images(4, 48), classify)


@case()
def hf_t5():
    from transformers import T5Config, T5ForConditionalGeneration
    config = T5Config(vocab_size=128, d_model=48, d_kv=12, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0, use_cache=False)
    return simple(T5ForConditionalGeneration(config).train(), (torch.randint(1, 128, (4, 32)),), label_tokens)


class Unet(nn.Module):
    """Skips join far layers: no chain of single-input blocks."""

    def __init__(self, width=8, depth=3):
        super().__init__()
        sizes = [width * 2 ** i for i in range(depth + 1)]

        def convolve(i, o):
            return nn.Sequential(nn.Conv2d(i, o, 3, padding=1, bias=False), nn.GroupNorm(4, o), nn.SiLU(), nn.Conv2d(o, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(inplace=True))
        self.down = nn.ModuleList(convolve(i, o) for i, o in zip([3, *sizes], sizes))
        self.grow = nn.ModuleList(nn.ConvTranspose2d(o, i, 2, stride=2) for i, o in zip(sizes, sizes[1:]))
        self.up = nn.ModuleList(convolve(2 * i, i) for i in sizes[:-1])
        self.head = nn.Conv2d(width, 2, 1)

    def forward(self, x):
        skips = []
        for index, stage in enumerate(self.down):
            x = stage(F.max_pool2d(x, 2) if index else x)
            skips.append(x)
        for index in reversed(range(len(self.up))):
            x = self.up[index](torch.cat([self.grow[index](x), skips[index]], 1))
        return self.head(x)


@case()
def unet():
    return simple(Unet(), (torch.randn(2, 3, 48, 48),))
