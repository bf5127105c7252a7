// Controller: the one process-wide registry. It knows whether reprise is on, under which budget and policy, what was learned, and which Plan a Pass follows.
//
// Threads: every member is safe to call from any thread; its mutex is never held while a Pass's mutex is asked for, nor while planning.
// Learning and planning work on a copy of a Known and store it if nobody called enable() or disable() meanwhile.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "integration/torch/agreement.hpp"
#include "integration/torch/learned.hpp"
#include "integration/torch/pass.hpp"
#include "integration/torch/rest.hpp"
#include "profiler/profile.hpp"

namespace reprise::engine {

class StepPlanner;

struct Parameter {
  std::string name;  // "layers.3.mlp.up.weight"
  c10::StorageImpl* storage = nullptr;
};

struct Config {
  int64_t budget_bytes = 0;  // cap on reserved bytes; 0: measure only
  std::string policy = "auto";
  bool verify = false;
  bool agree = true;                 // ranks of one job follow one Plan
  int log = 1;                       // 0 nothing, 1 one line per new Plan
  std::vector<std::string> exclude;  // Regions (shell patterns) in which nothing is dropped
};

// The operator that a Pass begins with. key tells kinds of Passes apart: the operator and the shapes.
struct FirstCall {
  uint64_t key = 0, operator_hash = 0;
  std::vector<std::vector<int64_t>> shapes;  // of its tensors
};

// One kind of Pass that was seen: told apart by the operator and shapes it begins with, and by whether what the learned Pass left behind (gradients,
// then optimizer state) is there from the start. A plain value: the Controller's own copy is under its mutex.
struct Known {
  std::shared_ptr<const Profile> profile;
  std::shared_ptr<StepPlanner> planner;                 // for this Profile
  Hashes match, structure;                              // of its Ops, where it has a Profile; no structure where it was resumed from a file
  FirstCall first;                                      // what it begins with
  uint64_t last_used = 0;                               // a count of Passes
  int borrowed = 0;                                     // Passes of it that followed the Plan of a larger step
  bool lends_nothing = false;                           // one of them was no such step after all, or did not fit
  bool lent_all_kept = false;                           // and that Plan ran nothing again
  std::shared_ptr<const std::vector<int32_t>> regions;  // per Value of the Trace: index into region_names()
  int64_t learned_start_bytes = 0;                      // live at the start of the Pass it was learned from
  int64_t appearing_bytes = 0;                          // gradients that were not there before its backward
  bool derived = false;                                 // the Profile was worked out from another's, and no such step was seen so far
  bool settled = false;                                 // false: derived, or learned from a first, cold Pass; the next Pass under its Plan is measured again
  std::shared_ptr<const Following> following;
  int64_t planned_limit = -1;   // limit_bytes of `following`
  Placed placed;                // where its allocations lie
  int64_t unplanned_bytes = 0;  // what the core held beside live bytes when it was made
  int64_t missed_bytes = 0;     // what Plans so far needed beyond their prediction
  int misses = 0;               // how often; after a few the Plan stays as it is
  int breaks = 0;               // times in a row that a Pass left its Trace
  int64_t passes = 0;
  bool learning = true;
  double plan_seconds = 0;
  std::string infeasible;                                        // why no Plan fits, or ""
  int64_t infeasible_limit_bytes = 0, smallest_limit_bytes = 0;  // set with infeasible: what was asked of the planner, and what it names
  int64_t smallest_budget_bytes = 0;                             // the same as a budget
  bool did_not_fit = false;                                      // the learning Pass needed the temporary file
  std::string first_refused;                                     // then: what was asked for first, and how full the budget was
  bool raise = false;                                            // Infeasible is due
  int64_t measured_peak_bytes = 0;                               // above the start, of the last Pass that followed the Plan
  int64_t predicted_peak_bytes = 0;                              // written down before that Pass
  double measured_seconds = 0;                                   // of that Pass
  double measured_added_seconds = 0;                             // of these, spent on replays and packed forms
  double learning_seconds = 0;
  int64_t learning_peak_bytes = 0;
  std::optional<Agreed> agreed;  // with the other ranks, at the last round
};

class Controller {
 public:
  static Controller& get();

  void enable(Config config, const std::vector<Parameter>& parameters);
  void set_budget_bytes(int64_t bytes);  // of the device that a Pass was seen on; what was learned stays
  void disable();
  bool enabled() const { return enabled_.load(std::memory_order_relaxed); }
  RestingPlaces* resting_places() { return enabled() && rest_.resting() ? &rest_.places() : nullptr; }
  bool watching() const { return enabled() && !rest_.resting(); }
  void set_observer(AllocationObserver* observer) { rest_.set_observer(observer); }
  Config config() const;
  int64_t parameter_bytes() const;  // of the parameters that enable() was given, on this rank

  std::shared_ptr<Pass> begin_pass();
  std::shared_ptr<Pass> newest_pass() const;          // begun last and still alive, or nullptr
  void choose(Pass& pass, const FirstCall& first);    // called before the first Op runs; no mutex held
  void finished(const std::shared_ptr<Pass>& pass);   // learns; no mutex held
  void raise_if_infeasible(uint64_t first_operator);  // throws Infeasible once it is known that no Plan fits
  void write_is_coming(const at::Tensor& tensor);     // R7, for operators that are not recorded
  size_t revoke(size_t bytes);                        // pressure
  std::vector<std::string> region_names() const;
  std::vector<std::string> region_names_if_free() const;  // empty where another thread is at work: for texts of errors, which must never wait
  std::string check_invariants() const;                   // of every Pass alive: "", or the first that is broken; while no other thread records or replays

  // What the report is made of: the kind of Pass seen last.
  std::optional<Known> last_known() const;
  std::optional<Known> known(uint64_t first_operator) const;
  int64_t kinds() const;  // of Passes that are known
  Learned learned() const;
  void resume(Learned learned);         // throws std::logic_error before enable()
  void replace_plan(const Plan& plan);  // apply(): throws std::invalid_argument if it was made for another Trace

 private:
  static PassOptions unplanned_options(const Config& config, int64_t start_live_bytes);
  std::pair<uint64_t, Known> find(uint64_t first_operator, int64_t start_live_bytes);  // under the mutex
  void forget();                                                                       // all that was learned; under the mutex
  // Lending (lending.cpp), both under the mutex.
  std::shared_ptr<const Following> borrow(const FirstCall& first, const Known& known, int64_t start_live_bytes);
  void forget_the_longest_unused(uint64_t used_now);
  static void returned(const Pass& pass, Known& known);
  void learn(const std::shared_ptr<Pass>& pass, Known& known);
  void heed_miss(const Pass& pass, Known& known) const;
  void heed_refusals(const Pass& pass, Known& known);
  void heed_seconds(const Pass& pass, Known& known);
  static bool wants_seconds(const Config& config, const Known& known);
  bool all_fits(const Pass& pass) const;
  void measured(const std::shared_ptr<Pass>& pass, Known& known) const;
  void settle(const std::shared_ptr<Pass>& pass, Known& known);
  Trace trace_of(const Pass& pass) const;
  static double last_effort(double step_seconds);
  void set_profile(Known& known, Profile profile, const Frontier& found = {}, double effort = 1);
  std::shared_ptr<const std::vector<int32_t>> regions_by_value(const Profile& profile);
  void make_plan(Known& known, int64_t start_live_bytes) const;
  // A round among ranks (agreeing.cpp). Returns what all of them raise, and the smallest budget it names.
  std::optional<std::pair<std::string, int64_t>> agree(Ranks& ranks, Known& known, const Config& config, int64_t start_live_bytes) const;
  void follow_one_plan(Ranks& ranks, Known& known, const std::vector<int>& order, Agreed& agreed) const;
  // Stores what a slow part worked out on a copy, unless enable() or disable() came between.
  void store(uint64_t first_operator, const Known& known, uint64_t generation);

  mutable std::mutex mutex_;
  std::atomic<bool> enabled_{false};
  Rest rest_;
  Agreement agreement_;
  Config config_;
  std::unordered_map<c10::StorageImpl*, int32_t> regions_of_;
  int64_t parameter_bytes_ = 0;
  std::vector<std::string> regions_{""};
  std::map<uint64_t, Known> known_;
  uint64_t generation_ = 0;  // of known_: counts enable() and disable()
  uint64_t uses_ = 0;        // of known_: counts Passes
  uint64_t last_known_ = 0;
  std::vector<std::weak_ptr<Pass>> alive_;
};

}  // namespace reprise::engine
