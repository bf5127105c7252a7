// Numeric mode: results of "CUDA" operators, computed on the CPU. Device memory of the simulator is host memory, so one boxed kernel, registered at the CUDA key
// for every aten operator that has a CUDA and a CPU kernel, runs the CPU kernel on CPU tensors over the same bytes. New results come from torch's CUDA
// allocator: the allocator under test serves every tensor.
//
// What it does not show: temporaries inside CUDA kernels (there are none, so peaks are lower than on a device) and CUDA's own rounding.
// Random numbers follow from the CUDA generator's seed and offset, which the call advances: code that forgets them gets other numbers.
// In a capturing stream, and in one that runs late, the call runs once for its shapes, its writes are put back, and the work is queued; until it has run, its
// floating point results are NaN, or what was in their memory before where queued work still needs that.
#include <ATen/ATen.h>
#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/enum_tag.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <c10/cuda/CUDAStream.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

extern "C" {
void simcuda_enqueue(void* stream, void (*run)(void*), void* argument, void (*drop)(void*));
int simcuda_runs_late(void* stream);
void simcuda_drain(void* stream);
void simcuda_timed(void* stream);
}

namespace {

using at::Tensor;
using c10::DispatchKey;
using c10::IValue;
using torch::jit::Stack;

// Metadata and memory: the real code is right, for it only speaks to the allocator and the runtime.
const std::unordered_set<std::string> kLeftAlone = {"aten::empty",
                                                    "aten::empty_strided",
                                                    "aten::_copy_from",
                                                    "aten::_copy_from_and_resize",
                                                    "aten::set_",
                                                    "aten::resize_",
                                                    "aten::is_set_to",
                                                    "aten::resize_as_",
                                                    "aten::record_stream",
                                                    "aten::_local_scalar_dense",
                                                    "aten::view",
                                                    "aten::as_strided",
                                                    "aten::alias",
                                                    "aten::unfold",
                                                    "aten::_to_copy",
                                                    "aten::_reshape_alias",
                                                    "aten::to",
                                                    "aten::view_as_real",
                                                    "aten::is_pinned",
                                                    "aten::_pin_memory",
                                                    "aten::view_as_complex",
                                                    "aten::_use_cudnn_ctc_loss",
                                                    "aten::_use_miopen_ctc_loss"};
// Composites whose parts differ between the devices.
const std::unordered_set<std::string> kWhole = {"aten::copy_", "aten::convolution", "aten::convolution_backward"};

// Neither autograd nor any mode sees what happens below: what runs here is a kernel.
struct BelowEverything {
  c10::impl::ForceDispatchKeyGuard guard{c10::DispatchKeySet(DispatchKey::BackendSelect),
                                         c10::default_excluded_set | c10::autograd_dispatch_keyset_with_ADInplaceOrView};
};

Tensor on_host(const Tensor& tensor) {
  const auto options = tensor.options().device(at::kCPU).requires_grad(false).pinned_memory(false);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  const c10::Storage& storage = tensor.storage();
  const Tensor bytes = at::from_blob(storage.mutable_data(), {static_cast<int64_t>(storage.nbytes())}, at::TensorOptions().dtype(at::kByte));
  Tensor view = at::empty({0}, options);
  view.set_(bytes.storage(), tensor.storage_offset(), tensor.sizes(), tensor.strides());
  view._set_conj(tensor.is_conj());
  view._set_neg(tensor.is_neg());
  return view;
}

void copy_bytes(const Tensor& to, const Tensor& from) {
  if (from.numel() > 0) std::memcpy(to.mutable_data_ptr(), from.const_data_ptr(), from.nbytes());
}

template <class Each>
void for_each_tensor(const IValue& value, Each&& each) {
  if (value.isTensor()) each(value.toTensor());
  else if (value.isTensorList())
    for (const Tensor& tensor : value.toTensorVector()) each(tensor);
}

// The CPU's generator for the length of one call, seeded from the device's. One call at a time draws.
class DeviceRandomness {
 public:
  explicit DeviceRandomness(at::Generator device) : turn_(mutex()), host_(at::globalContext().defaultGenerator(at::kCPU)), before_(host_.get_state()) {
    const std::lock_guard<std::mutex> lock(device.mutex());
    const uint64_t offset = device.get_offset();
    uint64_t seed = device.current_seed() * 0x9e3779b97f4a7c15ull + offset;
    seed = (seed ^ (seed >> 31)) * 0xbf58476d1ce4e5b9ull;
    host_.set_current_seed(seed ^ (seed >> 29));
    device.set_offset(offset + 4);
  }
  ~DeviceRandomness() { host_.set_state(before_); }
  DeviceRandomness(const DeviceRandomness&) = delete;
  DeviceRandomness& operator=(const DeviceRandomness&) = delete;

 private:
  static std::mutex& mutex() {
    static std::mutex the_mutex;
    return the_mutex;
  }
  std::lock_guard<std::mutex> turn_;
  at::Generator host_;
  Tensor before_;
};

// The memory that queued work reads or writes. Memory that was freed and handed out again on the same stream may still be in it: work queued later comes
// after, but what is done to it now does not.
class Touched {
 public:
  void add(const Tensor& tensor) {
    if (tensor.defined() && tensor.has_storage()) ranges_.emplace_back(begin(tensor), begin(tensor) + tensor.storage().nbytes());
  }
  static void queue(const std::shared_ptr<Touched>& touched) {
    std::erase_if(all(), [](const auto& other) { return other.expired(); });
    all().push_back(touched);
  }
  static bool by_queued_work(const Tensor& tensor) {
    const char *const first = begin(tensor), *const last = first + tensor.storage().nbytes();
    return std::any_of(all().begin(), all().end(), [&](const auto& weak) {
      const auto touched = weak.lock();
      return touched && std::any_of(touched->ranges_.begin(), touched->ranges_.end(), [&](const auto& r) { return r.first < last && first < r.second; });
    });
  }

 private:
  static const char* begin(const Tensor& tensor) { return static_cast<const char*>(tensor.storage().data()); }
  static std::vector<std::weak_ptr<Touched>>& all() {
    static auto* const queued = new std::vector<std::weak_ptr<Touched>>;
    return *queued;
  }
  std::vector<std::pair<const char*, const char*>> ranges_;
};

class Call {
 public:
  Call(const c10::OperatorHandle& op, Stack& stack) : op_(op), stack_(stack), first_(stack.size() - op.schema().arguments().size()) {}

  void run() {
    const bool to_host = op_.operator_name().name == "aten::copy_" && stack_[first_].toTensor().is_cpu();
    for (size_t i = first_; i < stack_.size(); i++) stack_[i] = argument(stack_[i]);
    void* const stream = c10::cuda::getCurrentCUDAStream(device_.index()).stream();
    const bool capturing = c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
    deferred_ = capturing;
    if (!capturing && simcuda_runs_late(stream) != 0) {
      const bool needed_now = to_host || random() || op_.hasTag(at::Tag::data_dependent_output) || op_.hasTag(at::Tag::dynamic_output_shape);
      if (needed_now) simcuda_drain(stream);
      else deferred_ = true;
    }
    if (deferred_) note_inputs();
    compute(capturing);
    for (size_t i = stack_.size() - op_.schema().returns().size(); i < stack_.size(); i++) stack_[i] = result(stack_[i]);
    for (auto& [device, host] : arguments_)
      if (device.sizes() != host.sizes()) resize(device, host);
    if (deferred_) defer(stream, capturing);
    else simcuda_timed(stream);
  }

 private:
  bool random() const { return op_.hasTag(at::Tag::nondeterministic_seeded); }

  Tensor argument(const Tensor& tensor) {
    if (!tensor.defined() || !tensor.is_cuda()) return tensor;
    device_ = tensor.device();
    for (const auto& [device, host] : arguments_)
      if (device.is_same(tensor)) return host;
    arguments_.emplace_back(tensor, on_host(tensor));
    return arguments_.back().second;
  }

  IValue argument(const IValue& value) {
    if (value.isTensor()) return argument(value.toTensor());
    if (value.isTensorList()) {
      c10::List<Tensor> list;
      for (const Tensor& tensor : value.toTensorVector()) list.push_back(argument(tensor));
      return list;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> list;
      for (const std::optional<Tensor>& tensor : value.toOptionalTensorVector())
        list.push_back(tensor ? std::optional<Tensor>(argument(*tensor)) : std::nullopt);
      return list;
    }
    if (value.isDevice() && value.toDevice().is_cuda()) {
      if (arguments_.empty()) device_ = value.toDevice();
      return c10::Device(at::kCPU);
    }
    if (value.isGenerator() && value.toGenerator().device().is_cuda()) {
      generator_ = value.toGenerator();
      return {};
    }
    return value;
  }

  void compute(bool capturing) {
    std::optional<DeviceRandomness> randomness;
    if (random()) {
      TORCH_CHECK(!capturing, "simcuda: ", op_.operator_name(), " draws random numbers; numeric mode does not capture that");
      if (device_.index() < 0) device_.set_index(c10::cuda::current_device());
      randomness.emplace(generator_.defined() ? generator_ : at::globalContext().defaultGenerator(device_));
    }
    op_.callBoxed(&stack_);
  }

  // An out= argument that the kernel has resized.
  void resize(Tensor& device, const Tensor& host) {
    device.resize_(host.sizes());
    copy_bytes(device, host.contiguous());
  }

  Tensor result(const Tensor& host) {
    if (!host.defined() || !host.is_cpu()) return host;
    for (auto& [device, alias] : arguments_) {
      if (!alias.is_same(host)) continue;
      if (device.sizes() != host.sizes()) resize(device, host);
      return device;
    }
    for (const auto& [device, alias] : arguments_)
      if (host.storage().data() != nullptr && alias.storage().data() == host.storage().data())
        return device.as_strided(host.sizes(), host.strides(), host.storage_offset());
    const Tensor dense = host.is_non_overlapping_and_dense() ? host : host.contiguous();
    Tensor device = at::empty_strided(dense.sizes(), dense.strides(), dense.options().device(device_));
    if (!deferred_) copy_bytes(device, dense);
    fresh_.push_back(device);
    return device;
  }

  IValue result(const IValue& value) {
    if (value.isTensor()) return result(value.toTensor());
    if (!value.isTensorList()) return value;
    c10::List<Tensor> list;
    for (const Tensor& tensor : value.toTensorVector()) list.push_back(result(tensor));
    return list;
  }

  void note_inputs() {
    inputs_.assign(stack_.begin() + static_cast<ptrdiff_t>(first_), stack_.end());
    for (size_t i = 0; i < inputs_.size(); i++) {
      const auto* const alias = op_.schema().arguments()[i].alias_info();
      if (alias == nullptr || !alias->isWrite()) continue;
      for_each_tensor(inputs_[i], [&](const Tensor& tensor) {
        if (tensor.defined()) written_.emplace_back(tensor, tensor.clone());
      });
    }
  }

  void defer(void* stream, bool capturing) {
    std::vector<Tensor> targets;  // per returned tensor; undefined where it is no new one
    for (size_t i = stack_.size() - op_.schema().returns().size(); i < stack_.size(); i++)
      for_each_tensor(stack_[i], [&](const Tensor& tensor) {
        const bool is_fresh = std::any_of(fresh_.begin(), fresh_.end(), [&](const Tensor& made) { return made.is_same(tensor); });
        targets.push_back(is_fresh ? on_host(tensor) : Tensor());
      });
    const auto touched = std::make_shared<Touched>();
    for (const IValue& input : inputs_) for_each_tensor(input, [&](const Tensor& tensor) { touched->add(tensor); });
    for (const Tensor& target : targets) touched->add(target);
    using Work = std::function<void()>;
    auto* const work = new Work([op = op_, inputs = inputs_, targets, touched] {
      const BelowEverything below;
      Stack stack(inputs.begin(), inputs.end());
      op.callBoxed(&stack);
      size_t next = 0;
      for (const IValue& value : stack)
        for_each_tensor(value, [&](const Tensor& tensor) {
          if (targets[next].defined()) targets[next].copy_(tensor);
          next++;
        });
    });
    simcuda_enqueue(
        stream, [](void* argument) { (*static_cast<Work*>(argument))(); }, work, [](void* argument) { delete static_cast<Work*>(argument); });
    for (const auto& [tensor, before] : written_)
      if (tensor.sizes() == before.sizes()) tensor.copy_(before);
    if (capturing) return;
    const auto may_be_spoiled = [](const Tensor& tensor) { return tensor.is_floating_point() && tensor.numel() > 0 && !Touched::by_queued_work(tensor); };
    for (const Tensor& tensor : fresh_)  // all bits set is NaN; integers may be indices and stay
      if (may_be_spoiled(tensor)) std::memset(tensor.mutable_data_ptr(), 0xff, tensor.nbytes());
    Touched::queue(touched);
  }

  const c10::OperatorHandle& op_;
  Stack& stack_;
  size_t first_;
  bool deferred_ = false;
  c10::Device device_{at::kCUDA, c10::cuda::current_device()};
  at::Generator generator_;                           // explicit, of the device
  std::vector<std::pair<Tensor, Tensor>> arguments_;  // on the device, on the host
  std::vector<Tensor> fresh_;                         // results, on the device
  std::vector<IValue> inputs_;                        // deferred: on the host
  std::vector<std::pair<Tensor, Tensor>> written_;    // deferred: on the host, and what was there before
};

void compute_on_host(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) {
  const BelowEverything below;
  Call(op, *stack).run();
}

// A fused operator that the CPU composes of others.
void decompose(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack* stack) { op.callBoxedForDispatchKey(DispatchKey::CompositeImplicitAutograd, *stack); }

// Its real kernel would be launched, do nothing and return garbage.
void refuse(const c10::OperatorHandle& op, c10::DispatchKeySet, Stack*) {
  TORCH_CHECK(false, "simcuda: ", op.operator_name(), " has no CPU kernel; numeric mode cannot run it");
}

template <auto kernel>
void put_at(const c10::OperatorName& name, DispatchKey key) {
  static auto* const registered = new std::vector<c10::RegistrationHandleRAII>;
  registered->push_back(c10::Dispatcher::singleton().registerImpl(name, key, c10::KernelFunction::makeFromBoxedFunction<kernel>(), std::nullopt, nullptr,
                                                                  "simcuda numeric mode"));
}

}  // namespace

// Returns how many operators compute on the host from now on.
extern "C" __attribute__((visibility("default"))) int simcuda_redirect_operators() {
  struct Quiet final : c10::WarningHandler {
    void process(const c10::Warning&) override {}  // "overriding a previously registered kernel": that is the idea
  } quiet;
  const c10::WarningUtils::WarningHandlerGuard guard(&quiet);
  auto& dispatcher = c10::Dispatcher::singleton();
  int redirected = 0;
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (!name.name.starts_with("aten::") || kLeftAlone.contains(name.name)) continue;
    const auto op = dispatcher.findSchema(name);
    if (!op) continue;
    const bool whole = kWhole.contains(name.name) && name.overload_name.empty();
    if (!whole && !op->hasKernelForDispatchKey(DispatchKey::CUDA)) continue;
    if (whole || op->hasKernelForDispatchKey(DispatchKey::CPU) || op->hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutograd)) {
      put_at<&compute_on_host>(name, DispatchKey::CUDA);
      redirected++;
    } else if (op->hasKernelForDispatchKey(DispatchKey::CompositeImplicitAutograd)) {
      put_at<&decompose>(name, DispatchKey::CUDA);
      put_at<&decompose>(name, DispatchKey::AutogradCUDA);
    } else {
      put_at<&refuse>(name, DispatchKey::CUDA);
    }
  }
  auto& context = at::globalContext();  // kernels chosen below the dispatcher
  context.setSDPUseFlash(false);
  context.setSDPUseMemEfficient(false);
  context.setSDPUseCuDNN(false);
  context.setUserEnabledCuDNN(false);
  return redirected;
}
