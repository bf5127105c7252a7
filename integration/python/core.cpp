// The Python module reprise._core: plain values in, plain values out. Tensors cross as the addresses of their storages, so no torch Python header is needed.
#include <nanobind/nanobind.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "integration/cpp/reprise.hpp"
#include "integration/python/infeasible.hpp"
#include "integration/python/ranks.hpp"
#include "integration/python/wrapped.hpp"
#include "integration/torch/budgeted.hpp"
#include "integration/torch/controller.hpp"
#include "integration/torch/engine.hpp"
#include "integration/torch/infeasible.hpp"
#include "integration/torch/learned.hpp"
#include "policy/batch.hpp"
#include "policy/budget.hpp"
#include "policy/plan.hpp"
#include "profiler/profile.hpp"

namespace nb = nanobind;

namespace {

nb::list holders() {
  nb::list rows;
  for (const reprise::Holder& h : reprise::holders()) {
    nb::dict d;
    d["category"] = h.category;
    d["region"] = h.region;
    d["saved"] = h.saved;
    d["bytes"] = h.bytes;
    d["pieces"] = h.pieces;
    rows.append(d);
  }
  return rows;
}

nb::dict predict_batch(const std::string& first, int64_t first_batch, const std::string& second, int64_t second_batch, int64_t batch, int64_t budget,
                       const std::string& policy) {
  const reprise::BatchPrediction p =
      reprise::predict_batch({first_batch, reprise::Profile::from_json(first)}, {second_batch, reprise::Profile::from_json(second)}, batch, budget, policy);
  nb::dict d;
  d["fits"] = p.fits;
  d["start_bytes"] = p.start_bytes;
  d["needed_bytes"] = p.needed_bytes;
  d["plain_bytes"] = p.plain_bytes;
  d["added_seconds"] = p.added_seconds;
  d["useful_flops"] = p.useful_flops;
  return d;
}

nb::dict memory_stats() {
  const reprise::MemoryStats s = reprise::memory_stats();
  nb::dict d;
  d["live_bytes"] = s.live_bytes;
  d["allocated_bytes"] = s.allocated_bytes;
  d["reserved_bytes"] = s.reserved_bytes;
  d["peak_live_bytes"] = s.peak_live_bytes;
  d["peak_allocated_bytes"] = s.peak_allocated_bytes;
  d["peak_reserved_bytes"] = s.peak_reserved_bytes;
  d["cap_bytes"] = s.cap_bytes;
  d["allocations"] = s.allocations;
  d["device_calls"] = s.device_calls;
  d["planned_hits"] = s.planned_hits;
  d["planned_misses"] = s.planned_misses;
  return d;
}

}  // namespace

NB_MODULE(_core, m) {
  reprise::engine::set_infeasible_thrower(&reprise::python::throw_infeasible);
  m.def("install", &reprise::install);
  m.def("installed", &reprise::engine::installed);
  m.def("auto_checkpoint", [](const std::vector<std::pair<std::string, uintptr_t>>& parameters, const std::string& budget, const std::string& policy,
                              const std::vector<std::string>& exclude, bool verify, bool agree) {
    reprise::NamedStorages storages;
    for (const auto& [name, address] : parameters) storages.emplace_back(name, reinterpret_cast<c10::StorageImpl*>(address));
    reprise::Options options;
    options.policy = policy;
    options.exclude = exclude;
    options.verify = verify;
    options.agree = agree;
    reprise::auto_checkpoint(storages, budget, options);
  });
  m.def("set_ranks_finder", &reprise::python::set_ranks_finder);
  m.def("set_unwrapper", &reprise::python::set_unwrapper);
  m.def("undo", &reprise::undo);
  m.def("reset_peaks", &reprise::reset_peaks);
  m.def("report_text", &reprise::report);
  m.def("report_json", &reprise::report_json);
  m.def("counters_json", &reprise::counters_json);
  m.def("profile_json", &reprise::profile);
  m.def("plan_json", [](const std::string& limit, const std::string& policy) {
    try {
      return reprise::plan(limit, policy);
    } catch (...) {
      if (reprise::python::restore_current()) throw nb::python_error();
      throw;
    }
  });
  m.def("apply", &reprise::apply);
  m.def("learned_json", &reprise::learned);
  m.def("resume", &reprise::resume);
  m.def("check_learned", [](const std::string& text) { reprise::engine::Learned::from_json(text); });
  m.def("replayed_modules", &reprise::replayed_modules);
  m.def("enter_keep", &reprise::engine::enter_keep);
  m.def("leave_keep", &reprise::engine::leave_keep);
  m.def("device_bytes", &reprise::device_bytes);
  m.def("parse_budget", [](const std::string& text) { return reprise::Budget::parse(text).resolve(reprise::device_bytes()); });
  m.def("check_plan", [](const std::string& text) { reprise::Plan::from_json(text); });
  m.def("check_profile", [](const std::string& text) { reprise::Profile::from_json(text); });
  m.def("check_invariants", [] { return reprise::engine::Controller::get().check_invariants() + reprise::budgeted_core().check_invariants(); });
  m.def("holders", &holders);
  m.def("predict_batch", &predict_batch);
  m.def("memory_stats", &memory_stats);
}
