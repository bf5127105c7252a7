// A step that repeats: a call that does what the Op in its place did in the last Pass is not recorded anew. It is compared with that Op (operator, dispatch
// keys, which Value each argument shows and how, plain arguments) and the Op is taken over as it is: its arguments, hashes and seconds are right already.
//
// Only for Ops that write nothing and draw nothing, and in Passes in which nothing is measured, traced or compared; what R4, R5 and R7 ask of each call is
// done for each. Values are made anew, as memory is. Anything else is recorded by Call (recorder.cpp), and the Op that was expected stays where it is.
// Cost: no allocation; the Pass's mutex is taken before and after the kernel.
#include <bit>

#include "integration/torch/engine_internal.hpp"
#include "integration/torch/pass.hpp"

namespace reprise::engine {
namespace {

bool is_single_number(const c10::IValue& a) { return a.isNone() || a.isInt() || a.isBool() || a.isDouble() || a.isDevice(); }

bool same_single_number(const c10::IValue& a, const c10::IValue& b) {
  if (a.isInt()) return b.isInt() && a.toInt() == b.toInt();
  if (a.isBool()) return b.isBool() && a.toBool() == b.toBool();
  if (a.isNone()) return b.isNone() || (b.isTensor() && !b.toTensor().defined());
  if (a.isDevice()) return b.isDevice() && a.toDevice() == b.toDevice();
  if (!a.isDouble() || !b.isDouble()) return false;
  return std::bit_cast<uint64_t>(a.toDouble()) == std::bit_cast<uint64_t>(b.toDouble());  // a zero has a sign, and not-a-number is itself
}

bool same_number(const c10::IValue& a, const c10::IValue& b) {
  if (!a.isList()) return same_single_number(a, b);
  if (!b.isList()) return false;
  const c10::ArrayRef<c10::IValue> x = a.toListRef(), y = b.toListRef();
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); i++)
    if (!same_single_number(x[i], y[i])) return false;
  return true;
}

}  // namespace

bool is_number(const c10::IValue& argument) {
  if (!argument.isList()) return is_single_number(argument);
  for (const c10::IValue& item : argument.toListRef())
    if (!is_single_number(item)) return false;
  return true;
}

class Repeated {
 public:
  Repeated(Pass& pass, const OperatorFacts& facts, const torch::jit::Stack& stack) : pass_(pass), facts_(facts), stack_(stack) {}

  // Is the call the one that made `op`? The mutex is held. What it reads for the first time in this Pass is a Value afterwards, whatever the answer.
  bool is(const Op& op, const c10::OperatorHandle& called, c10::DispatchKeySet keys) {
    if (!op.repeatable || !(op.handle == called) || !(op.keys == keys)) return false;
    const size_t count = op.arguments.size(), base = stack_.size() - count;
    for (size_t i = 0; i < count; i++)
      if (!same_argument(i, op.arguments[i], stack_[base + i])) return false;
    return true;
  }

 private:
  bool same_argument(size_t i, const Slot& slot, const c10::IValue& a) {
    if (slot.kind == Slot::Kind::kPlain) return same_number(slot.plain, a);
    if (slot.kind == Slot::Kind::kTensor) return a.isTensor() && same_tensor(i, slot.refs[0], a.toTensor());
    if (slot.kind != Slot::Kind::kTensorList || !a.isTensorList()) return false;
    const c10::ArrayRef<c10::IValue> list = a.toListRef();
    if (list.size() != slot.refs.size()) return false;
    for (size_t k = 0; k < list.size(); k++)
      if (!same_tensor(i, slot.refs[k], list[k].toTensor())) return false;
    return true;
  }

  bool same_tensor(size_t i, const Ref& ref, const at::Tensor& t) {
    if (!t.defined() || ref.value == -1) return !t.defined() && ref.value == -1;
    if (reason_not_plain(t) || !ref.geometry.is_of(t)) return false;
    if (ref.value == kMetadata) return true;
    int32_t value = pass_.value_of(t);
    if (value < 0 && size_t(ref.value) == pass_.values_.size()) value = pass_.value_or_outside(t, pass_.place_of(facts_, i), true);
    if (value != ref.value) return false;
    const Value& shown = pass_.values_[size_t(value)];
    return shown.stranded_by < 0 && !shown.uninitialised;
  }

  Pass& pass_;
  const OperatorFacts& facts_;
  const torch::jit::Stack& stack_;
};

bool Pass::repeats() const {
  return !options_.trace && !options_.sample && !options_.fingerprint && !options_.verify && caught.size() == 0 && ops_.expected() != nullptr;
}

bool Pass::run_repeated(const c10::OperatorHandle& called, const OperatorFacts& facts, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  Garbage garbage;  // released after the mutex
  std::unique_ptr<Op> op;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!repeats()) return false;
    heed_emptied();
    if (!Repeated(*this, facts, *stack).is(*ops_.expected(), called, keys)) return false;
    op = ops_.take_expected();
    hold_sources(*op, garbage);
    if (const auto& settings = settings_now(facts); op->settings != settings) op->settings = settings;
    note_stream(*op);
    ops_.fetch_ahead();
  }
  called.redispatchBoxed(keys, stack);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!book_repeated(*op, *stack)) {
    op->forget();
    ops_.put_back(std::move(op));  // this time it made nothing new
    return true;
  }
  counters.recorded++;
  counters.repeated++;
  const size_t index = ops_.size();
  ops_.add(std::move(op));
  follow(index);
  return true;
}

bool Pass::book_repeated(Op& op, const torch::jit::Stack& stack) {
  const auto index = static_cast<int32_t>(ops_.size());
  op.made.clear();
  bool makes_value = false;
  const auto book = [&](const at::Tensor& t) {
    op.made.push_back(book_result(t, op, index));
    makes_value |= op.made.back() >= 0;
  };
  const size_t results = op.handle.schema().returns().size();
  for (size_t i = stack.size() - results; i < stack.size(); i++) {
    if (stack[i].isTensor()) book(stack[i].toTensor());
    else if (stack[i].isTensorList())
      for (const c10::IValue& t : stack[i].toListRef()) book(t.toTensor());
    else op.made.push_back(-1);
  }
  if (makes_value && hash_of_made(op) != op.made_hash) finish_hashes(op);
  return makes_value;
}

}  // namespace reprise::engine
