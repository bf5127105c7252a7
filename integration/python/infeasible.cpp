// reprise.Infeasible thrown from inside an operator: torch's bindings translate C++ exceptions by a fixed list, of which python_error is the one that can
// carry an object of ours. It is header-only; nothing of libtorch_python is linked.
#include "integration/python/infeasible.hpp"

#include <torch/csrc/Exceptions.h>

#include <string>

namespace reprise::python {

void throw_infeasible(const std::string& text, int64_t smallest_budget_bytes) {
  if (!Py_IsInitialized()) return;  // the caller throws the C++ exception then
  python_error error;
  {
    pybind11::gil_scoped_acquire gil;
    PyObject* package = PyImport_ImportModule("reprise");
    PyObject* type = package ? PyObject_GetAttrString(package, "Infeasible") : nullptr;
    PyObject* value = nullptr;
    if (type)
      value = smallest_budget_bytes > 0 ? PyObject_CallFunction(type, "sL", text.c_str(), static_cast<long long>(smallest_budget_bytes))
                                        : PyObject_CallFunction(type, "s", text.c_str());
    if (value) PyErr_SetObject(type, value);  // else the error that came up instead is thrown
    Py_XDECREF(value);
    Py_XDECREF(type);
    Py_XDECREF(package);
    error.persist();
  }
  throw error;
}

bool restore_current() {
  try {
    throw;
  } catch (python_error& error) {
    error.restore();
    return true;
  } catch (...) {
    return false;
  }
}

}  // namespace reprise::python
