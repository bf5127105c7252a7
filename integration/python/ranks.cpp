#include "integration/python/ranks.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "integration/torch/agreement.hpp"

namespace nb = nanobind;

namespace reprise::python {
namespace {

// Runs `call` with the GIL; an exception of Python's leaves as a plain one of ours, which torch's bindings know how to pass on.
template <class Call>
auto with_python(const Call& call) {
  nb::gil_scoped_acquire gil;
  try {
    return call();
  } catch (nb::python_error& error) {
    const std::string text = nb::cast<std::string>(nb::str(error.value()));
    throw std::runtime_error(text);
  }
}

class PythonRanks final : public engine::Ranks {
 public:
  explicit PythonRanks(nb::object object)
      : object_(std::move(object)), rank_(nb::cast<int>(object_.attr("rank"))), world_(nb::cast<int>(object_.attr("world"))) {}
  ~PythonRanks() override {
    if (!Py_IsInitialized()) {
      object_.release();  // the interpreter is gone, and its objects with it
      return;
    }
    nb::gil_scoped_acquire gil;
    object_.reset();
  }
  int rank() const override { return rank_; }
  int world() const override { return world_; }
  bool any(bool mine) override {
    return with_python([&] { return nb::cast<bool>(object_.attr("any")(mine)); });
  }
  std::vector<std::string> gather(const std::string& mine) override {
    return with_python([&] { return nb::cast<std::vector<std::string>>(object_.attr("gather")(mine)); });
  }

 private:
  nb::object object_;
  int rank_, world_;
};

}  // namespace

void set_ranks_finder(nb::object finder) {
  auto* const kept = new nb::object(std::move(finder));
  engine::set_ranks_finder([kept]() -> std::shared_ptr<engine::Ranks> {
    return with_python([&]() -> std::shared_ptr<engine::Ranks> {
      nb::object found = (*kept)();
      return found.is_none() ? nullptr : std::make_shared<PythonRanks>(std::move(found));
    });
  });
}

}  // namespace reprise::python
