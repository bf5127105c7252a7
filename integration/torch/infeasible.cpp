#include "integration/torch/infeasible.hpp"

#include <algorithm>
#include <atomic>
#include <map>

#include "integration/cpp/reprise.hpp"
#include "integration/report/amounts.hpp"
#include "integration/torch/budgeted.hpp"
#include "integration/torch/planning.hpp"
#include "integration/torch/tags.hpp"

namespace reprise::engine {
namespace {

void throw_in_cpp(const std::string& text, int64_t smallest_budget_bytes) { throw Infeasible(text, smallest_budget_bytes); }

std::atomic<InfeasibleThrower> the_thrower{&throw_in_cpp};

// "blocks.3.up 12.0 MiB, …": the three Regions with the most saved bytes.
std::string holders(const Profile& profile) {
  std::vector<RegionRow> rows = profile.regions();
  std::stable_sort(rows.begin(), rows.end(), [](const RegionRow& a, const RegionRow& b) { return a.saved_bytes > b.saved_bytes; });
  std::string text;
  for (size_t i = 0; i < std::min<size_t>(3, rows.size()) && rows[i].saved_bytes > 0; i++)
    text += (i ? ", " : "") + (rows[i].name.empty() ? std::string("the whole model") : rows[i].name) + " " + mebibytes(rows[i].saved_bytes);
  return text;
}

// "a 3.0 MiB, b 2.0 MiB": at most `most` of them, most bytes first.
std::string listed(const std::map<std::string, int64_t>& bytes_of, size_t most) {
  std::vector<std::pair<std::string, int64_t>> rows(bytes_of.begin(), bytes_of.end());
  std::stable_sort(rows.begin(), rows.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  std::string text;
  for (size_t i = 0; i < std::min(most, rows.size()); i++) text += (i ? ", " : "") + rows[i].first + " " + mebibytes(rows[i].second);
  return text;
}

// What the live bytes of this moment are for: "parameter 40.0 MiB, activation 12.5 MiB, …; activations most in blocks.3 4.0 MiB, …".
std::string held_now() {
  const std::vector<std::string> names = Controller::get().region_names_if_free();
  std::map<std::string, int64_t> categories, regions;
  for (const Holding& h : holdings()) {
    categories[name_of(h.category)] += h.bytes;
    if (h.category == Category::kActivation && h.region >= 0 && size_t(h.region) < names.size() && !names[size_t(h.region)].empty())
      regions[names[size_t(h.region)]] += h.bytes;
  }
  return listed(categories, 4) + (regions.empty() ? "" : "; activations most in " + listed(regions, 3));
}

// Asked for only after a failure: a Plan that fitted by its prediction has no smallest budget yet.
int64_t smallest_budget(const Known& known) {
  if (known.smallest_budget_bytes > 0 || !known.planner || known.planned_limit < 0 || known.planned_limit == INT64_MAX) return known.smallest_budget_bytes;
  try {
    return smallest_budget_for(known, Controller::get().config().budget_bytes - known.planned_limit, start_layout());
  } catch (const std::exception&) {
    return 0;
  }
}

}  // namespace

void set_infeasible_thrower(InfeasibleThrower thrower) { the_thrower = thrower; }

std::string amounts_text(std::size_t asked_bytes) {
  const Statistics s = budgeted_core().statistics();
  return "reprise: out of memory under the budget: asked for " + exact_bytes(int64_t(asked_bytes)) + ", live " + mebibytes(int64_t(s.live_bytes)) +
         ", reserved " + mebibytes(int64_t(s.reserved_bytes)) + ", cap " + mebibytes(int64_t(s.cap_bytes));
}

std::string out_of_memory_text(std::size_t asked_bytes) { return amounts_text(asked_bytes) + "; live now: " + held_now(); }

std::pair<std::string, int64_t> infeasible_words(std::string text, const Known& known) {
  if (known.profile)
    if (const std::string who = holders(*known.profile); !who.empty()) text += "; most saved bytes: " + who;
  const int64_t smallest = smallest_budget(known);
  text += smallest > 0 ? "; the smallest budget that the simulator completed is " + exact_bytes(smallest)
                       : std::string("; the smallest budget is not known: no such step was learned to its end");
  return {text, smallest};
}

void raise(const std::string& text, int64_t smallest_budget_bytes) {
  the_thrower.load()(text, smallest_budget_bytes);
  throw Infeasible(text, smallest_budget_bytes);
}

void throw_infeasible(std::string text, const Known& known) {
  const auto [words, smallest] = infeasible_words(std::move(text), known);
  raise(words, smallest);
}

void convert(const c10::OutOfMemoryError& error, const Pass* pass) {
  if (dynamic_cast<const Infeasible*>(&error)) throw;
  std::optional<Known> known = pass ? Controller::get().known(pass->key) : std::nullopt;
  throw_infeasible(error.what_without_backtrace(), known ? *known : Known{});
}

}  // namespace reprise::engine
