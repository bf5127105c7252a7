// A byte-level GPT trained in pure C++: once plainly, once inside half of its activation bytes, and both compared bit for bit.
// usage: train [STEPS [FILE]]   (default: 12 steps on the bytes of this program itself). Exit status 0 if equal and within the budget.
#include <cstdio>
#include <iostream>

#include "examples/cpp/gpt.hpp"
#include "integration/cpp/reprise.hpp"

namespace {

struct Result {
  std::vector<torch::Tensor> losses, parameters;
  int64_t start_live_bytes = 0, activation_bytes = 0, peak_reserved_bytes = 0;
};

Result train(const torch::Tensor& text, int steps, const std::string& budget) {
  Result result;
  example::Job job(text);
  if (!budget.empty()) reprise::auto_checkpoint(*job.model, budget);
  for (int step = 0; step < steps; ++step) {
    reprise::reset_peaks();
    const auto before = reprise::memory_stats();
    result.losses.push_back(job.step());
    const auto after = reprise::memory_stats();
    result.start_live_bytes = before.live_bytes;
    result.activation_bytes = after.peak_live_bytes - before.live_bytes;
    result.peak_reserved_bytes = std::max(result.peak_reserved_bytes, after.peak_reserved_bytes);
  }
  for (const auto& parameter : job.model->parameters()) result.parameters.push_back(parameter.detach().clone());
  return result;
}

bool equal(const std::vector<torch::Tensor>& a, const std::vector<torch::Tensor>& b) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (!torch::equal(a[i], b[i])) return false;
  return a.size() == b.size() && !a.empty();
}

}  // namespace

int main(int count, char** arguments) {
  const int steps = count > 1 ? std::stoi(arguments[1]) : 12;
  reprise::install();
  const auto text = example::read_bytes(count > 2 ? arguments[2] : "/proc/self/exe");
  const Result plain = train(text, steps, "");
  // the first run's losses and parameters are still alive when the second starts: they count too
  const int64_t kept = reprise::memory_stats().live_bytes - text.size(0);
  const int64_t budget = plain.start_live_bytes + kept + plain.activation_bytes / 2;
  const Result budgeted = train(text, steps, std::to_string(budget));
  std::cout << reprise::report() << "\n";
  reprise::undo();
  const bool same = equal(plain.losses, budgeted.losses) && equal(plain.parameters, budgeted.parameters);
  const bool held = budgeted.peak_reserved_bytes <= budget;
  std::printf("%d steps, last loss %.6f; losses and parameters equal to plain: %s; reserved %.1f MiB of %.1f MiB: %s\n", steps,
              plain.losses.back().item<double>(), same ? "yes" : "NO", double(budgeted.peak_reserved_bytes) / (1 << 20), double(budget) / (1 << 20),
              held ? "within" : "EXCEEDED");
  return same && held ? 0 : 1;
}
