// R5, same conditions: the settings a kernel reads and the random state it draws from, as they were when an Op was recorded.
//
// Settings are kept in one shared snapshot that changes only when they do. Random numbers are replayed from a private generator that starts from the
// recorded state, so the live generator is never touched, whatever other threads draw meanwhile.
// Threads: a snapshot is immutable once shared. Restoring writes process-wide settings, for the time of one Op, and only those that differ.
#pragma once

#include <ATen/core/Generator.h>

#include <array>
#include <memory>
#include <optional>

#include "integration/torch/operator_facts.hpp"

namespace reprise::engine {

struct Settings {
  caffe2::TypeMeta default_dtype;
  int threads = 1;
  bool deterministic = false;
  bool deterministic_warn_only = false;
  bool fill_uninitialised = true;
  bool mkldnn = true;
  bool mkldnn_deterministic = false;
  bool grad_mode = true;
  std::array<int, 9> precision{};  // float32 precision: generic; oneDNN's and CUDA's all, conv, rnn, matmul (TF32)
  bool cudnn = true;
  bool cudnn_deterministic = false;
  bool cudnn_benchmark = false;

  bool operator==(const Settings&) const = default;
  static Settings now();
  // Are these the ones that a kernel would read now? Of the nine precisions those that it may ask for, and of the budgeted device's libraries: no kernel on a
  // CPU asks what CUDA's matrix products may do.
  bool in_force(PrecisionRead precisions = PrecisionRead::kAny) const;
};

// Puts recorded settings in force and the former ones back.
class SettingsScope {
 public:
  explicit SettingsScope(const Settings& wanted);
  ~SettingsScope();
  SettingsScope(const SettingsScope&) = delete;
  SettingsScope& operator=(const SettingsScope&) = delete;

 private:
  bool grad_mode_;
  std::optional<Settings> before_;  // where something else was in force
};

// A device's default generator as it was recorded, for an operator that takes no other; the live state comes back afterwards. CUDA: a seed and an offset.
class DefaultGeneratorScope {
 public:
  explicit DefaultGeneratorScope(const at::Generator& recorded);
  ~DefaultGeneratorScope();
  DefaultGeneratorScope(const DefaultGeneratorScope&) = delete;
  DefaultGeneratorScope& operator=(const DefaultGeneratorScope&) = delete;

 private:
  at::Generator live_;
  uint64_t seed_ = 0, offset_ = 0;
};

// A copy of a generator at this moment, taken under its own mutex. Bytes: about 5 KB on CPU, outside torch's allocator.
// spare: a copy that is needed no more; where it is of the same kind and nobody else's, it is overwritten and returned (making one seeds it first: 1.5 us).
at::Generator copy_generator(const at::Generator& generator, at::Generator spare = {});

}  // namespace reprise::engine
