// An allocate + free pair through torch's CUDAAllocator interface, in nanoseconds of this thread's CPU time: native's, ours, ours served by plan, and what ours passes on to
// native.
// One process, native and ours in turn, so that what disturbs the machine disturbs both. On a *simulated* device: its driver calls cost next to nothing.
//
// usage: reprise_cuda_allocator_pairs [ROUNDS [ours|planned|forwarded [PATTERN]]], with the simulated CUDA libraries preloaded (./dev bench cuda_allocator does that)
// Prints for each pattern and round: PATTERN ours|planned|forwarded NATIVE OURS
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string_view>
#include <vector>

#include "allocator/caching_allocator.hpp"
#include "integration/cpp/reprise.hpp"
#include "integration/torch/cuda_memory.hpp"

namespace {

using c10::cuda::CUDACachingAllocator::CUDAAllocator;

double seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

using Sizes = std::vector<std::size_t>;

struct Pattern {
  const char* name;
  std::function<std::size_t(CUDAAllocator&)> run;  // returns how many pairs
};

std::size_t tight(CUDAAllocator& allocator, std::size_t bytes) {
  constexpr std::size_t kPairs = 4000;
  for (std::size_t i = 0; i < kPairs; ++i) allocator.allocate(bytes).clear();
  return kPairs;
}

// What a training step does: everything is allocated in order and freed in the other one, some in between.
std::size_t stack_order(CUDAAllocator& allocator, const Sizes& sizes) {
  std::vector<c10::DataPtr> live;
  live.reserve(sizes.size());
  std::size_t pairs = 0;
  for (const std::size_t bytes : sizes) {
    live.push_back(allocator.allocate(bytes));
    allocator.allocate(bytes / 2 + 512).clear();
    pairs += 2;
  }
  while (!live.empty()) live.pop_back();
  return pairs;
}

std::size_t among_live(CUDAAllocator& allocator, std::size_t bytes) {
  constexpr std::size_t kLive = 64, kPairs = 4000;
  std::vector<c10::DataPtr> live(kLive);
  for (std::size_t i = 0; i < kPairs; ++i) live[i * 7 % kLive] = allocator.allocate(bytes);
  return kPairs;
}

// A private pool is native's: where there is one, both ask for the same memory, each having said so itself; ours goes by way of the decorator.
constexpr c10::MempoolId_t kNoPool{0, 0};

// How often a pattern runs, and what is done before each time (it is timed: beginning a planned step is a part of its price).
constexpr int kTimes = 5;
std::function<void()> before_ours;

double nanoseconds(const Pattern& pattern, CUDAAllocator& allocator, c10::MempoolId_t pool, bool ours) {
  if (pool != kNoPool) allocator.beginAllocateToPool(0, pool, [](cudaStream_t) { return true; });
  const double began = seconds();
  std::size_t pairs = 0;
  for (int again = 0; again < kTimes; ++again) {
    if (ours && before_ours) before_ours();
    pairs += pattern.run(allocator);
  }
  const double cost = (seconds() - began) / static_cast<double>(pairs) * 1e9;
  if (pool != kNoPool) allocator.endAllocateToPool(0, pool);
  return cost;
}

void compare(const char* what, const std::vector<Pattern>& patterns, int rounds, CUDAAllocator& native, CUDAAllocator& ours, c10::MempoolId_t pool) {
  for (const Pattern& pattern : patterns) {
    nanoseconds(pattern, native, pool, false);
    nanoseconds(pattern, ours, pool, true);
    for (int round = 0; round < rounds; ++round) {
      const bool native_first = round % 2 == 0;
      double native_cost = native_first ? nanoseconds(pattern, native, pool, false) : 0;
      const double our_cost = nanoseconds(pattern, ours, pool, true);
      if (!native_first) native_cost = nanoseconds(pattern, native, pool, false);
      std::printf("%s %s %.1f %.1f\n", pattern.name, what, native_cost, our_cost);
    }
  }
}

// The places of a pattern's pieces, as they are asked for: what lives at the same time lies side by side.
class Places final : public reprise::AllocationObserver {
 public:
  void on_allocate(void* pointer, std::size_t bytes, reprise::Tag) noexcept override {
    const std::size_t rounded = (bytes + 511) / 512 * 512;
    std::size_t offset = 0;  // the lowest that is free
    for (const auto& [begin, n] : live_by_offset_) {
      if (begin >= offset + rounded) break;
      offset = begin + pieces_[n].bytes;
    }
    live_by_offset_[offset] = pieces_.size();
    by_address_[pointer] = offset;
    pieces_.push_back({.bytes = rounded, .offset = offset});
  }
  void on_free(void* pointer, std::size_t) noexcept override {
    const auto at = by_address_.find(pointer);
    if (at == by_address_.end()) return;
    const auto piece = live_by_offset_.find(at->second);
    pieces_[piece->second].dies_before = static_cast<std::uint32_t>(pieces_.size());
    live_by_offset_.erase(piece);
    by_address_.erase(at);
  }
  std::shared_ptr<const reprise::PlannedStep> step() const { return std::make_shared<const reprise::PlannedStep>(pieces_); }

 private:
  std::vector<reprise::PlannedPiece> pieces_;
  std::map<std::size_t, std::size_t> live_by_offset_;
  std::map<void*, std::size_t> by_address_;
};

// Each run of a pattern is a step that is served by plan.
void compare_planned(const std::vector<Pattern>& patterns, int rounds, CUDAAllocator& native, CUDAAllocator& ours) {
  reprise::CachingAllocator& core = *reprise::cuda_memory()->core_of(0);
  for (const Pattern& pattern : patterns) {
    Places places;
    core.set_observer(&places);
    pattern.run(ours);
    core.set_observer(nullptr);
    const auto step = places.step();
    before_ours = [&] { core.begin_planned(step); };
    compare("planned", {pattern}, rounds, native, ours, kNoPool);
    before_ours = nullptr;
    core.end_planned();
    const reprise::Statistics now = core.statistics();
    if (now.planned_misses != 0) std::fprintf(stderr, "%s: %llu planned misses\n", pattern.name, static_cast<unsigned long long>(now.planned_misses));
  }
}

}  // namespace

int main(int count, char** arguments) {
  const int rounds = count > 1 ? std::atoi(arguments[1]) : 15;
  auto* const native = c10::cuda::CUDACachingAllocator::get();
  native->init(1);
  reprise::install();
  auto* const ours = c10::cuda::CUDACachingAllocator::get();
  if (ours == native) {
    std::fprintf(stderr, "ours is not installed\n");
    return 2;
  }
  std::mt19937_64 random(7);
  Sizes mixed(200);
  for (std::size_t& bytes : mixed) bytes = 512 + random() % (std::size_t{1} << (10 + random() % 13));
  std::vector<Pattern> patterns = {
      {"512_B", [](CUDAAllocator& a) { return tight(a, 512); }},
      {"64_KiB", [](CUDAAllocator& a) { return tight(a, 64 << 10); }},
      {"4_MiB", [](CUDAAllocator& a) { return tight(a, 4 << 20); }},
      {"64_live_4_MiB", [](CUDAAllocator& a) { return among_live(a, 4 << 20); }},
      {"400_mixed", [&](CUDAAllocator& a) { return stack_order(a, mixed); }},
  };
  reprise::cuda_memory()->core_of(0);  // with what a process has that uses the GPU: whose a pointer is must be asked
  const std::string_view only = count > 2 ? arguments[2] : "", pattern = count > 3 ? arguments[3] : "";
  if (!pattern.empty()) std::erase_if(patterns, [&](const Pattern& one) { return one.name != pattern; });
  const auto wanted = [&](std::string_view what) { return only.empty() || only == what; };
  if (wanted("ours")) compare("ours", patterns, rounds, *native, *ours, kNoPool);
  if (wanted("planned")) compare_planned(patterns, rounds, *native, *ours);
  if (!wanted("forwarded")) return 0;
  const c10::MempoolId_t pool{0, 4711};
  ours->createOrIncrefPool(0, pool, nullptr);
  compare("forwarded", patterns, rounds, *native, *ours, pool);
  ours->releasePool(0, pool);
  return 0;
}
