// What recording costs an operator: one program of many tiny operators, forward and backward, timed and counted in four ways in one process.
//
//   plain      torch alone: neither recorded nor hooked
//   bare       a boxed fallback that only redispatches, as small as one can be
//   ours       recorded and hooked, in steady state under the policy that is asked for
//   --only W   takes two steps of way W inside the functions measured_forward and measured_backward, for callgrind --toggle-collect
//
// usage: reprise_operators POLICY [--layers N] [--pairs N] [--only plain|bare|ours]; prints one JSON document.
// A layer is four operators on tensors of 8 x 8 floats: mm, add, tanh, mul; autograd saves five tensors for them, of which three are activations.
#include <ATen/ATen.h>
#include <ATen/SavedTensorHooks.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "integration/cpp/reprise.hpp"

namespace {

thread_local int64_t heap_calls = 0;  // malloc and its kin in this thread

double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

}  // namespace

// The program's own symbols come before the C library's: every allocation of torch's and of ours passes here.
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* malloc(size_t bytes) {
  heap_calls++;
  return __libc_malloc(bytes);
}
void* calloc(size_t count, size_t bytes) {
  heap_calls++;
  return __libc_calloc(count, bytes);
}
void* realloc(void* old, size_t bytes) {
  heap_calls++;
  return __libc_realloc(old, bytes);
}
}

namespace {

constexpr auto kBareKey = c10::DispatchKey::TESTING_ONLY_GenericMode;  // for just that, and used by nobody

void redispatch_only(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  c10::impl::ExcludeDispatchKeyGuard below(kBareKey);
  op.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, kBareKey), stack);
}

}  // namespace

TORCH_LIBRARY_IMPL(_, TESTING_ONLY_GenericMode, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&redispatch_only>()); }

namespace {

constexpr int kOperatorsOfLayer = 4;

struct Program {
  int layers;
  std::vector<at::Tensor> weights, biases;
  at::Tensor input = at::randn({8, 8});

  explicit Program(int n) : layers(n) {
    for (int i = 0; i < 4; i++) {
      weights.push_back((at::randn({8, 8}) * 0.3).set_requires_grad(true));
      biases.push_back((at::randn({8}) * 0.1).set_requires_grad(true));
    }
  }
};

}  // namespace

namespace {

void forward(const Program& program, at::Tensor& loss) {
  at::Tensor x = program.input;
  for (int layer = 0; layer < program.layers; layer++) {
    const at::Tensor h = at::tanh(at::mm(x, program.weights[size_t(layer) % 4]).add(program.biases[size_t(layer) % 4]));
    x = h.mul(x);
    x = layer % 4 == 3 ? x.add(program.input) : x;  // or all of it soon becomes zero
  }
  loss = x.sum();
}

}  // namespace

extern "C" __attribute__((noinline)) void measured_forward(const Program& program, at::Tensor& loss) { forward(program, loss); }
extern "C" __attribute__((noinline)) void measured_backward(at::Tensor& loss) { loss.backward(); }

namespace {

enum class Way { kPlain, kBare, kOurs };

// torch alone, though our engine is installed and armed.
struct Plainly {
  c10::impl::ExcludeDispatchKeyGuard unrecorded{c10::DispatchKey::Fake};
  Plainly() { at::SavedTensorDefaultHooks::disable("reprise_operators: this step is plain"); }
  ~Plainly() { at::SavedTensorDefaultHooks::enable(); }
};

struct Cost {
  double forward_seconds = 0, backward_seconds = 0;
  int64_t forward_calls = 0, backward_calls = 0;
};

Cost step(Program& program, Way way, bool measured = true) {
  std::optional<Plainly> plain;
  std::optional<c10::impl::IncludeDispatchKeyGuard> bare;
  if (way != Way::kOurs) plain.emplace();
  if (way == Way::kBare) bare.emplace(kBareKey);
  for (auto* list : {&program.weights, &program.biases})
    for (at::Tensor& t : *list) t.mutable_grad().reset();
  Cost cost;
  {
    at::Tensor loss;
    const int64_t calls = heap_calls;
    const double began = cpu_seconds();
    measured ? measured_forward(program, loss) : forward(program, loss);
    const double between = cpu_seconds();
    const int64_t calls_between = heap_calls;
    measured ? measured_backward(loss) : loss.backward();
    cost = {between - began, cpu_seconds() - between, calls_between - calls, heap_calls - calls_between};
  }
  return cost;
}

void print_way(const char* name, const std::vector<Cost>& costs, double operators, const char* after) {
  std::vector<double> forward, backward;
  for (const Cost& c : costs) forward.push_back(c.forward_seconds), backward.push_back(c.backward_seconds);
  std::printf("\"%s\": {\"forward_us\": [", name);
  for (size_t i = 0; i < costs.size(); i++) std::printf("%s%.4f", i ? ", " : "", 1e6 * forward[i] / operators);
  std::printf("], \"backward_us\": [");
  for (size_t i = 0; i < costs.size(); i++) std::printf("%s%.4f", i ? ", " : "", 1e6 * backward[i] / operators);
  std::printf("], \"forward_heap_calls\": %.3f, \"backward_heap_calls\": %.3f}%s\n", double(costs.back().forward_calls) / operators,
              double(costs.back().backward_calls) / operators, after);
}

Way way_of(const std::string& name) {
  if (name == "plain") return Way::kPlain;
  if (name == "bare") return Way::kBare;
  if (name == "ours") return Way::kOurs;
  throw std::invalid_argument("argument --only: " + name + " is none of plain, bare, ours");
}

}  // namespace

int main(int count, char** arguments) {
  std::string policy = "none", only;
  int layers = 500, pairs = 15;
  for (int i = 1; i < count; i++) {
    const std::string word = arguments[i];
    if (word == "--layers" && i + 1 < count) layers = std::stoi(arguments[++i]);
    else if (word == "--pairs" && i + 1 < count) pairs = std::stoi(arguments[++i]);
    else if (word == "--only" && i + 1 < count) only = arguments[++i];
    else policy = word;
  }
  reprise::install();
  at::manual_seed(0);
  Program program(layers);
  reprise::NamedStorages parameters;
  for (size_t i = 0; i < program.weights.size(); i++) {
    parameters.emplace_back("layers." + std::to_string(i) + ".weight", program.weights[i].storage().unsafeGetStorageImpl());
    parameters.emplace_back("layers." + std::to_string(i) + ".bias", program.biases[i].storage().unsafeGetStorageImpl());
  }
  reprise::Options options;
  options.policy = policy;
  reprise::auto_checkpoint(parameters, "", options);
  for (int i = 0; i < 14; i++) step(program, Way::kOurs, false);  // learned, planned, settled, places found
  const double operators = double(layers) * kOperatorsOfLayer + layers / 4 + 1;
  if (!only.empty()) {
    const Way way = way_of(only);
    for (int i = 0; i < 2; i++) step(program, way);
    std::printf("{\"operators\": %.0f, \"steps\": 2}\n", operators);
    return 0;
  }
  std::vector<Cost> costs[3];
  for (int pair = 0; pair < pairs; pair++)
    for (int k = 0; k < 3; k++) {
      const int way = (pair + k) % 3;
      costs[way].push_back(step(program, Way(way)));
    }
  std::printf("{\"policy\": \"%s\", \"operators\": %.0f, \"counters\": %s,\n", policy.c_str(), operators, reprise::counters_json().c_str());
  print_way("plain", costs[0], operators, ",");
  print_way("bare", costs[1], operators, ",");
  print_way("ours", costs[2], operators, "}");
  return 0;
}
