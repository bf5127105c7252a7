// What a tensor shows: a Value (the content of one storage between two writes) through a Geometry. Views make no Value, only another Geometry.
//
// Version keeps the counter that autograd would have checked (torch skips its own check where saved-tensor hooks are installed, R7): an alias made
// below autograd gets a counter of its own, so it is the counter that is kept and not the alias.
// Threads: plain values. Cost: one allocation for a tensor made over a storage.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/core/Storage.h>
#include <c10/util/SmallVector.h>

#include <string>

namespace reprise::engine {

// R4: the tensors whose content may be dropped and made again: plain, strided, dense, and nobody's wrapper.
// Returns nullptr for those, else why not.
const char* reason_not_plain(const at::Tensor& tensor);

struct Geometry {
  c10::SmallVector<int64_t, 5> sizes;
  c10::SmallVector<int64_t, 5> strides;
  int64_t offset = 0;
  caffe2::TypeMeta dtype;
  c10::Device device = c10::kCPU;
  bool conjugate = false;
  bool negative = false;
  bool dense = true;            // non-overlapping, no gaps
  bool wrapped_number = false;  // a Python scalar: takes no part in type promotion

  static Geometry of(const at::Tensor& tensor);
  at::Tensor over(c10::Storage storage) const;     // below autograd, no dispatcher call
  bool covers(const c10::Storage& storage) const;  // shows every byte of it
  bool is_of(const at::Tensor& tensor) const;      // == of(tensor), without making one
  void set(const at::Tensor& tensor);              // = of(tensor), in place
  std::string text() const;                        // "float [2, 3]"
};

bool covers_its_storage(const at::Tensor& tensor);  // Geometry::of(tensor).covers(…) without making one

// Calls visit(tensor) for each tensor of an argument: itself, or those of its lists and lists of lists.
template <class Visit>
void for_each_tensor(const c10::IValue& argument, const Visit& visit) {
  if (argument.isTensor()) visit(argument.toTensor());
  else if (argument.isList())
    for (const c10::IValue& element : argument.toListRef()) for_each_tensor(element, visit);
}

struct Version {
  c10::VariableVersion counter{c10::VariableVersion::DISABLED};  // disabled: nobody counts, so nothing is found changed
  uint32_t seen = 0;
  static Version of(const at::Tensor& tensor);
  uint32_t now() const { return counter.enabled() ? counter.current_version() : seen; }
  bool current() const { return now() == seen; }
  // Throws torch's own words; `purpose()` follows the shape ("", ", which is output 0 of ExpBackward0," or ", needed to recompute aten::mul,").
  template <class Purpose>
  void check(const Geometry& geometry, Purpose purpose) const {
    if (!current()) refuse(geometry, purpose());
  }

 private:
  [[noreturn]] void refuse(const Geometry& geometry, const std::string& purpose) const;
};

c10::Storage new_storage(size_t bytes, c10::DeviceType device = c10::DeviceType::CPU);  // from torch's allocator
// As detach(), but no mode of the user sees it (R2). For a subclass, whose detach() is its own business, it is detach().
at::Tensor detached(const at::Tensor& tensor);

at::Tensor bytes_of(const c10::Storage& storage);         // all of it, as uint8
c10::Storage clone_storage(const c10::Storage& storage);  // bytes copied through torch's allocator, on the current stream where there are streams

}  // namespace reprise::engine
