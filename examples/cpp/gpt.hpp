// The job of the C++ examples: a byte-level GPT with dropout under AdamW. Knows nothing of reprise.
#pragma once

#include <torch/torch.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace example {

inline constexpr int64_t kWidth = 192, kHeads = 4, kLayers = 8, kLength = 128, kBatch = 8;

struct BlockImpl : torch::nn::Module {
  torch::nn::LayerNorm norm1{torch::nn::LayerNormOptions({kWidth})}, norm2{torch::nn::LayerNormOptions({kWidth})};
  torch::nn::Linear qkv{kWidth, 3 * kWidth}, out{kWidth, kWidth}, up{kWidth, 4 * kWidth}, down{4 * kWidth, kWidth};
  torch::nn::Dropout dropout{0.1};

  BlockImpl() {
    register_module("norm1", norm1);
    register_module("norm2", norm2);
    register_module("qkv", qkv);
    register_module("out", out);
    register_module("up", up);
    register_module("down", down);
    register_module("dropout", dropout);
  }

  torch::Tensor attend(const torch::Tensor& x) {
    const auto parts = qkv(x).view({x.size(0), x.size(1), 3, kHeads, kWidth / kHeads}).permute({2, 0, 3, 1, 4}).unbind(0);
    const auto mixed = at::scaled_dot_product_attention(parts[0], parts[1], parts[2], {}, 0.0, /*is_causal=*/true);
    return out(mixed.transpose(1, 2).reshape(x.sizes()));
  }

  torch::Tensor forward(torch::Tensor x) {
    x = x + dropout(attend(norm1(x)));
    return x + dropout(down(torch::gelu(up(norm2(x)))));
  }
};
TORCH_MODULE(Block);

struct GptImpl : torch::nn::Module {
  torch::nn::Embedding token{256, kWidth}, position{kLength, kWidth};
  torch::nn::ModuleList layers;
  torch::nn::LayerNorm norm{torch::nn::LayerNormOptions({kWidth})};
  torch::nn::Linear head{torch::nn::LinearOptions(kWidth, 256).bias(false)};

  GptImpl() {
    register_module("token", token);
    register_module("position", position);
    for (int64_t i = 0; i < kLayers; ++i) layers->push_back(Block());
    register_module("layers", layers);
    register_module("norm", norm);
    register_module("head", head);
  }

  torch::Tensor forward(const torch::Tensor& ids) {
    auto x = token(ids) + position(torch::arange(ids.size(1)));
    for (const auto& layer : *layers) x = layer->as<Block>()->forward(x);
    return head(norm(x));
  }
};
TORCH_MODULE(Gpt);

inline torch::Tensor read_bytes(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return torch::tensor(at::ArrayRef<uint8_t>(reinterpret_cast<const uint8_t*>(text.data()), text.size()), torch::kUInt8);
}

// Model, optimizer and data of one run. The same seed and the same text give the same run, to the last bit.
class Job {
 public:
  Gpt model;

  explicit Job(torch::Tensor text) : model(seeded()), text_(std::move(text)) {
    for (auto& parameter : model->parameters()) parameter.mutable_grad() = torch::zeros_like(parameter);
  }

  torch::Tensor step() {
    const auto rows = draw();
    const auto logits = model->forward(rows.narrow(1, 0, kLength));
    const auto loss = torch::nn::functional::cross_entropy(logits.flatten(0, 1), rows.narrow(1, 1, kLength).flatten());
    loss.backward();
    optimizer_.step();
    optimizer_.zero_grad(/*set_to_none=*/false);
    return loss.detach();
  }

 private:
  static Gpt seeded() {
    torch::manual_seed(0);
    return Gpt();
  }

  torch::Tensor draw() const {
    const auto starts = torch::randint(text_.size(0) - kLength - 1, {kBatch});
    std::vector<torch::Tensor> rows;
    for (int64_t i = 0; i < kBatch; ++i) rows.push_back(text_.narrow(0, starts[i].item<int64_t>(), kLength + 1));
    return torch::stack(rows).to(torch::kLong);
  }

  torch::Tensor text_;
  torch::optim::AdamW optimizer_{model->parameters(), torch::optim::AdamWOptions(1e-3)};
};

}  // namespace example
