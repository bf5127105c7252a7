#include "tests/allocator/stream_program.hpp"

#include <algorithm>
#include <array>
#include <map>
#include <random>

#include "allocator/simulated/simulated_device.hpp"

namespace reprise::testing {

namespace {

constexpr std::size_t kSlots = 12;
constexpr StreamId kStreams = 4;
using Work = SimulatedDevice::Work;

// The simulated device with a wait that is forgotten.
class ForgetfulDevice final : public Device {
 public:
  ForgetfulDevice(SimulatedDevice& device, Forgotten forgotten) : device_(device), forgotten_(forgotten) {}

  std::size_t page_bytes() const noexcept override { return device_.page_bytes(); }
  std::size_t capacity_bytes() const noexcept override { return device_.capacity_bytes(); }
  std::byte* reserve(std::size_t bytes) noexcept override { return device_.reserve(bytes); }
  void release(std::byte* base, std::size_t bytes) noexcept override { device_.release(base, bytes); }
  bool commit(std::byte* first, std::size_t bytes) noexcept override { return device_.commit(first, bytes); }
  bool decommit(std::byte* first, std::size_t bytes) noexcept override { return device_.decommit(first, bytes); }
  std::optional<Fence> record_fence(StreamId stream) noexcept override {
    auto fence = device_.record_fence(stream);
    if (fence && fence->ticket > 0 && forgotten_ == Forgotten::kFence) fence->ticket--;
    return fence;
  }
  bool passed(Fence fence) noexcept override { return forgotten_ == Forgotten::kPassed || fence.ticket <= pretended_[fence.stream] || device_.passed(fence); }
  void wait(Fence fence) noexcept override {
    if (forgotten_ == Forgotten::kWait) pretended_[fence.stream] = std::max(pretended_[fence.stream], fence.ticket);
    else device_.wait(fence);
  }

 private:
  std::array<std::uint64_t, kStreams> pretended_{};  // waited for, it says
  SimulatedDevice& device_;
  const Forgotten forgotten_;
};

// Who used which bytes last. What came before a piece was handed out comes before its own uses too, so only those since then are kept.
class Uses {
 public:
  // Everything that overlaps, once; what is left of it outside [begin, end) stays.
  template <class See>
  void take(std::uintptr_t begin, std::uintptr_t end, See&& see) {
    auto at = ranges_.upper_bound(begin);
    if (at != ranges_.begin()) --at;
    while (at != ranges_.end() && at->first < end) {
      Range range = at->second;
      const std::uintptr_t first = at->first;
      if (range.end <= begin) {
        ++at;
        continue;
      }
      see(range.uses);
      at = ranges_.erase(at);
      if (first < begin) ranges_.emplace(first, Range{begin, range.uses});
      if (range.end > end) ranges_.emplace(end, Range{range.end, range.uses});
    }
  }
  void put(std::uintptr_t begin, std::uintptr_t end, std::vector<Work> uses) { ranges_.emplace(begin, Range{end, std::move(uses)}); }

 private:
  struct Range {
    std::uintptr_t end;
    std::vector<Work> uses;
  };
  std::map<std::uintptr_t, Range> ranges_;
};

class StreamRun {
 public:
  explicit StreamRun(const StreamSetting& setting)
      : device_(setting.capacity_bytes, setting.page_bytes), forgetful_(device_, setting.forgotten), allocator_(forgetful_, setting.options), slots_(kSlots) {}

  std::string apply(const StreamOperation& operation) {
    Slot& slot = slots_[operation.slot % kSlots];
    switch (operation.kind) {
      case StreamKind::kAllocate: return slot.pointer == nullptr ? allocate(slot, operation) : use(slot, operation.stream);
      case StreamKind::kFree: return free(slot);
      case StreamKind::kUse: return slot.pointer == nullptr ? "" : use(slot, operation.stream);
      case StreamKind::kComplete: device_.complete(operation.stream); return {};
      case StreamKind::kWait:
        if (const auto fence = device_.record_fence(operation.other); fence && fence->ticket > 0) device_.stream_wait(operation.stream, *fence);
        return {};
      case StreamKind::kTrim: allocator_.trim(); return {};
      case StreamKind::kCap: allocator_.set_cap(operation.bytes); return {};
    }
    return "an operation of no kind";
  }
  std::string check() const { return allocator_.check_invariants(); }
  StreamOutcome outcome;

 private:
  struct Slot {
    void* pointer = nullptr;
    std::size_t bytes = 0;
    StreamId stream = 0;
    std::vector<Work> uses;
  };

  std::string allocate(Slot& slot, const StreamOperation& operation) {
    void* const pointer = allocator_.allocate(operation.bytes, operation.stream);
    if (pointer == nullptr) return {};
    outcome.allocations++;
    const auto begin = reinterpret_cast<std::uintptr_t>(pointer), end = begin + operation.bytes;
    std::string wrong;
    bool reused = false, crossed = false;
    uses_.take(begin, end, [&](const std::vector<Work>& uses) {
      for (const Work& work : uses) {
        reused = true;
        crossed |= work.stream != operation.stream;
        if (wrong.empty() && !device_.comes_after(operation.stream, work))
          wrong = "stream " + std::to_string(operation.stream) + " is given bytes that work " + std::to_string(work.clock) + " of stream " +
                  std::to_string(work.stream) + " may still use";
      }
    });
    outcome.reused += reused ? 1 : 0;
    outcome.crossed += crossed ? 1 : 0;
    slot = {pointer, operation.bytes, operation.stream, {device_.launch(operation.stream)}};
    return wrong;
  }

  std::string use(Slot& slot, StreamId stream) {
    if (stream != slot.stream && !allocator_.record_stream(slot.pointer, stream)) return "a stream could not be noted";
    const Work work = device_.launch(stream);
    const auto same = std::find_if(slot.uses.begin(), slot.uses.end(), [&](const Work& earlier) { return earlier.stream == stream; });
    if (same == slot.uses.end()) slot.uses.push_back(work);
    else *same = work;
    return {};
  }

  std::string free(Slot& slot) {
    if (slot.pointer == nullptr) return {};
    allocator_.deallocate(slot.pointer);
    const auto begin = reinterpret_cast<std::uintptr_t>(slot.pointer);
    uses_.put(begin, begin + slot.bytes, std::move(slot.uses));
    slot = {};
    return {};
  }

  SimulatedDevice device_;
  ForgetfulDevice forgetful_;
  CachingAllocator allocator_;
  std::vector<Slot> slots_;
  Uses uses_;
};

}  // namespace

StreamProgram random_stream_program(std::uint64_t seed, std::size_t operations) {
  std::mt19937_64 random(seed);
  const bool small = random() % 3 == 0;
  StreamProgram program(operations);
  for (StreamOperation& operation : program) {
    const std::uint64_t dice = random() % 100;
    operation.kind = dice < 42   ? StreamKind::kAllocate
                     : dice < 72 ? StreamKind::kFree
                     : dice < 86 ? StreamKind::kUse
                     : dice < 92 ? StreamKind::kComplete
                     : dice < 97 ? StreamKind::kWait
                     : dice < 98 ? StreamKind::kTrim
                                 : StreamKind::kCap;
    operation.slot = random() % kSlots;
    operation.stream = static_cast<StreamId>(random() % kStreams);
    operation.other = static_cast<StreamId>(random() % kStreams);
    if (operation.kind == StreamKind::kCap) operation.bytes = random() % 4 == 0 ? kNoCap : (std::size_t{4} << 20) + random() % (std::size_t{12} << 20);
    else operation.bytes = 1 + random() % (std::size_t{1} << (small ? random() % 14 : 8 + random() % 15));
  }
  return program;
}

StreamSetting stream_setting(std::uint64_t number) {
  constexpr AllocatorOptions kGpu{.rounding_bytes = 512, .small_limit_bytes = 0, .caches = false}, kCached{.rounding_bytes = 512};
  StreamSetting setting;
  setting.options = number % 3 == 0 ? kGpu : number % 3 == 1 ? kCached : AllocatorOptions{};
  if (number % 2 == 1) setting.page_bytes = 4096;
  if (number % 4 >= 2) setting.capacity_bytes = std::size_t{8} << 20;
  return setting;
}

StreamOutcome run(const StreamProgram& program, const StreamSetting& setting) {
  StreamRun state(setting);
  for (std::size_t i = 0; i < program.size() && state.outcome.wrong.empty(); ++i)
    if (std::string wrong = state.apply(program[i]); !wrong.empty()) state.outcome.wrong = "operation " + std::to_string(i) + ": " + wrong;
  if (state.outcome.wrong.empty()) state.outcome.wrong = state.check();
  return state.outcome;
}

// Leaves out stretches of halving length as long as the rest still fails.
StreamProgram minimised(StreamProgram program, const StreamSetting& setting) {
  for (std::size_t length = std::max<std::size_t>(program.size() / 2, 1); length > 0; length /= 2) {
    for (std::size_t start = 0; start < program.size();) {
      StreamProgram shorter = program;
      const std::size_t end = std::min(start + length, shorter.size());
      shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(start), shorter.begin() + static_cast<std::ptrdiff_t>(end));
      if (run(shorter, setting).wrong.empty()) start += length;
      else program = std::move(shorter);
    }
  }
  return program;
}

std::string as_source(const StreamProgram& program) {
  static constexpr const char* kNames[] = {"kAllocate", "kFree", "kUse", "kComplete", "kWait", "kTrim", "kCap"};
  std::string text = "const StreamProgram program = {\n";
  for (const StreamOperation& one : program)
    text += std::string("    {.kind = StreamKind::") + kNames[static_cast<int>(one.kind)] + ", .slot = " + std::to_string(one.slot) +
            ", .bytes = " + std::to_string(one.bytes) + ", .stream = " + std::to_string(one.stream) + ", .other = " + std::to_string(one.other) + "},\n";
  return text + "};\n";
}

}  // namespace reprise::testing
