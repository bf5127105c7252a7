#include "integration/torch/tensor_view.hpp"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/anomaly_mode.h>

#include <cstring>
#include <sstream>

#include "integration/torch/budgeted.hpp"

namespace reprise::engine {

namespace {

constexpr c10::DispatchKeySet kForeignKeys({c10::DispatchKey::ZeroTensor, c10::DispatchKey::Quantized, c10::DispatchKey::NestedTensor,
                                            c10::DispatchKey::FuncTorchBatched, c10::DispatchKey::FuncTorchGradWrapper, c10::DispatchKey::Functionalize,
                                            c10::DispatchKey::Python, c10::DispatchKey::PythonTLSSnapshot});

bool is_plain(const c10::TensorImpl& impl) {
  return !impl.key_set().has_any(kForeignKeys) && impl.layout() == c10::kStrided && impl.has_storage() && !const_cast<c10::TensorImpl&>(impl).is_inference() &&
         impl.device() == budgeted_device();
}

}  // namespace

const char* reason_not_plain(const at::Tensor& tensor) {
  c10::TensorImpl* impl = tensor.unsafeGetTensorImpl();
  if (is_plain(*impl)) return nullptr;  // nearly always
  if (impl->is_python_dispatch()) return "tensor subclass";
  if (impl->layout() != c10::kStrided) return "tensor that is not strided";
  const c10::DispatchKeySet keys = impl->key_set();
  static constexpr std::pair<c10::DispatchKey, const char*> kForeign[] = {{c10::DispatchKey::ZeroTensor, "zero tensor"},
                                                                          {c10::DispatchKey::Quantized, "quantised tensor"},
                                                                          {c10::DispatchKey::NestedTensor, "nested tensor"},
                                                                          {c10::DispatchKey::FuncTorchBatched, "functorch tensor"},
                                                                          {c10::DispatchKey::FuncTorchGradWrapper, "functorch tensor"},
                                                                          {c10::DispatchKey::Functionalize, "functionalised tensor"},
                                                                          {c10::DispatchKey::Python, "tensor subclass"}};
  for (const auto& [key, reason] : kForeign)
    if (keys.has(key)) return reason;
  if (!impl->has_storage()) return "tensor without a storage";
  if (impl->is_inference()) return "inference tensor";
  if (impl->device() != budgeted_device()) return "tensor on a device that is not recorded";
  return nullptr;
}

Geometry Geometry::of(const at::Tensor& tensor) {
  Geometry g;
  g.set(tensor);
  return g;
}

void Geometry::set(const at::Tensor& tensor) {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  const c10::IntArrayRef shape = impl.sizes(), steps = impl.strides();
  sizes.assign(shape.begin(), shape.end());
  strides.assign(steps.begin(), steps.end());
  offset = impl.storage_offset();
  dtype = impl.dtype();
  device = impl.device();
  conjugate = impl.is_conj();
  negative = impl.is_neg();
  dense = impl.is_non_overlapping_and_dense();
  wrapped_number = impl.is_wrapped_number();
}

bool Geometry::is_of(const at::Tensor& tensor) const {
  const c10::TensorImpl& impl = *tensor.unsafeGetTensorImpl();
  const c10::IntArrayRef shape = impl.sizes(), steps = impl.strides();  // equal ones are equally dense
  if (shape.size() != sizes.size()) return false;
  for (size_t i = 0; i < shape.size(); i++)
    if (shape[i] != sizes[i] || steps[i] != strides[i]) return false;
  return offset == impl.storage_offset() && dtype == impl.dtype() && device == impl.device() && conjugate == impl.is_conj() && negative == impl.is_neg() &&
         wrapped_number == impl.is_wrapped_number();
}

at::Tensor Geometry::over(c10::Storage storage) const {
  const auto backend = storage.device().is_cuda() ? c10::DispatchKey::CUDA : c10::DispatchKey::CPU;
  auto impl = c10::make_intrusive<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(backend), dtype);
  impl->set_sizes_and_strides(sizes, strides, offset);
  if (conjugate) impl->_set_conj(true);
  if (negative) impl->_set_neg(true);
  if (wrapped_number) impl->set_wrapped_number(true);
  return at::Tensor(std::move(impl));
}

bool Geometry::covers(const c10::Storage& storage) const {
  int64_t count = 1;
  for (int64_t size : sizes) count *= size;
  return dense && offset == 0 && static_cast<size_t>(count) * dtype.itemsize() == storage.nbytes();
}

bool covers_its_storage(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->is_non_overlapping_and_dense() && tensor.storage_offset() == 0 && tensor.nbytes() == tensor.storage().nbytes();
}

std::string Geometry::text() const {
  std::ostringstream out;
  out << dtype.name() << " " << c10::IntArrayRef(sizes.data(), sizes.size());
  return out.str();
}

Version Version::of(const at::Tensor& tensor) {
  const auto& counter = tensor.unsafeGetTensorImpl()->version_counter();
  return counter.enabled() ? Version{counter, counter.current_version()} : Version{};
}

void Version::refuse(const Geometry& geometry, const std::string& purpose) const {
  // Wording of torch's SavedVariable, so that searching for the message finds torch's own explanation.
  const char* hint =
      torch::autograd::AnomalyMode::is_enabled()
          ? " Hint: the backtrace further above shows the operation that failed to compute its gradient. The variable in question was changed in there "
            "or anywhere later. Good luck!"
          : " Hint: enable anomaly detection to find the operation that failed to compute its gradient, "
            "with torch.autograd.set_detect_anomaly(True, check_nan=False).";
  const std::string type = c10::toString(c10::typeMetaToScalarType(geometry.dtype));
  TORCH_CHECK(false, "one of the variables needed for gradient computation has been modified by an inplace operation: [torch.", type, "Tensor ",
              c10::IntArrayRef(geometry.sizes.data(), geometry.sizes.size()), "]", purpose, " is at version ", now(), "; expected version ", seen, " instead.",
              hint);
  throw std::logic_error("not reached");
}

c10::Storage new_storage(size_t bytes, c10::DeviceType device) {
  c10::Allocator* allocator = c10::GetAllocator(device);
  return c10::Storage(c10::Storage::use_byte_size_t{}, bytes, allocator->allocate(bytes), allocator, true);
}

at::Tensor detached(const at::Tensor& tensor) {
  if (tensor.unsafeGetTensorImpl()->is_python_dispatch()) return tensor.detach();
  c10::impl::ExcludeDispatchKeyGuard no_modes(c10::DispatchKey::Python);
  return at::Tensor(tensor.unsafeGetTensorImpl()->shallow_copy_and_detach(c10::VariableVersion(0), false));
}

c10::Storage clone_storage(const c10::Storage& storage) {
  c10::Storage copy = new_storage(storage.nbytes(), storage.device_type());
  if (storage.nbytes() == 0) return copy;
  if (storage.device().is_cpu()) {
    std::memcpy(copy.mutable_data(), storage.data(), storage.nbytes());
  } else {
    c10::impl::ExcludeDispatchKeyGuard no_recording(c10::DispatchKey::Fake);
    at::AutoDispatchBelowADInplaceOrView below;
    bytes_of(copy).copy_(bytes_of(storage));
  }
  return copy;
}

at::Tensor bytes_of(const c10::Storage& storage) {
  Geometry all;
  all.sizes = {static_cast<int64_t>(storage.nbytes())};
  all.strides = {1};
  all.dtype = caffe2::TypeMeta::Make<uint8_t>();
  return all.over(storage);
}

}  // namespace reprise::engine
