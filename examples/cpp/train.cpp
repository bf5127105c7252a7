// A byte-level GPT trained in pure C++: once plainly, once inside half of its activation bytes, and both compared bit for bit.
// usage: train [STEPS [FILE]]   (default: 12 steps on the bytes of this program itself). Exit status 0 if equal and within the budget.
#include <torch/torch.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "integration/cpp/reprise.hpp"

namespace {
constexpr int64_t kWidth = 192, kHeads = 4, kLayers = 8, kLength = 128, kBatch = 8;

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

struct Result {
  std::vector<torch::Tensor> losses, parameters;
  int64_t start_live_bytes = 0, activation_bytes = 0, peak_reserved_bytes = 0;
};

torch::Tensor read_bytes(const char* path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  return torch::tensor(at::ArrayRef<uint8_t>(reinterpret_cast<const uint8_t*>(text.data()), text.size()), torch::kUInt8);
}

torch::Tensor draw(const torch::Tensor& text) {
  const auto starts = torch::randint(text.size(0) - kLength - 1, {kBatch});
  std::vector<torch::Tensor> rows;
  for (int64_t i = 0; i < kBatch; ++i) rows.push_back(text.narrow(0, starts[i].item<int64_t>(), kLength + 1));
  return torch::stack(rows).to(torch::kLong);
}

Result train(const torch::Tensor& text, int steps, const std::string& budget) {
  torch::manual_seed(0);
  Gpt model;
  Result result;
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(1e-3));
  for (auto& parameter : model->parameters()) parameter.mutable_grad() = torch::zeros_like(parameter);
  if (!budget.empty()) reprise::auto_checkpoint(*model, budget);
  for (int step = 0; step < steps; ++step) {
    const auto rows = draw(text);
    reprise::reset_peaks();
    const auto before = reprise::memory_stats();
    const auto logits = model->forward(rows.narrow(1, 0, kLength));
    const auto loss = torch::nn::functional::cross_entropy(logits.flatten(0, 1), rows.narrow(1, 1, kLength).flatten());
    loss.backward();
    optimizer.step();
    optimizer.zero_grad(/*set_to_none=*/false);
    const auto after = reprise::memory_stats();
    result.losses.push_back(loss.detach());
    result.start_live_bytes = before.live_bytes;
    result.activation_bytes = after.peak_live_bytes - before.live_bytes;
    result.peak_reserved_bytes = std::max(result.peak_reserved_bytes, after.peak_reserved_bytes);
  }
  for (const auto& parameter : model->parameters()) result.parameters.push_back(parameter.detach().clone());
  return result;
}

bool equal(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  for (size_t i = 0; i < a.size(); ++i)
    if (!torch::equal(a[i], b[i])) return false;
  return a.size() == b.size();
}
}  // namespace

int main(int count, char** arguments) {
  const int steps = count > 1 ? std::stoi(arguments[1]) : 12;
  reprise::install();
  const auto text = read_bytes(count > 2 ? arguments[2] : "/proc/self/exe");
  const Result plain = train(text, steps, "");
  // the first run's losses and parameters are still alive when the second starts: they count too
  const int64_t kept = reprise::memory_stats().live_bytes - text.size(0);
  const int64_t budget = plain.start_live_bytes + kept + plain.activation_bytes / 2;
  const Result budgeted = train(text, steps, std::to_string(budget));
  std::cout << reprise::report() << "\n";
  reprise::undo();
  const bool same = equal(plain.losses, budgeted.losses) && equal(plain.parameters, budgeted.parameters);
  const bool held = budgeted.peak_reserved_bytes <= budget;
  std::printf("%d steps, last loss %.6f; losses and parameters equal to plain: %s; reserved %.1f MiB of %.1f MiB: %s\n", steps, plain.losses.back().item<double>(),
              same ? "yes" : "NO", double(budgeted.peak_reserved_bytes) / (1 << 20), double(budget) / (1 << 20), held ? "within" : "EXCEEDED");
  return same && held ? 0 : 1;
}
