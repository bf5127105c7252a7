#include "integration/python/wrapped.hpp"

#include <torch/csrc/autograd/python_variable.h>

#include "integration/torch/wrapped.hpp"

namespace nb = nanobind;

namespace reprise::python {
namespace {

nb::object& unwrap_function() {
  static auto* const kept = new nb::object;  // never destroyed: the interpreter may be gone by then
  return *kept;
}

nb::object to_python(const at::Tensor& tensor) { return nb::steal(THPVariable_Wrap(tensor)); }
at::Tensor from_python(nb::handle object) { return THPVariable_Unpack(object.ptr()); }

class PythonWrapper final : public engine::Wrapper {
 public:
  explicit PythonWrapper(nb::object wrap) : wrap_(std::move(wrap)) {}
  ~PythonWrapper() override {
    if (!Py_IsInitialized()) {
      wrap_.release();
      return;
    }
    nb::gil_scoped_acquire gil;
    wrap_.reset();
  }
  at::Tensor wrap(const at::Tensor& inner) const override {
    nb::gil_scoped_acquire gil;
    return from_python(wrap_(to_python(inner)));
  }

 private:
  nb::object wrap_;
};

engine::Unwrapped unwrap(const at::Tensor& tensor) {
  nb::gil_scoped_acquire gil;
  const nb::object found = unwrap_function()(to_python(tensor));
  if (found.is_none()) return {};
  return {from_python(found[0]), std::make_shared<const PythonWrapper>(found[1])};
}

}  // namespace

void set_unwrapper(nb::object function) {
  unwrap_function() = std::move(function);
  engine::set_unwrapper(&unwrap);
}

}  // namespace reprise::python
