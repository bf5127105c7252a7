#include "integration/torch/conditions.hpp"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <c10/core/DefaultDtype.h>
#include <c10/core/GradMode.h>

#include <mutex>

#include "integration/torch/budgeted.hpp"

namespace reprise::engine {
namespace {

using at::Float32Backend;
using at::Float32Op;
constexpr std::pair<Float32Backend, Float32Op> kPrecisions[] = {
    {Float32Backend::GENERIC, Float32Op::ALL}, {Float32Backend::MKLDNN, Float32Op::ALL},    {Float32Backend::MKLDNN, Float32Op::CONV},
    {Float32Backend::MKLDNN, Float32Op::RNN},  {Float32Backend::MKLDNN, Float32Op::MATMUL}, {Float32Backend::CUDA, Float32Op::ALL},
    {Float32Backend::CUDA, Float32Op::CONV},   {Float32Backend::CUDA, Float32Op::RNN},      {Float32Backend::CUDA, Float32Op::MATMUL}};

constexpr size_t kCpuPrecisions = 5, kCpuMatrixProducts = 4;  // the first of them; which one that is

int precision_now(size_t i) { return static_cast<int>(at::globalContext().float32Precision(kPrecisions[i].first, kPrecisions[i].second)); }

void enforce(const Settings& wanted, const Settings& now) {
  auto& context = at::globalContext();
  if (wanted.default_dtype != now.default_dtype) c10::set_default_dtype(wanted.default_dtype);
  if (wanted.threads != now.threads) at::set_num_threads(wanted.threads);
  if (wanted.deterministic != now.deterministic || wanted.deterministic_warn_only != now.deterministic_warn_only)
    context.setDeterministicAlgorithms(wanted.deterministic, wanted.deterministic_warn_only);
  if (wanted.fill_uninitialised != now.fill_uninitialised) context.setDeterministicFillUninitializedMemory(wanted.fill_uninitialised);
  if (wanted.mkldnn != now.mkldnn) context.setUserEnabledMkldnn(wanted.mkldnn);
  if (wanted.mkldnn_deterministic != now.mkldnn_deterministic) context.setDeterministicMkldnn(wanted.mkldnn_deterministic);
  if (wanted.cudnn != now.cudnn) context.setUserEnabledCuDNN(wanted.cudnn);
  if (wanted.cudnn_deterministic != now.cudnn_deterministic) context.setDeterministicCuDNN(wanted.cudnn_deterministic);
  if (wanted.cudnn_benchmark != now.cudnn_benchmark) context.setBenchmarkCuDNN(wanted.cudnn_benchmark);
  for (size_t i = 0; i < std::size(kPrecisions); i++)
    if (wanted.precision[i] != now.precision[i])
      context.setFloat32Precision(kPrecisions[i].first, kPrecisions[i].second, static_cast<at::Float32Precision>(wanted.precision[i]));
}

}  // namespace

Settings Settings::now() {
  const auto& context = at::globalContext();
  Settings s;
  s.default_dtype = c10::get_default_dtype();
  s.threads = at::get_num_threads();
  s.deterministic = context.deterministicAlgorithms();
  s.deterministic_warn_only = context.deterministicAlgorithmsWarnOnly();
  s.fill_uninitialised = context.deterministicFillUninitializedMemory();
  s.mkldnn = context.userEnabledMkldnn();
  s.mkldnn_deterministic = context.deterministicMkldnn();
  s.grad_mode = c10::GradMode::is_enabled();
  s.cudnn = context.userEnabledCuDNN();
  s.cudnn_deterministic = context.deterministicCuDNN();
  s.cudnn_benchmark = context.benchmarkCuDNN();
  for (size_t i = 0; i < std::size(kPrecisions); i++) s.precision[i] = precision_now(i);
  return s;
}

bool Settings::in_force(PrecisionRead precisions) const {
  const auto& context = at::globalContext();
  if (grad_mode != c10::GradMode::is_enabled() || threads != at::get_num_threads() || default_dtype != c10::get_default_dtype()) return false;
  if (deterministic != context.deterministicAlgorithms() || deterministic_warn_only != context.deterministicAlgorithmsWarnOnly()) return false;
  if (fill_uninitialised != context.deterministicFillUninitializedMemory()) return false;
  if (mkldnn != context.userEnabledMkldnn() || mkldnn_deterministic != context.deterministicMkldnn()) return false;
  if (cudnn != context.userEnabledCuDNN() || cudnn_deterministic != context.deterministicCuDNN() || cudnn_benchmark != context.benchmarkCuDNN()) return false;
  if (precisions == PrecisionRead::kNone) return true;
  const bool on_cpu = budget_is_on_cpu();
  if (on_cpu && precisions == PrecisionRead::kMatrixProducts) return precision[kCpuMatrixProducts] == precision_now(kCpuMatrixProducts);
  const size_t count = on_cpu ? kCpuPrecisions : std::size(kPrecisions);
  for (size_t i = 0; i < count; i++)
    if (precision[i] != precision_now(i)) return false;
  return true;
}

SettingsScope::SettingsScope(const Settings& wanted) : grad_mode_(c10::GradMode::is_enabled()) {
  // Some kernels ask for the GradMode even below autograd (mkldnn_rnn_layer makes its workspace only then).
  c10::GradMode::set_enabled(wanted.grad_mode);
  if (wanted.in_force()) return;
  before_ = Settings::now();
  enforce(wanted, *before_);
}

SettingsScope::~SettingsScope() {
  c10::GradMode::set_enabled(grad_mode_);
  if (before_) enforce(*before_, Settings::now());
}

DefaultGeneratorScope::DefaultGeneratorScope(const at::Generator& recorded) : live_(at::globalContext().defaultGenerator(recorded.device())) {
  std::lock_guard<std::mutex> lock(live_.mutex());
  seed_ = live_.current_seed();
  offset_ = live_.get_offset();
  live_.set_current_seed(recorded.current_seed());
  live_.set_offset(at::Generator(recorded).get_offset());
}

DefaultGeneratorScope::~DefaultGeneratorScope() {
  std::lock_guard<std::mutex> lock(live_.mutex());
  live_.set_current_seed(seed_);
  live_.set_offset(offset_);
}

at::Generator copy_generator(const at::Generator& generator, at::Generator spare) {
  at::Generator live = generator;
  std::lock_guard<std::mutex> lock(live.mutex());
  if (!spare.defined() || !live.device().is_cpu() || spare.device() != live.device() || spare.getIntrusivePtr().use_count() != 1) return live.clone();
  auto* const to = at::check_generator<at::CPUGeneratorImpl>(spare);
  auto* const from = at::check_generator<at::CPUGeneratorImpl>(live);
  to->set_engine(from->engine());
  to->set_next_float_normal_sample(from->next_float_normal_sample());
  to->set_next_double_normal_sample(from->next_double_normal_sample());
  return spare;
}

}  // namespace reprise::engine
