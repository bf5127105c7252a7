// Lifetimes from files (id,lower,upper,size), as allocations and frees of four equal steps through torch's CUDAAllocator interface: native's, ours without a plan, and ours with
// each step served by plan; and ten steps of a decoder whose length varies, without a plan. On a *simulated* device, whose pages are a real one's.
//
// usage: reprise_cuda_replay FILE…, with the simulated CUDA libraries preloaded (./dev bench cuda_replay does that)
// Prints one JSON object a line: name, allocator, peak (bytes live at 512 each), reserved (at most), device calls of each step, least_cap (the least of a list of shares of the
// peak, rounded up to pages, under which three steps complete; 0: none of it). Files whose peak is below 64 MiB are scaled by 1024: pages of 2 MiB would be all there is to see.
#include <c10/cuda/CUDACachingAllocator.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "allocator/caching_allocator.hpp"
#include "benchmarks/lifetimes.hpp"
#include "integration/cpp/reprise.hpp"
#include "integration/torch/cuda_memory.hpp"
#include "policy/placement.hpp"

namespace {

using c10::cuda::CUDACachingAllocator::CUDAAllocator;
using reprise::Lifetime;

constexpr std::int64_t kRounding = 512, kPage = 2 << 20, kLowestPeak = 64 << 20;
constexpr auto kAll = static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE);
const std::vector<double> kShares = {1.0, 1.005, 1.01, 1.02, 1.03, 1.05, 1.08, 1.1, 1.15, 1.2, 1.3, 1.5, 2.0};

std::vector<Lifetime> read(const std::filesystem::path& name) {
  std::vector<Lifetime> out = reprise::read_lifetimes(name);
  const bool scaled = reprise::peak_bytes(out) < kLowestPeak;
  for (Lifetime& one : out) one.bytes = (one.bytes * (scaled ? 1024 : 1) + kRounding - 1) / kRounding * kRounding;
  return out;
}

using Events = reprise::LifetimeEvents;

std::uint64_t device_calls() {
  static const auto calls = reinterpret_cast<std::uint64_t (*)(const char*)>(dlsym(RTLD_DEFAULT, "simcuda_calls"));
  if (calls == nullptr) throw std::runtime_error("the simulated CUDA libraries are not preloaded");
  std::uint64_t sum = 0;
  for (const char* name : {"cudaMalloc", "cudaFree", "cuMemCreate", "cuMemUnmap"}) sum += calls(name);
  return sum;
}

// One step. False: out of memory; nothing of it is left.
bool step(CUDAAllocator& allocator, const std::vector<Lifetime>& lifetimes, const Events& events) {
  std::vector<c10::DataPtr> live(lifetimes.size());
  try {
    for (const auto& [time, birth, i] : events) {
      if (birth) live[i] = allocator.allocate(static_cast<std::size_t>(lifetimes[i].bytes));
      else live[i].clear();
    }
  } catch (const c10::OutOfMemoryError&) {
    return false;
  }
  return true;
}

std::shared_ptr<const reprise::PlannedStep> planned_step(const std::vector<Lifetime>& lifetimes, const Events& events) {
  const reprise::Placement placement = reprise::place(lifetimes, {.alignment = kRounding, .looks = 400'000'000});
  if (const std::string wrong = reprise::check_placement(lifetimes, placement, kRounding); !wrong.empty()) throw std::runtime_error(wrong);
  std::vector<reprise::PlannedPiece> pieces;
  std::vector<std::size_t> number(lifetimes.size());
  for (const auto& [time, birth, i] : events) {
    if (!birth) {
      pieces[number[i]].dies_before = static_cast<std::uint32_t>(pieces.size());
      continue;
    }
    number[i] = pieces.size();
    pieces.push_back({.bytes = static_cast<std::size_t>(lifetimes[i].bytes), .offset = static_cast<std::size_t>(placement.offsets[i])});
  }
  return std::make_shared<const reprise::PlannedStep>(std::move(pieces));
}

struct Side {
  const char* name;
  CUDAAllocator& allocator;
  std::shared_ptr<const reprise::PlannedStep> planned;

  bool run(const std::vector<Lifetime>& lifetimes, const Events& events) const {
    reprise::CachingAllocator& core = *reprise::cuda_memory()->core_of(0);
    if (planned && !core.begin_planned(planned)) return false;
    const bool done = step(allocator, lifetimes, events);
    if (planned) core.end_planned();
    return done;
  }
};

double least_cap(const Side& side, const std::vector<Lifetime>& lifetimes, const Events& events, std::int64_t peak) {
  const auto capacity = static_cast<double>(reprise::cuda_memory()->capacity_bytes(0));
  for (const double share : kShares) {
    const auto cap = (static_cast<std::int64_t>(share * static_cast<double>(peak)) + kPage - 1) / kPage * kPage;
    side.allocator.emptyCache({0, 0});
    side.allocator.setMemoryFraction((static_cast<double>(cap) + 0.5) / capacity, 0);
    bool done = true;
    for (int i = 0; i < 3 && done; i++) done = side.run(lifetimes, events);
    side.allocator.setMemoryFraction(1.0, 0);
    if (done) return share;
  }
  return 0;
}

void show(const std::string& name, const Side& side, const std::vector<std::vector<Lifetime>>& steps, bool caps) {
  side.allocator.emptyCache({0, 0});
  side.allocator.resetPeakStats(0);
  std::int64_t peak = 0;
  std::vector<std::uint64_t> calls;
  for (const auto& lifetimes : steps) {
    const Events events = events_of(lifetimes);
    const std::uint64_t before = device_calls();
    if (!side.run(lifetimes, events)) throw std::runtime_error(name + ": " + side.name + " ran out of memory");
    calls.push_back(device_calls() - before);
    peak = std::max(peak, reprise::peak_bytes(lifetimes));
  }
  nlohmann::json row = {{"name", name}, {"allocator", side.name}, {"peak", peak}, {"calls", calls}};
  row["reserved"] = side.allocator.getDeviceStats(0).reserved_bytes[kAll].peak;
  if (caps) row["least_cap"] = least_cap(side, steps[0], events_of(steps[0]), peak);
  side.allocator.emptyCache({0, 0});
  std::printf("%s\n", row.dump().c_str());
  std::fflush(stdout);
}

// A decoder of 7 billion parameters' widths, 8 layers: what each layer saves lives until its backward, the rest until the next operator. 2 bytes an element.
std::vector<Lifetime> decoder_step(std::int64_t length) {
  constexpr std::size_t kLayers = 8;
  constexpr std::int64_t kWidth = 4096, kInner = 11008;
  std::vector<Lifetime> all;
  std::vector<std::vector<std::size_t>> saved(kLayers);
  std::int64_t now = 0;
  const auto take = [&](std::int64_t width) {
    all.push_back({2 * length * width, now++, 0});
    return all.size() - 1;
  };
  const auto free = [&](std::size_t which) { all[which].death = now++; };
  for (auto& layer : saved) {
    for (const std::int64_t width : {kWidth, kWidth, kWidth, kWidth, kWidth, kInner, kInner, kInner}) {
      const std::size_t passing = take(width);
      layer.push_back(take(width));
      free(passing);
    }
  }
  std::size_t gradient = take(kWidth);
  for (std::size_t l = kLayers; l-- > 0;) {
    while (!saved[l].empty()) {
      const std::size_t next = take(saved[l].size() > 5 ? kInner : kWidth);
      free(gradient);
      free(saved[l].back());
      saved[l].pop_back();
      gradient = next;
    }
  }
  free(gradient);
  for (Lifetime& one : all) one.bytes = (one.bytes + kRounding - 1) / kRounding * kRounding;
  return all;
}

std::vector<std::vector<Lifetime>> steps_of_varying_length() {
  std::vector<std::vector<Lifetime>> steps;
  std::uint64_t state = 1;
  for (int i = 0; i < 10; i++) {
    state = state * 6364136223846793005ull + 1442695040888963407ull;
    steps.push_back(decoder_step(2048 - static_cast<std::int64_t>((state >> 33) % 600)));
  }
  return steps;
}

}  // namespace

int main(int count, char** arguments) {
  auto* const native = c10::cuda::CUDACachingAllocator::get();
  native->init(1);
  reprise::install();
  auto* const ours = c10::cuda::CUDACachingAllocator::get();
  if (ours == native || reprise::cuda_memory()->core_of(0) == nullptr) {
    std::fprintf(stderr, "ours is not installed\n");
    return 2;
  }
  try {
    for (int i = 1; i < count; i++) {
      const std::filesystem::path name = arguments[i];
      const std::vector<std::vector<Lifetime>> steps(4, read(name));
      show(name.stem(), {"native", *native, nullptr}, steps, true);
      show(name.stem(), {"ours", *ours, nullptr}, steps, true);
      show(name.stem(), {"planned", *ours, planned_step(steps[0], events_of(steps[0]))}, steps, true);
    }
    show("varying length", {"native", *native, nullptr}, steps_of_varying_length(), false);
    show("varying length", {"ours", *ours, nullptr}, steps_of_varying_length(), false);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "reprise_cuda_replay: %s\n", error.what());
    return 1;
  }
}
