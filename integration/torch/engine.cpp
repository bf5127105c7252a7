#include "integration/torch/engine.hpp"

#include <ATen/SavedTensorHooks.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>
#include <torch/library.h>
#include <torch/version.h>

#include <chrono>
#include <ctime>
#include <stdexcept>

#include "integration/torch/communication.hpp"
#include "integration/torch/controller.hpp"
#include "integration/torch/engine_internal.hpp"
#include "integration/torch/infeasible.hpp"
#include "integration/torch/origin.hpp"
#include "integration/torch/recycled.hpp"
#include "integration/torch/wrapped.hpp"

namespace reprise::engine {

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
double thread_cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}
int current_task() { return torch::autograd::get_current_graph_task_id(); }

ThreadState& thread_state() {
  thread_local ThreadState state;
  return state;
}

namespace {

using torch::autograd::SavedVariableHooks;

// A saved tensor: (Value, Geometry), or kept as it was.
struct Handle final : SavedVariableHooks, Recycled<Handle> {
  std::shared_ptr<Pass> pass;
  Pass::Saved saved;
  Geometry geometry;
  Version version;
  bool versioned = false;
  Origin origin;
  std::shared_ptr<const Wrapper> wrapper;  // set where what was saved is a subclass around the plain tensor that the rest is about

  explicit Handle(std::shared_ptr<Pass> p) : pass(std::move(p)) {}
  ~Handle() override {
    if (pass && packed_) pass->release(saved);
  }

  void call_pack_hook(const at::Tensor& tensor) override {
    versioned = !reason_not_plain(tensor);  // every tensor that becomes a Value is plain
    if (!versioned && !tensor.is_leaf()) return pack_wrapped(tensor, unwrap(tensor));
    pack(tensor, tensor);
  }

  void pack_wrapped(const at::Tensor& tensor, Unwrapped part) {
    const at::Tensor& shown = part.inner.defined() ? part.inner : tensor;
    versioned = !reason_not_plain(shown);
    wrapper = std::move(part.wrapper);
    pack(tensor, shown);
  }

  void pack(const at::Tensor& tensor, const at::Tensor& shown) {
    saved = pass->save(shown, versioned, thread_state().keep_depth > 0);
    packed_ = true;
    if (!versioned) return;
    geometry.set(shown);
    version = Version::of(tensor);
    origin = Origin::of(tensor);
  }

  at::Tensor call_unpack_hook() override {
    if (versioned) version.check(geometry, [this] { return origin.text(); });
    ask_for_end();
    if (saved.value < 0) {
      pass->fetched_kept();
      return wrapped(saved.kept);
    }
    std::optional<c10::InferenceMode> no_inference;
    if (c10::InferenceMode::is_enabled()) no_inference.emplace(false);
    try {
      return wrapped(geometry.over(pass->fetch(saved.value)));
    } catch (const c10::OutOfMemoryError& error) {
      convert(error, pass.get());
    }
  }

 private:
  at::Tensor wrapped(const at::Tensor& plain) const { return wrapper ? wrapper->wrap(plain) : plain; }

  // R8: what was replayed falls back when the autograd task ends; asked for once per task and Pass.
  void ask_for_end() {
    const int task = current_task();
    if (task < 0 || !pass->first_of_task(task)) return;
    const bool kept_graph = torch::autograd::get_current_graph_task_keep_graph();
    // Strong: where the thread of the forward is gone, these handles were the last to know the Pass.
    torch::autograd::Engine::get_default_engine().queue_callback([p = pass, task, kept_graph] {
      p->end_of_task(task, kept_graph);
      if (!p->idle()) return;
      Controller::get().finished(p);
      Controller::get().raise_if_infeasible(p->key);
    });
  }
  bool packed_ = false;
};

void arm(ThreadState& t) {
  if (t.armed) return;
  c10::impl::tls_set_dispatch_key_included(c10::DispatchKey::Fake, true);
  t.armed = true;
}

void disarm(ThreadState& t) {
  c10::impl::tls_set_dispatch_key_included(c10::DispatchKey::Fake, false);
  t.armed = t.armed_midway = t.seen_since = false;
  t.pass.reset();
}

bool hooks_allowed() {
  // torch only honours hooks where nobody traces or has switched them off; functorch's wrappers are no plain tensors.
  const auto& tls = at::SavedTensorDefaultHooks::get_tls_state();
  return !tls.is_tracing && !tls.disabled_error_message.has_value() &&
         !c10::impl::tls_is_dispatch_key_included(c10::DispatchKey::FuncTorchDynamicLayerFrontMode);
}

std::unique_ptr<SavedVariableHooks> our_hooks() {
  Controller& controller = Controller::get();
  if (RestingPlaces* places = controller.resting_places(); places && hooks_allowed() && current_task() < 0) return hooks_at_rest(*places);
  if (!controller.watching() || !hooks_allowed() || current_task() >= 0) return nullptr;  // saved during backward: torch keeps it
  if (is_capturing()) return nullptr;                                                     // R12: a graph is replayed by CUDA, not by us
  ThreadState& t = thread_state();
  t.records = true;
  Pass* pass = t.pass.get();
  if (!pass || pass->finished || pass->backward_seen() || pass->abandoned()) {
    if (pass && !pass->finished) controller.finished(t.pass);
    t.pass = controller.begin_pass();
    if (!t.armed) t.armed_midway = true;
    arm(t);
  }
  if (t.seen_since) t.armed_midway = t.seen_since = false;
  return std::make_unique<Handle>(t.pass);
}

void handle_operator(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const auto after = keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, c10::DispatchKey::Fake);
  c10::impl::ExcludeDispatchKeyGuard below(c10::DispatchKey::Fake);
  ThreadState& t = thread_state();
  Pass* pass = t.pass.get();
  if (!Controller::get().watching()) {
    const bool others_hold_it = pass && !pass->idle();  // saved tensors of ours are still to be unpacked: writes must be seen
    if (!others_hold_it) {
      disarm(t);
      op.redispatchBoxed(after, stack);
      return;
    }
  }
  if (t.armed_midway) t.seen_since = true;
  if (!pass || t.armed_midway) {
    op.redispatchBoxed(after, stack);
    return;
  }
  const OperatorFacts& facts = facts_of(op);
  if (facts.only_views || is_capturing()) {
    op.redispatchBoxed(after, stack);
    return;
  }
  if (facts.communicates) note_communication(facts, *stack);
  if (Controller::get().watching() && pass->recording() && !pass->backward_seen() && current_task() < 0) {
    std::shared_ptr<Pass> alive = t.pass;  // the kernel may start another Pass on this thread
    if (pass->wants_choice()) {
      pass->choose(facts, *stack);
      Controller::get().raise_if_infeasible(pass->key);
    }
    pass->run_and_record(op, facts, after, stack);
    return;
  }
  if (facts.mutates) {
    const size_t count = facts.writes.size(), base = stack->size() - count;
    for (size_t i = 0; i < count; i++) {
      if (!facts.writes[i]) continue;
      for_each_tensor((*stack)[base + i], [](const at::Tensor& w) {
        if (w.defined()) Controller::get().write_is_coming(w);
      });
    }
  }
  op.redispatchBoxed(after, stack);
}

void on_operator(const c10::OperatorHandle& op, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  try {
    handle_operator(op, keys, stack);
  } catch (const c10::OutOfMemoryError& error) {
    convert(error, thread_state().pass.get());
  }
}

#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 15
using NodePointer = c10::intrusive_ptr<torch::autograd::Node>;
#else
using NodePointer = std::shared_ptr<torch::autograd::Node>;
#endif

// Stands before the engine found at installation (Python's, or the plain one) and answers only the question for default hooks itself.
struct HookingEngine final : torch::autograd::Engine {
  torch::autograd::Engine& inner;
  explicit HookingEngine(torch::autograd::Engine& e) : inner(e) {}

  torch::autograd::variable_list execute(const torch::autograd::edge_list& roots, const torch::autograd::variable_list& inputs, bool keep_graph,
                                         bool create_graph, bool accumulate_grad, const torch::autograd::edge_list& outputs) override {
    return inner.execute(roots, inputs, keep_graph, create_graph, accumulate_grad, outputs);
  }
  c10::intrusive_ptr<at::ivalue::Future> execute_with_graph_task(const std::shared_ptr<torch::autograd::GraphTask>& task, NodePointer root,
                                                                 torch::autograd::InputBuffer&& buffer) override {
    return inner.execute_with_graph_task(task, std::move(root), std::move(buffer));
  }
  std::unique_ptr<torch::autograd::AnomalyMetadata> make_anomaly_metadata() override { return inner.make_anomaly_metadata(); }
#if TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 15
  std::vector<std::unique_ptr<torch::autograd::NodeCreationHook>> get_node_creation_hooks() override { return inner.get_node_creation_hooks(); }
#endif
  std::unique_ptr<SavedVariableHooks> get_default_saved_variable_hooks() override {
    if (auto users = inner.get_default_saved_variable_hooks()) return users;  // user hooks and torch.utils.checkpoint win
    return our_hooks();
  }
};

HookingEngine* hooking_engine = nullptr;

}  // namespace

void install() {
  if (hooking_engine) return;
  hooking_engine = new HookingEngine(torch::autograd::Engine::get_default_engine());  // lives as long as the process: nodes may outlive us
  torch::autograd::set_default_engine_stub([]() -> torch::autograd::Engine& { return *hooking_engine; });
}

bool installed() { return hooking_engine != nullptr; }
void enter_keep() { thread_state().keep_depth++; }
void leave_keep() { thread_state().keep_depth--; }

void trace_allocation(void* address, long long bytes) {
  ThreadState& t = thread_state();
  // A device thread of autograd records nothing itself: it works for the Pass that was begun last, while its caller waits.
  if (!t.records && (!t.pass || t.pass->finished) && current_task() >= 0) t.pass = Controller::get().newest_pass();
  Pass* pass = t.pass.get();
  if (!pass || pass->finished) return;
  const int64_t level = pass->level_bytes.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  for (int64_t peak = pass->peak_bytes; level > peak && !pass->peak_bytes.compare_exchange_weak(peak, level);) {
  }
  if (bytes < 0) pass->note_freed(address);
  pass->placing.note(address, bytes);
  pass->note(bytes > 0 ? Mark::kAllocate : Mark::kFree, reinterpret_cast<int64_t>(address), bytes > 0 ? bytes : -bytes);
}

void arm_this_thread() { arm(thread_state()); }

}  // namespace reprise::engine

TORCH_LIBRARY_IMPL(_, Fake, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&reprise::engine::on_operator>()); }
