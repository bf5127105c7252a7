// The public surface in C++; Python has the same names. One library serves Python models, functional code and pure LibTorch programs.
//
//   reprise::install();                                    // or LD_PRELOAD=libreprise.so REPRISE=1: before tensors are made
//   reprise::auto_checkpoint(*model, "200MiB");            // train as before
//   std::cout << reprise::report();
//
// Errors: std::invalid_argument for bad arguments (naming argument, value and limit): training goes on as before. Out of memory under the cap is
// reprise::Infeasible, with what was asked, live, reserved, the cap, who holds most and the smallest budget that works.
// Threads: every function may be called from any thread.
#pragma once

#include <c10/util/Exception.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace c10 {
struct StorageImpl;
}

namespace reprise {

struct Options {
  std::string policy = "auto";       // "none", "full", "chunks(C)", "chunks(C, hold_inside=False)", "sqrt", "per_block", "auto", "random(SEED)"
  std::vector<std::string> exclude;  // Regions (shell patterns) in which nothing is dropped
  bool verify = false;               // replay everything once and compare bit for bit
  bool agree = true;                 // the ranks of a job of several processes follow one Plan; Python programs only
};

// The budget cannot be met: thrown from the operator, or from backward(), that found out. The program may catch it and take a smaller step.
class Infeasible : public c10::OutOfMemoryError {
 public:
  Infeasible(std::string text, int64_t smallest_budget_bytes);
  int64_t smallest_budget = 0;  // bytes of one that the simulator completed; 0: not known
};

using NamedStorages = std::vector<std::pair<std::string, c10::StorageImpl*>>;

// Installs allocator and engine; true if this call did. Allocations made before stay where they are.
bool install();

// budget: "8GiB", "60%", a number of bytes, or "" to measure only. Calling it again replaces the budget.
void auto_checkpoint(const NamedStorages& parameters, const std::string& budget, const Options& options = {});
template <class Module>  // a torch::nn::Module
requires requires(Module& model) { model.named_parameters(); }
void auto_checkpoint(Module& model, const std::string& budget, const Options& options = {}) {
  NamedStorages parameters;
  for (const auto& item : model.named_parameters()) parameters.emplace_back(item.key(), item.value().storage().unsafeGetStorageImpl());
  auto_checkpoint(parameters, budget, options);
}
void undo();

struct MemoryStats {
  int64_t live_bytes = 0, allocated_bytes = 0, reserved_bytes = 0;
  int64_t peak_live_bytes = 0, peak_allocated_bytes = 0, peak_reserved_bytes = 0;
  int64_t cap_bytes = 0;  // 0: none
  int64_t allocations = 0, device_calls = 0;
  int64_t planned_hits = 0, planned_misses = 0;  // requests of planned steps: served at their planned place, or as always
};
MemoryStats memory_stats();

// Who holds the memory now: live allocations by what they are for, most bytes first. They add up to live_bytes, but for the temporary file's.
// Activations are told from others while the engine watches, not while it rests because everything fits.
struct Holder {
  std::string category;  // "parameter", "activation", "backward" (gradients, and what a backward uses in passing), "other"
  std::string region;    // module path; "": the whole model, or not known yet
  bool saved = false;    // autograd keeps it for backward
  int64_t bytes = 0, pieces = 0;
};
std::vector<Holder> holders();
void reset_peaks();

std::string report();  // text
std::string report_json();
std::string counters_json();
std::string profile();                                                           // JSON of the step seen last; throws std::runtime_error before one was learned
std::string plan(const std::string& limit, const std::string& policy = "auto");  // JSON; limit: activation bytes above the step's start
void apply(const std::string& plan_json);
// Of each Block that the Plan runs again, the smallest module that holds all of it; "" where that is the whole model, or the Block is no module.
std::vector<std::string> replayed_modules(const std::string& plan_json);

// What was found out about the steps so far (Profiles and all Plans found), as JSON; throws std::runtime_error before a step was learned.
std::string learned();
// In another process, after auto_checkpoint: the steps begin under their Plans, and none is learned first. Throws std::invalid_argument for a document that is
// not one, std::logic_error before auto_checkpoint. A program that does something else is learned anew.
void resume(const std::string& learned_json);

class keep {  // a scope in which nothing saved on this thread is dropped
 public:
  keep();
  ~keep();
  keep(const keep&) = delete;
  keep& operator=(const keep&) = delete;
};

int64_t device_bytes();  // min(physical memory, the control group's limit)

}  // namespace reprise
