// Recording one operator call: what it read, wrote and made, in terms of Values. The fallback that gets here is in engine.cpp.
#include <ATen/Context.h>

#include "integration/torch/budgeted.hpp"
#include "integration/torch/controller.hpp"
#include "integration/torch/device_choice.hpp"
#include "integration/torch/engine_internal.hpp"
#include "integration/torch/pass.hpp"

namespace reprise::engine {
namespace {

void mix(uint64_t& hash, uint64_t item) { hash = (hash ^ (item + 0x9e3779b97f4a7c15ull + (hash << 6) + (hash >> 2))) * 0xff51afd7ed558ccdull; }

void mix_shape(uint64_t& hash, const Geometry& g) {
  mix(hash, g.sizes.size());
  for (int64_t s : g.sizes) mix(hash, static_cast<uint64_t>(s));
  mix(hash, g.dtype.itemsize());
}

void collect_integers(const c10::IValue& a, std::vector<int64_t>& out) {
  if (a.isInt()) out.push_back(a.toInt());
  else if (a.isBool()) out.push_back(a.toBool() ? 1 : 0);
  else if (a.isIntList())
    for (int64_t i : a.toIntVector()) out.push_back(i);
  else if (a.isBoolList())
    for (bool b : a.toBoolList().vec()) out.push_back(b ? 1 : 0);
}

TensorShape shape_of(const at::Tensor& t) {
  TensorShape shape;
  if (t.defined() && !reason_not_plain(t)) {
    shape.sizes = t.sizes().vec();
    shape.item_bytes = static_cast<int32_t>(t.itemsize());
  }
  return shape;
}

}  // namespace

// One call on its way through the recorder: before() reads the arguments, run() runs the kernel, after() books what came out.
class Call {
 public:
  Call(Pass& pass, const c10::OperatorHandle& op, const OperatorFacts& facts, c10::DispatchKeySet keys, torch::jit::Stack* stack)
      : pass_(pass), facts_(facts), stack_(stack), owned_(made(pass, op, keys, facts)), op_(*owned_) {}

  void before() {
    std::lock_guard<std::mutex> lock(pass_.mutex_);
    const size_t count = facts_.writes.size(), base = stack_->size() - count;
    find_hidden_write(base);
    pass_.heed_emptied();
    op_.arguments.resize(count);
    for (size_t i = 0; i < count; i++) read_argument(i, (*stack_)[base + i]);
    decide_random(base);
    decide_writes();
    if (!op_.opaque_reason) pass_.hold_sources(op_, garbage_);
    for (Written& w : written_) {
      w.brings_back = pass_.brought_back(w.before);
      if (!w.brings_back) pass_.before_write(w.before, garbage_);
    }
    op_.settings = pass_.settings_now(facts_);
    pass_.note_stream(op_);
    pass_.poll_gone();  // what the program let go of since the last Op is gone while this one runs
    pass_.note(Mark::kOpBegin, int64_t(pass_.ops_.size()));
  }

  void run() {
    if (draws_random_ && !op_.opaque_reason) op_.generator = copy_generator(generator_, std::move(op_.spare_generator));
    const double began = pass_.op_clock(op_);
    {
      const Timed timed(pass_.clock_.get(), static_cast<int32_t>(pass_.ops_.size()), false, op_.stream);
      op_.handle.redispatchBoxed(op_.keys, stack_);
    }
    op_.forward_seconds = pass_.op_clock(op_) - began;
  }

  void after() {
    std::lock_guard<std::mutex> lock(pass_.mutex_);
    const auto index = static_cast<int32_t>(pass_.ops_.size());
    pass_.note(Mark::kOpEnd, index);
    book_writes(index);
    book_results(index);
    if (!makes_value_) {
      op_.forget();
      pass_.ops_.put_back(std::move(owned_));
      pass_.poll_gone();
      return;
    }
    pass_.finish_hashes(op_);
    if (caught.size() && caught.has(op_.match)) make_opaque("an unseen write to its result was caught");
    if (op_.opaque_reason) {
      op_.arguments.clear();
      counters.opaque++;
    }
    op_.repeatable = is_repeatable();
    counters.recorded++;
    pass_.ops_.add(std::move(owned_));
    pass_.follow(size_t(index));
    take_fingerprints();
    pass_.poll_gone();
  }

 private:
  struct Written {
    size_t argument;
    at::Tensor tensor;
    int32_t before;
    bool hidden;
    bool brings_back = false;  // the same content as before
  };

  // Where the operator's random numbers come from if it is given no generator: the device of its tensors, or the one it is told.
  c10::Device device_of_arguments(size_t base) const {
    c10::Device device = c10::kCPU;
    for (size_t i = base; i < stack_->size(); i++) {
      const c10::IValue& a = (*stack_)[i];
      if (a.isDevice()) device = a.toDevice();
      else if (a.isTensor() && a.toTensor().defined() && !a.toTensor().is_cpu()) return a.toTensor().device();
    }
    return device;
  }

  void find_hidden_write(size_t base) {
    if (!facts_.hides_writes) return;
    const int t = facts_.training_argument;
    op_.hidden_write = t < 0 || ((*stack_)[base + size_t(t)].isBool() && (*stack_)[base + size_t(t)].toBool());
  }

  void read_argument(size_t i, const c10::IValue& a) {
    Slot& slot = op_.arguments[i];
    slot.clear();
    if (a.isTensor()) {
      if (a.toTensor().defined()) {
        slot.kind = Slot::Kind::kTensor;
        add_ref(slot, i, a.toTensor());
      }
    } else if (a.isTensorList()) {
      slot.kind = Slot::Kind::kTensorList;
      for (const at::Tensor& t : a.toTensorVector()) add_ref(slot, i, t);
    } else if (a.isList() && !a.toListRef().empty() && (a.toListRef()[0].isTensor() || a.toListRef()[0].isNone())) {
      slot.kind = Slot::Kind::kOptionalList;
      for (const c10::IValue& e : a.toListRef()) add_ref(slot, i, e.isTensor() ? e.toTensor() : at::Tensor());
    } else if (a.isTuple() || a.isGenericDict() || a.isObject() || a.isCapsule() || a.isPyObject() || a.isCustomClass()) {
      op_.opaque_reason = "argument that is no plain value";
    } else if (facts_.communicates && a.isList()) {
      for_each_tensor(a, [&](const at::Tensor& t) { add_ref(slot, i, t); });
    } else {
      slot.plain = a;
      collect_integers(a, op_.integers);
    }
  }

  void add_ref(Slot& slot, size_t i, const at::Tensor& t) {
    Ref& ref = slot.refs.emplace_back();
    if (!t.defined()) return;
    const bool host_scalar = t.is_cpu() && t.dim() == 0 && !budget_is_on_cpu() && !facts_.writes[i];  // x * 2: read by the launch, in no device memory
    if (const char* why = host_scalar ? nullptr : reason_not_plain(t)) {
      op_.opaque_reason = why;
      return;
    }
    ref.geometry = Geometry::of(t);
    ref.gradient = t.requires_grad();
    if (facts_.metadata_only) {
      ref.value = kMetadata;
      return;
    }
    const uint8_t write = facts_.writes[i] == 2 && !op_.hidden_write ? 0 : facts_.writes[i];
    ref.value = pass_.value_or_outside(t, pass_.place_of(facts_, i), write == 0);
    if (pass_.values_[size_t(ref.value)].stranded_by >= 0) pass_.settle(ref.value, "made with parameters that are sharded again when it is needed");
    if (write != 2) ref.value = pass_.check_fingerprint(t, ref.value, garbage_);
    const bool overwrites = write == 1 && ((facts_.overwrites_first && i == 0) || op_.handle.schema().arguments()[i].is_out());
    if (pass_.values_[size_t(ref.value)].uninitialised && !overwrites) pass_.settle(ref.value, "uninitialised memory that is read");
    if (write) written_.push_back({i, t, ref.value, write == 2});
  }

  void decide_random(size_t base) {
    draws_random_ = facts_.random;
    if (facts_.probability_argument >= 0) {
      const c10::IValue& p = (*stack_)[base + size_t(facts_.probability_argument)];
      draws_random_ = !(p.isDouble() && p.toDouble() == 0.0);
    }
    if (!draws_random_) return;
    const bool takes_one = facts_.generator_argument >= 0;
    const c10::IValue given = takes_one ? (*stack_)[base + size_t(facts_.generator_argument)] : c10::IValue();
    if (takes_one) op_.arguments[size_t(facts_.generator_argument)].plain = c10::IValue();  // the live generator is not to be kept or used
    generator_ = given.isGenerator() ? given.toGenerator() : at::globalContext().defaultGenerator(device_of_arguments(base));
    if (!generator_.device().is_cpu() && generator_.device() != budgeted_device()) op_.opaque_reason = "generator of a device that is not recorded";
    if (takes_one) return;
    op_.draws_from_default = true;
    if (generator_.device().is_cpu() && !op_.opaque_reason) op_.opaque_reason = "random operator that takes no generator";
  }

  // Writing to something that cannot be made again is a side effect: it happens once (R6).
  void decide_writes() {
    for (const auto& w : written_)
      if (!w.hidden && pass_.values_[size_t(w.before)].producer == kNoOp && !op_.opaque_reason) op_.opaque_reason = "writes to memory from outside the Pass";
  }

  void make_opaque(const char* reason) {
    op_.opaque_reason = reason;
    const auto index = static_cast<int32_t>(pass_.ops_.size());
    for (Value& v : pass_.values_)
      if (v.producer == index) {
        v.producer = kNoOp;
        v.keep_reason = reason;
      }
  }

  void book_writes(int32_t index) {
    for (const auto& w : written_) {
      if (w.brings_back) continue;
      const Value& before = pass_.values_[size_t(w.before)];
      const bool replayable = !op_.opaque_reason && !w.hidden && static_cast<size_t>(before.bytes) == w.tensor.storage().nbytes();
      const bool still_uninitialised = before.uninitialised && !covers_its_storage(w.tensor);
      const int32_t v = pass_.after_write(w.tensor, w.before, replayable ? index : kNoOp, garbage_);
      Value& now = pass_.values_[size_t(v)];
      now.uninitialised = replayable && still_uninitialised;
      now.slack = pass_.values_[size_t(w.before)].slack || facts_.communicates;
      if (!replayable) now.keep_reason = w.hidden ? "running statistics" : op_.opaque_reason ? op_.opaque_reason : "storage resized by its writer";
      if (!w.hidden) op_.wrote.emplace_back(static_cast<int>(w.argument), v);
      makes_value_ = true;
    }
  }

  void book_results(int32_t index) {
    const size_t results = op_.handle.schema().returns().size(), first = stack_->size() - results;
    for (size_t i = 0; i < results; i++) {
      const c10::IValue& r = (*stack_)[first + i];
      if (r.isTensor()) book_result(r.toTensor(), index);
      else if (r.isTensorList())
        for (const at::Tensor& t : r.toTensorVector()) book_result(t, index);
      else op_.made.push_back(-1);
    }
  }

  void take_fingerprints() {
    if (!pass_.options_.fingerprint) return;
    const Op& op = pass_.ops_.back();
    auto take = [&](int32_t v) {
      if (v < 0) return;
      Value& value = pass_.values_[size_t(v)];
      if (auto s = pass_.available(v); s && !value.uninitialised && !value.slack) {
        value.fingerprint = fingerprint_of(*s);
        value.has_fingerprint = true;
        pass_.look_for_packing(v, *s);
      }
    };
    for (int32_t v : op.made) take(v);
    for (const auto& w : op.wrote) take(w.second);
  }

  void book_result(const at::Tensor& t, int32_t index) {
    op_.made.push_back(pass_.book_result(t, op_, index));
    makes_value_ |= op_.made.back() >= 0;
  }

  // May the next Pass take it over as it is (repeated.cpp)?
  bool is_repeatable() const {
    if (op_.opaque_reason || draws_random_ || facts_.mutates || facts_.communicates) return false;
    for (const Slot& slot : op_.arguments)
      if (slot.kind == Slot::Kind::kOptionalList || (slot.kind == Slot::Kind::kPlain && !is_number(slot.plain))) return false;
    return true;
  }

  static std::unique_ptr<Op> made(Pass& pass, const c10::OperatorHandle& op, c10::DispatchKeySet keys, const OperatorFacts& facts) {
    std::lock_guard<std::mutex> lock(pass.mutex_);
    return pass.ops_.make(op, keys, facts);
  }

  Pass& pass_;
  const OperatorFacts& facts_;
  torch::jit::Stack* stack_;
  std::unique_ptr<Op> owned_;  // until it is booked
  Op& op_;
  std::vector<Written> written_;
  at::Generator generator_;
  bool draws_random_ = false;
  bool makes_value_ = false;
  Garbage garbage_;  // destroyed last, with no mutex held
};

void Pass::note_stream(Op& op) {
  if (budget_is_on_cpu()) return op.stream.reset();
  op.stream = current_stream();
  if (!stream_) stream_ = op.stream;
  many_streams_ |= stream_ != op.stream;
}

void Pass::hold_sources(const Op& op, Garbage& garbage) {
  const bool groups = options_.unplanned == PassOptions::Unplanned::kGroups && (!options_.following || broken_at_ != kNever);
  for (size_t i = 0; i < op.arguments.size(); i++) {
    const bool hidden = op.facts->writes[i] == 2 && op.hidden_write;
    for (const Ref& r : op.arguments[i].refs) {
      if (r.value < 0) continue;
      Value& v = values_[size_t(r.value)];
      // Torch counts a write up after it; what the counter says when the content is first read is what it must say at replay.
      if (v.producer == kNoOp && v.readers == 0 && !v.held_is_private) v.version.seen = v.version.now();
      if (!hidden) v.readers++;
      if (!v.held && (v.producer == kNoOp || (groups && v.group < group_))) hold(r.value, garbage);
      if (v.producer == kNoOp) watch_source(r.value);
    }
  }
}

int32_t Pass::book_result(const at::Tensor& t, Op& op, int32_t index) {
  if (options_.trace) op.output_shapes.push_back(shape_of(t));
  if (!t.defined() || reason_not_plain(t) || value_of(t) >= 0) return -1;  // undefined, of another kind, or a view of what is known
  const int32_t v = new_value(t, op.opaque_reason ? kNoOp : index);
  Value& value = values_[size_t(v)];
  value.keep_reason = op.opaque_reason;
  value.uninitialised = op.facts->makes_uninitialised && !op.opaque_reason;
  value.slack = !covers_its_storage(t) || op.facts->communicates;
  return v;
}

uint64_t Pass::place_of(const OperatorFacts& facts, size_t argument) const {
  uint64_t place = facts.hash;
  mix(place, ops_.size());
  mix(place, argument);
  return place;
}

uint64_t Pass::hash_of_made(const Op& op) const {
  uint64_t hash = op.made.size();
  for (int32_t v : op.made) mix(hash, v < 0 ? 0 : (uint64_t(v) << 40) ^ uint64_t(values_[size_t(v)].bytes) ^ 1);
  return hash;
}

void Pass::finish_hashes(Op& op) const {
  op.match = op.signature = op.structure = op.facts->hash;
  for (const Slot& slot : op.arguments) {
    for (const Ref& r : slot.refs) {
      mix(op.match, static_cast<uint64_t>(r.value) + 7);
      mix(op.structure, static_cast<uint64_t>(r.value) + 7);
      mix_shape(op.match, r.geometry);
      mix_shape(op.signature, r.geometry);
      if (options_.trace && r.value >= 0) {
        TensorShape shape{{r.geometry.sizes.begin(), r.geometry.sizes.end()}, static_cast<int32_t>(r.geometry.dtype.itemsize())};
        op.input_shapes.push_back(std::move(shape));
        op.reads.push_back(r.value);
        op.gradients.push_back(r.gradient && op.settings->grad_mode);
      }
    }
  }
  for (int64_t i : op.integers) mix(op.signature, static_cast<uint64_t>(i));
  for (int32_t v : op.made) {
    mix(op.structure, static_cast<uint64_t>(v) + 7);
    if (v >= 0) mix(op.match, static_cast<uint64_t>(values_[size_t(v)].bytes));
  }
  op.made_hash = hash_of_made(op);
}

double Pass::op_clock(const Op& op) const { return options_.sample && op.settings->threads == 1 && !op.stream ? thread_cpu_seconds() : now_seconds(); }

void Pass::run_and_record(const c10::OperatorHandle& op, const OperatorFacts& facts, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  if (run_repeated(op, facts, keys, stack)) return;
  Call call(*this, op, facts, keys, stack);
  call.before();
  call.run();
  call.after();
}

void Pass::choose(const OperatorFacts& first, const torch::jit::Stack& stack) {
  if (device_is_open() && follow_device(stack)) start_live_bytes = static_cast<int64_t>(budgeted_core().statistics().live_bytes);
  FirstCall call{first.hash, first.hash, {}};
  for (size_t i = stack.size() - first.writes.size(); i < stack.size(); i++) {
    if (!stack[i].isTensor() || !stack[i].toTensor().defined() || reason_not_plain(stack[i].toTensor())) continue;
    mix_shape(call.key, Geometry::of(stack[i].toTensor()));
    call.shapes.push_back(stack[i].toTensor().sizes().vec());
  }
  chosen_ = true;
  Controller::get().choose(*this, call);  // sets the key
}

void Pass::set_options(PassOptions options) {
  std::lock_guard<std::mutex> lock(mutex_);
  options_ = std::move(options);
  if (options_.trace) events_.reserve(1 << 14);
  if (options_.sample) clock_ = DeviceClock::start();
}

void Pass::prepare_unrecorded_write(const at::Tensor& written) {
  if (reason_not_plain(written)) return;
  Garbage garbage;
  std::lock_guard<std::mutex> lock(mutex_);
  heed_emptied();
  const int32_t v = value_of(written);
  if (v < 0 || brought_back(v)) return;
  before_write(v, garbage);
  const int32_t after = after_write(written, v, kNoOp, garbage);
  values_[size_t(after)].keep_reason = "written by an operator that is not recorded";
}

}  // namespace reprise::engine
