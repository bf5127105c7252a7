#include "tests/allocator/program.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <memory>
#include <random>

#include "allocator/host/host_device.hpp"
#include "allocator/simulated/simulated_device.hpp"

namespace reprise::testing {

namespace {

constexpr std::size_t kSlots = 400;

// The reference: what is live, as disjoint intervals.
class Intervals {
 public:
  std::string add(std::uintptr_t begin, std::size_t bytes) {
    const auto next = live_.lower_bound(begin);
    if (next != live_.end() && next->first < begin + bytes) return "overlaps the allocation after it";
    if (next != live_.begin() && std::prev(next)->first + std::prev(next)->second > begin) return "overlaps the allocation before it";
    live_.emplace(begin, bytes);
    total_ += bytes;
    return {};
  }
  void remove(std::uintptr_t begin) {
    total_ -= live_.at(begin);
    live_.erase(begin);
  }
  std::size_t total() const { return total_; }
  std::size_t count() const { return live_.size(); }

 private:
  std::map<std::uintptr_t, std::size_t> live_;
  std::size_t total_ = 0;
};

// What the next operations will ask for, with mistakes: pieces left out, of another size, said to die too early or to lie elsewhere.
class Foresight {
 public:
  Foresight(const Program& program, std::size_t first, std::array<bool, kSlots> taken, const AllocatorOptions& options)
      : random_(program[first].bytes), options_(options) {
    const std::size_t last = std::min(program.size(), first + 20 + program[first].bytes % 600);
    std::array<std::size_t, kSlots> piece{};  // one more than the number in pieces_; 0: none
    for (std::size_t i = first + 1; i < last; ++i) {
      const std::size_t slot = program[i].slot % kSlots;
      const bool frees = program[i].kind == Kind::kFree || (program[i].kind == Kind::kAllocate && taken[slot]);
      if (frees && piece[slot] != 0) pieces_[piece[slot] - 1].dies_before = static_cast<std::uint32_t>(pieces_.size());
      if (frees || program[i].kind == Kind::kAllocate) {
        piece[slot] = 0;
        taken[slot] = !frees;
      }
      if (!frees && program[i].kind == Kind::kAllocate && program[i].bytes > options.small_limit_bytes && random_() % 16 != 0) {
        pieces_.push_back({.bytes = rounded(program[i].bytes)});
        piece[slot] = pieces_.size();
      }
    }
    mistake();
  }

  std::shared_ptr<const PlannedStep> step() {
    for (std::size_t n = 0; n < pieces_.size(); ++n) pieces_[n].offset = lowest_gap(n);
    return std::make_shared<const PlannedStep>(pieces_);
  }

 private:
  std::size_t rounded(std::size_t bytes) const {
    return std::max((bytes + options_.rounding_bytes - 1) / options_.rounding_bytes * options_.rounding_bytes,
                    options_.small_limit_bytes + options_.rounding_bytes);
  }
  void mistake() {
    for (std::size_t n = 0; n < pieces_.size(); ++n) {
      PlannedPiece& one = pieces_[n];
      if (one.dies_before <= n) one.dies_before = static_cast<std::uint32_t>(n + 1);
      const auto dice = random_() % 32;
      if (dice == 0) one.bytes += options_.rounding_bytes;
      if (dice == 1) one.dies_before = static_cast<std::uint32_t>(n + 1);
      if (dice == 2) one.elsewhere = true;
    }
  }
  bool meet(std::size_t a, std::size_t b) const {
    return !pieces_[a].elsewhere && !pieces_[b].elsewhere && pieces_[a].dies_before > b && pieces_[b].dies_before > a;
  }
  std::size_t lowest_gap(std::size_t n) const {
    std::size_t offset = 0;
    for (bool moved = true; moved;) {
      moved = false;
      for (std::size_t other = 0; other < n; ++other) {
        const std::size_t end = pieces_[other].offset + pieces_[other].bytes;
        if (!meet(n, other) || end <= offset || pieces_[other].offset >= offset + pieces_[n].bytes) continue;
        offset = end;
        moved = true;
      }
    }
    return offset;
  }

  std::mt19937_64 random_;
  AllocatorOptions options_;
  std::vector<PlannedPiece> pieces_;
};

struct Slot {
  void* pointer = nullptr;
  std::size_t bytes = 0;
  Tag tag;
  unsigned char fill = 0;
};

class Run {
 public:
  explicit Run(const Setting& setting)
      : setting_(setting),
        device_(setting.host ? std::unique_ptr<Device>(std::make_unique<HostDevice>()) : std::make_unique<SimulatedDevice>(setting.capacity_bytes, 4096)),
        allocator_(*device_, setting.options),
        slots_(kSlots) {}

  std::string apply(const Program& program, std::size_t index) {
    const Operation& operation = program[index];
    Slot& slot = slots_[operation.slot % kSlots];
    std::string wrong;
    switch (operation.kind) {
      case Kind::kAllocate: wrong = slot.pointer == nullptr ? allocate(slot, operation.bytes) : release(slot); break;
      case Kind::kFree: wrong = release(slot); break;
      case Kind::kTag: wrong = tag(slot, operation.bytes); break;
      case Kind::kTrim: allocator_.trim(); break;
      case Kind::kCap: wrong = cap(operation.bytes); break;
      case Kind::kUncap: allocator_.set_cap(kNoCap); break;
      case Kind::kPlan: allocator_.begin_planned(step_ = Foresight(program, index, taken(), setting_.options).step()); break;
      case Kind::kEndPlan: allocator_.end_planned(operation.bytes % 4 == 0 ? nullptr : step_.get()); break;
    }
    const Statistics now = allocator_.statistics();
    if (now.live_bytes != intervals_.total()) return "live_bytes is " + std::to_string(now.live_bytes) + ", reference " + std::to_string(intervals_.total());
    if (now.reserved_bytes > now.cap_bytes) return "reserved over the cap";
    return wrong;
  }
  std::string check() const { return allocator_.check_invariants(); }
  Statistics statistics() const { return allocator_.statistics(); }
  std::string finish() {
    std::size_t seen = 0;
    allocator_.visit_live([&](void*, std::size_t, Tag) { ++seen; });
    if (seen != intervals_.count()) return "visit_live showed " + std::to_string(seen) + " of " + std::to_string(intervals_.count());
    for (Slot& slot : slots_) {
      if (auto wrong = release(slot); !wrong.empty()) return wrong;
    }
    allocator_.trim();
    if (allocator_.statistics().reserved_bytes != 0) return "reserved after everything was freed and trimmed";
    return check();
  }

 private:
  std::array<bool, kSlots> taken() const {
    std::array<bool, kSlots> all{};
    for (std::size_t i = 0; i < kSlots; ++i) all[i] = slots_[i].pointer != nullptr;
    return all;
  }
  std::string allocate(Slot& slot, std::size_t bytes) {
    void* const pointer = allocator_.allocate(bytes);
    if (pointer == nullptr) return setting_.host && allocator_.statistics().cap_bytes == kNoCap ? "no memory without a cap" : "";
    slot = {pointer, std::max<std::size_t>(bytes, 1), Tag{}, static_cast<unsigned char>(++fill_)};
    const auto begin = reinterpret_cast<std::uintptr_t>(pointer);
    if (begin % setting_.options.rounding_bytes != 0) return "not aligned";
    if (allocator_.size_of(pointer) != slot.bytes) return "size_of is wrong";
    if (allocator_.tag(pointer) != Tag{}) return "a fresh allocation has a tag";
    if (setting_.host) std::memset(pointer, slot.fill, slot.bytes);
    return intervals_.add(begin, slot.bytes);
  }
  std::string release(Slot& slot) {
    if (slot.pointer == nullptr) return {};
    if (allocator_.tag(slot.pointer) != slot.tag) return "tag changed";
    if (setting_.host) {
      const auto* bytes = static_cast<const unsigned char*>(slot.pointer);
      for (std::size_t i = 0; i < slot.bytes; i += 59) {
        if (bytes[i] != slot.fill) return "content changed";
      }
      if (bytes[slot.bytes - 1] != slot.fill) return "content changed at the end";
    }
    intervals_.remove(reinterpret_cast<std::uintptr_t>(slot.pointer));
    allocator_.deallocate(slot.pointer);
    slot = {};
    return {};
  }
  std::string tag(Slot& slot, std::size_t number) {
    if (slot.pointer == nullptr) return {};
    slot.tag = {static_cast<std::uint8_t>(number), number % 2 == 1, static_cast<std::int32_t>(number)};
    allocator_.set_tag(slot.pointer, slot.tag);
    return allocator_.size_of(slot.pointer) == slot.bytes ? "" : "set_tag changed the size";
  }
  std::string cap(std::size_t room) {
    const std::size_t wanted = intervals_.total() + room;
    const bool set = allocator_.set_cap(wanted);
    return set == (allocator_.statistics().cap_bytes == wanted) ? "" : "set_cap's answer differs from the cap";
  }

  Setting setting_;
  std::unique_ptr<Device> device_;
  CachingAllocator allocator_;
  std::vector<Slot> slots_;
  std::shared_ptr<const PlannedStep> step_;  // begun last
  Intervals intervals_;
  unsigned fill_ = 0;
};

}  // namespace

Program random_program(std::uint64_t seed, std::size_t operations) {
  std::mt19937_64 random(seed);
  Program program(operations);
  for (Operation& operation : program) {
    operation.slot = random() % kSlots;
    const std::uint64_t dice = random() % 1000;
    if (dice < 940) {
      operation.kind = dice < 600 ? Kind::kAllocate : Kind::kFree;
      // small ones, a few sizes that come again and again as in training, and all others
      operation.bytes = dice % 3 == 0 ? random() % 1200 : dice % 3 == 1 ? (1 + random() % 12) * 3072 : random() % (std::size_t{1} << (random() % 18));
    } else if (dice < 990) {
      operation.kind = Kind::kTag;
      operation.bytes = random() % 100000;
    } else {
      operation.kind = dice < 991 ? Kind::kTrim : dice < 993 ? Kind::kCap : dice < 994 ? Kind::kUncap : dice < 997 ? Kind::kPlan : Kind::kEndPlan;
      operation.bytes = random() % (1 << 20);
    }
  }
  return program;
}

Program repeating_program(std::uint64_t seed, std::size_t operations) {
  std::mt19937_64 random(seed);
  const std::size_t step = 60 + random() % 200, few = 4 + random() % 30;
  Program program = random_program(seed, operations);
  for (std::size_t i = 0; i < operations; ++i) {
    Operation& operation = program[i];
    operation.slot %= few;
    if (i >= step && random() % 50 != 0) operation = program[i - step];
    if (i < step && operation.kind >= Kind::kTrim) operation.kind = Kind::kFree;
    if (i == 0) operation = {.kind = Kind::kPlan, .slot = 0, .bytes = step * 2 / 3};
    if (i == step * 3 / 4) operation = {.kind = Kind::kEndPlan, .slot = 0, .bytes = 1};
  }
  return program;
}

std::string run(const Program& program, const Setting& setting, Statistics* last) {
  Run state(setting);
  for (std::size_t i = 0; i < program.size(); ++i) {
    std::string wrong = state.apply(program, i);
    if (wrong.empty() && i % setting.check_every == 0) wrong = state.check();
    if (!wrong.empty()) return "operation " + std::to_string(i) + ": " + wrong;
  }
  if (last != nullptr) *last = state.statistics();
  if (auto wrong = state.check(); !wrong.empty()) return wrong;
  return state.finish();
}

// Leaves out stretches of halving length as long as the rest still fails.
Program minimised(Program program, const Setting& original) {
  Setting setting = original;
  setting.check_every = 1;
  for (std::size_t length = program.size() / 2; length > 0; length /= 2) {
    for (std::size_t start = 0; start < program.size();) {
      Program shorter = program;
      const std::size_t end = std::min(start + length, shorter.size());
      shorter.erase(shorter.begin() + static_cast<std::ptrdiff_t>(start), shorter.begin() + static_cast<std::ptrdiff_t>(end));
      if (run(shorter, setting).empty()) {
        start += length;
      } else {
        program = std::move(shorter);
      }
    }
  }
  return program;
}

std::string as_source(const Program& program) {
  static constexpr const char* kNames[] = {"kAllocate", "kFree", "kTag", "kTrim", "kCap", "kUncap", "kPlan", "kEndPlan"};
  std::string text = "const Program program = {\n";
  for (const Operation& one : program) {
    text += std::string("    {.kind = Kind::") + kNames[static_cast<int>(one.kind)] + ", .slot = " + std::to_string(one.slot) +
            ", .bytes = " + std::to_string(one.bytes) + "},\n";
  }
  return text + "};\n";
}

}  // namespace reprise::testing
