// What benchmarks/placement.py prints of lifetimes in files (id,lower,upper,size): reprise_placement FILE… prints one JSON object a line. reprise_placement --variable: ten steps of
// a decoder of 7 billion parameters' widths, 8 layers, each step of another length, without a plan.
#include "policy/placement.hpp"

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "allocator/caching_allocator.hpp"
#include "allocator/simulated/simulated_device.hpp"
#include "benchmarks/lifetimes.hpp"

namespace reprise {
namespace {

constexpr int64_t kAlignment = 64;
constexpr int64_t kSolverCapacity = 1'048'576;  // of the files whose names begin with minimalloc
constexpr int64_t kLooks = 60'000'000'000;      // a minute or so, where a search goes on to its end

// The lifetimes as allocations and frees of the caching core, in order, frees first. False: it ran out of memory.
bool completes(const std::vector<Lifetime>& lifetimes, std::size_t cap, std::size_t& reserved) {
  SimulatedDevice device(8 * static_cast<std::size_t>(peak_bytes(lifetimes)) + (std::size_t{64} << 20), 4096);
  CachingAllocator core(device, {.cap_bytes = cap});
  std::vector<void*> pointers(lifetimes.size());
  for (const auto& [time, birth, i] : events_of(lifetimes)) {
    if (!birth) {
      core.deallocate(pointers[i]);
    } else if (pointers[i] = core.allocate(static_cast<std::size_t>(lifetimes[i].bytes)); pointers[i] == nullptr) {
      return false;
    }
  }
  reserved = core.statistics().peak_reserved_bytes;
  return true;
}

// To a thousandth of the peak.
std::size_t least_cap(const std::vector<Lifetime>& lifetimes, std::size_t peak, std::size_t highest) {
  std::size_t low = peak, high = highest, reserved = 0;
  while (high - low > peak / 1000) {
    const std::size_t middle = low + (high - low) / 2;
    (completes(lifetimes, middle, reserved) ? high : low) = middle;
  }
  return high;
}

// Forward and backward of one step at `length` tokens: what each layer saves lives until its backward, the rest until the next operator. 2 bytes an element.
void variable_step(CachingAllocator& core, std::size_t length) {
  constexpr std::size_t kLayers = 8, kWidth = 4096, kInner = 11008;
  const auto take = [&](std::size_t width) { return core.allocate(2 * length * width); };
  std::vector<std::vector<void*>> saved(kLayers);
  for (auto& layer : saved) {
    for (const std::size_t width : {kWidth, kWidth, kWidth, kWidth, kWidth, kInner, kInner, kInner}) {
      void* const passing = take(width);
      layer.push_back(take(width));
      core.deallocate(passing);
    }
  }
  void* gradient = take(kWidth);
  for (std::size_t l = kLayers; l-- > 0;) {
    while (!saved[l].empty()) {
      void* const next = take(saved[l].size() > 5 ? kInner : kWidth);
      core.deallocate(gradient);
      core.deallocate(saved[l].back());
      saved[l].pop_back();
      gradient = next;
    }
  }
  core.deallocate(gradient);
}

void run_variable() {
  SimulatedDevice device(std::size_t{1} << 36, 4096);
  CachingAllocator core(device, {});
  uint64_t state = 1;
  for (int step = 0; step < 10; step++) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    variable_step(core, 2048 - (state >> 33) % 600);
  }
  const Statistics now = core.statistics();
  const nlohmann::json row = {{"name", "variable"}, {"peak", now.peak_live_bytes}, {"best_fit", now.peak_reserved_bytes}};
  std::printf("%s\n", row.dump().c_str());
}

void run(const std::filesystem::path& name) {
  const std::vector<Lifetime> lifetimes = read_lifetimes(name);
  const bool solver = name.filename().string().rfind("minimalloc", 0) == 0;
  const Placement placement = place(lifetimes, {.alignment = kAlignment, .enough_bytes = solver ? kSolverCapacity : 0, .looks = solver ? kLooks : 400'000'000});
  if (const std::string wrong = check_placement(lifetimes, placement, kAlignment); !wrong.empty()) throw std::runtime_error(name.string() + ": " + wrong);
  const auto peak = static_cast<std::size_t>(peak_bytes(lifetimes));
  std::size_t best_fit = 0;
  completes(lifetimes, kNoCap, best_fit);
  const nlohmann::json row = {{"name", name.stem().string()},
                              {"pieces", lifetimes.size()},
                              {"peak", peak},
                              {"capacity", solver ? kSolverCapacity : 0},
                              {"total", placement.total_bytes},
                              {"best_fit", best_fit},
                              {"least_cap", least_cap(lifetimes, peak, best_fit)}};
  std::printf("%s\n", row.dump().c_str());
  std::fflush(stdout);
}

}  // namespace
}  // namespace reprise

int main(int count, char** arguments) {
  try {
    for (int i = 1; i < count; i++) std::string(arguments[i]) == "--variable" ? reprise::run_variable() : reprise::run(arguments[i]);
    return 0;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "reprise_placement: %s\n", e.what());
    return 1;
  }
}
