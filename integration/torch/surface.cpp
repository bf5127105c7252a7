// The public surface: arguments are checked here, everything behind it can trust them.
#include <torch/version.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string_view>

#include "allocator/caching_allocator.hpp"
#include "integration/cpp/reprise.hpp"
#include "integration/report/amounts.hpp"
#include "integration/report/report.hpp"
#include "integration/torch/budgeted.hpp"
#include "integration/torch/communication.hpp"
#include "integration/torch/controller.hpp"
#include "integration/torch/cpu_allocator.hpp"
#include "integration/torch/cuda_memory.hpp"
#include "integration/torch/device_choice.hpp"
#include "integration/torch/engine.hpp"
#include "integration/torch/infeasible.hpp"
#include "integration/torch/overflow.hpp"
#include "policy/budget.hpp"
#include "policy/planner.hpp"
#include "policy/schemes.hpp"

namespace reprise {
namespace {

using engine::Controller;

std::string before_text;  // what was allocated when we were installed; written once, before any thread reads it

std::string resident_text() {
  std::ifstream statm("/proc/self/statm");
  int64_t pages = 0, resident = 0;
  statm >> pages >> resident;
  return "installed into a process that held " + exact_bytes(resident * sysconf(_SC_PAGESIZE)) +
         "; tensors made before stay on torch's own allocator and outside the budget";
}

int64_t control_group_limit() {
  std::ifstream file("/sys/fs/cgroup/memory.max");
  int64_t bytes = 0;
  return file >> bytes && bytes > 0 ? bytes : INT64_MAX;
}

int log_level() {
  const char* const wanted = std::getenv("REPRISE_LOG");
  if (!wanted || !*wanted) return 1;
  const std::string_view text = wanted;
  if (text == "0" || text == "1") return text[0] - '0';
  throw std::invalid_argument("environment REPRISE_LOG: \"" + std::string(text) + "\" is neither 0 (silent) nor 1 (one line per new Plan)");
}

}  // namespace

Infeasible::Infeasible(std::string text, int64_t smallest_budget_bytes)
    : c10::OutOfMemoryError({__func__, __FILE__, uint32_t(__LINE__)}, std::move(text)), smallest_budget(smallest_budget_bytes) {}

int64_t device_bytes() { return std::min<int64_t>(int64_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGESIZE), control_group_limit()); }

bool install() {
  if (engine::installed()) return false;
  static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 11 && TORCH_VERSION_MINOR <= 15, "reprise supports torch 2.11 to 2.15");
  const bool fresh = !cpu_allocator_installed();
  install_cpu_allocator();
  if (fresh) before_text = resident_text();
  watch_budgeted_core();
  set_out_of_memory_text(&engine::out_of_memory_text);
  set_overflow_outlet(&on_overflow);
  open_cuda_memory();
  engine::install();
  return true;
}

void auto_checkpoint(const NamedStorages& parameters, const std::string& budget, const Options& options) {
  const c10::Device device = device_of(parameters);
  const Scheme scheme = Scheme::parse(options.policy);
  if (!budget.empty()) Budget::parse(budget);  // a malformed one changes nothing
  if (!device.is_cpu()) install();
  DeviceMove move(device);
  const int64_t bytes = budget_bytes(budget);
  const int64_t live = engine::installed() ? int64_t(budgeted_core().statistics().live_bytes) : 0;
  if (bytes > 0 && bytes < live)
    throw std::invalid_argument("argument budget: " + exact_bytes(bytes) + " is less than the " + exact_bytes(live) + " that are live already");
  install();
  engine::Config config;
  config.budget_bytes = bytes;
  config.policy = scheme.name();
  const char* verify = std::getenv("REPRISE_VERIFY");
  config.verify = options.verify || (verify && std::string(verify) == "1");
  config.exclude = options.exclude;
  config.agree = options.agree;
  config.log = log_level();
  std::vector<engine::Parameter> named;
  for (const auto& [name, storage] : parameters) named.push_back({name, storage});
  if (!set_budget(bytes > 0 ? std::size_t(bytes) : kNoCap))
    throw std::invalid_argument("argument budget: " + exact_bytes(bytes) + " cannot be made the cap: " +
                                exact_bytes(int64_t(budgeted_core().statistics().reserved_bytes)) + " are reserved by live tensors");
  move.keep();
  settle_device();
  if (parameters.empty() && !Controller::get().enabled()) std::fprintf(stderr, "reprise: the model has no parameters; Regions are named by operator only\n");
  if (parameters.empty()) leave_device_open(budget);
  Controller::get().enable(std::move(config), named);
  engine::arm_this_thread();
}

void undo() {
  if (!engine::installed()) return;
  settle_device();
  Controller::get().disable();
  set_budget(kNoCap);
  engine::Recording::drop_spare();
}

MemoryStats memory_stats() {
  const Statistics s = budgeted_core().statistics();
  MemoryStats m;
  m.live_bytes = int64_t(s.live_bytes + overflow::live_bytes());
  m.allocated_bytes = int64_t(s.allocated_bytes);
  m.reserved_bytes = int64_t(s.reserved_bytes);
  m.peak_live_bytes = std::max(int64_t(s.peak_live_bytes), peak_with_overflow());
  m.peak_allocated_bytes = int64_t(s.peak_allocated_bytes);
  m.peak_reserved_bytes = int64_t(s.peak_reserved_bytes);
  m.cap_bytes = s.cap_bytes == kNoCap ? 0 : int64_t(s.cap_bytes);
  m.allocations = int64_t(s.allocations);
  m.device_calls = int64_t(s.device_calls);
  m.planned_hits = int64_t(s.planned_hits);
  m.planned_misses = int64_t(s.planned_misses);
  return m;
}

std::vector<Holder> holders() {
  const std::vector<std::string> names = Controller::get().region_names();
  std::vector<Holder> out;
  for (const engine::Holding& h : engine::holdings()) {
    const bool named = h.region >= 0 && size_t(h.region) < names.size();
    out.push_back({engine::name_of(h.category), named ? names[size_t(h.region)] : "", h.saved, h.bytes, h.pieces});
  }
  return out;
}

void reset_peaks() {
  budgeted_core().reset_peaks();
  reset_peak_with_overflow();
}

std::string counters_json() {
  const auto& c = engine::counters;
  nlohmann::json j = {{"recorded", c.recorded.load()},
                      {"replayed", c.replayed.load()},
                      {"replays", c.replays.load()},
                      {"unplanned", c.unplanned.load()},
                      {"dropped", c.dropped.load()},
                      {"kept", c.kept.load()},
                      {"found_alive", c.found_alive.load()},
                      {"opaque", c.opaque.load()},
                      {"source_copies", c.source_copies.load()},
                      {"source_copy_bytes", c.source_copy_bytes.load()},
                      {"revoked", c.revoked.load()},
                      {"revoked_bytes", c.revoked_bytes.load()},
                      {"passes", c.passes.load()},
                      {"broken_plans", c.broken_plans.load()},
                      {"verified", c.verified.load()},
                      {"overflow_bytes", c.overflow_bytes.load()},
                      {"unseen_writes", c.unseen_writes.load()},
                      {"unrecorded_saved", c.unrecorded_saved.load()},
                      {"packed", c.packed.load()},
                      {"packed_away_bytes", c.packed_away_bytes.load()},
                      {"unpacked", c.unpacked.load()},
                      {"pack_refused", c.pack_refused.load()},
                      {"learned", c.learned.load()},
                      {"lent", c.lent.load()},
                      {"repeated", c.repeated.load()},
                      {"kinds", Controller::get().kinds()}};
  return j.dump();
}

std::string ranks_json(const engine::Agreed& agreed) {
  const auto hexadecimal = [](uint64_t hash) {
    char text[24];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    return std::string(text);
  };
  return nlohmann::json{{"rank", agreed.rank},
                        {"world", agreed.world},
                        {"one_plan", agreed.one_plan},
                        {"decided_by", agreed.decided_by},
                        {"plan_hash", hexadecimal(agreed.plan)},
                        {"step_hash", hexadecimal(agreed.structure)},
                        {"note", agreed.note}}
      .dump();
}

std::string report_json() {
  const engine::Config config = Controller::get().config();
  ReportInput in;
  in.budget_bytes = config.budget_bytes;
  in.policy = config.policy;
  in.before = before_text;
  in.memory = memory_stats();
  in.counters_json = counters_json();
  in.passes = engine::counters.passes;
  in.parameter_bytes = Controller::get().parameter_bytes();
  const engine::CommunicationPeaks peaks = engine::communication_peaks();
  in.gathered_bytes = peaks.gathered_bytes;
  in.communication_bytes = peaks.buffer_bytes;
  const engine::ClockSource clock = engine::clock_source();
  in.clock_source = clock.text, in.clock_dropped = clock.dropped, in.clock_unclaimed_seconds = clock.unclaimed_seconds;
  if (auto known = Controller::get().last_known()) {
    if (known->profile) in.profile = *known->profile;
    if (known->following) in.plan = known->following->plan;
    in.infeasible = known->infeasible;
    in.infeasible_limit_bytes = known->infeasible_limit_bytes;
    in.smallest_limit_bytes = known->smallest_limit_bytes;
    in.predicted_peak_bytes = known->predicted_peak_bytes;
    in.measured_peak_bytes = known->measured_peak_bytes;
    in.learning_peak_bytes = known->learning_peak_bytes;
    in.measured_seconds = known->measured_seconds;
    in.measured_added_seconds = known->measured_added_seconds;
    in.learning_seconds = known->learning_seconds;
    in.plan_seconds = known->plan_seconds;
    if (known->agreed) in.ranks_json = ranks_json(*known->agreed);
  }
  return report_as_json(in);
}

std::string report() { return report_as_text(report_json()); }

std::string profile() {
  auto known = Controller::get().last_known();
  if (!known || !known->profile) throw std::runtime_error("reprise.profile(): no step was learned so far; call auto_checkpoint and train one step first");
  return known->profile->to_json();
}

std::string plan(const std::string& limit, const std::string& policy) {
  auto known = Controller::get().last_known();
  if (!known || !known->profile) throw std::runtime_error("reprise.plan(): no step was learned so far; call auto_checkpoint and train one step first");
  const int64_t bytes = limit.empty() ? 0 : Budget::parse(limit).resolve(static_cast<int64_t>(budgeted_capacity()));
  try {
    return plan_scheme(*known->profile, Scheme::parse(policy).name(), bytes).to_json();
  } catch (const InfeasibleLimit& error) {
    engine::raise(error.what(), error.smallest_limit_bytes);
  }
}

void apply(const std::string& plan_json) { Controller::get().replace_plan(Plan::from_json(plan_json)); }

std::string learned() {
  engine::Learned all = Controller::get().learned();
  if (all.steps.empty()) throw std::runtime_error("reprise.learned(): no step was learned so far; call auto_checkpoint and train one step first");
  return all.to_json();
}

void resume(const std::string& learned_json) { Controller::get().resume(engine::Learned::from_json(learned_json)); }

keep::keep() { engine::enter_keep(); }
keep::~keep() { engine::leave_keep(); }

}  // namespace reprise

namespace {

// REPRISE_REPORT=FILE: the report is written when the program ends, as JSON where the name says so.
void write_report() {
  const char* const path = std::getenv("REPRISE_REPORT");
  try {
    std::ofstream file(path);
    file << (std::string_view(path).ends_with(".json") ? reprise::report_json() : reprise::report());
    if (!file.flush()) std::fprintf(stderr, "reprise: the report could not be written to %s\n", path);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "reprise: no report: %s\n", e.what());
  }
}

}  // namespace

// For the LD_PRELOAD shim: 0 on success. Never throws.
extern "C" int reprise_install() {
  try {
    reprise::install();
    if (const char* path = std::getenv("REPRISE_REPORT"); path && *path) std::atexit(&write_report);
    if (const char* budget = std::getenv("REPRISE_BUDGET"); budget && *budget) {
      reprise::Options options;
      if (const char* policy = std::getenv("REPRISE_POLICY")) options.policy = policy;
      reprise::auto_checkpoint(reprise::NamedStorages{}, budget, options);
    }
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "reprise: not installed: %s\n", e.what());
    return 1;
  }
}
