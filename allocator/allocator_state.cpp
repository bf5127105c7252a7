// CachingAllocator apart from its hot path: counts, streams, cap and pressure, statistics, fork.
#include <algorithm>
#include <bit>

#include "allocator/caching_allocator.hpp"

namespace reprise {

namespace {
thread_local constinit bool under_pressure = false;
}  // namespace

std::size_t CachingAllocator::rounded_bytes(const void* pointer) const noexcept {
  if (offset_of(pointer) >= small_zone_bytes_) return piece_of(pointer).bytes;
  return slabs_.object_bytes(slab_of(pointer).class_index);
}

void CachingAllocator::free_locked(void* pointer) noexcept {
  const std::size_t offset = offset_of(pointer);
  count_out_locked(size_of(pointer), rounded_bytes(pointer));
  bool recorded = false;
  if (offset >= small_zone_bytes_) {
    Piece& piece = piece_of(pointer);
    recorded = piece.recorded;
    piece.requested = 0;
  } else {
    Record& record = slabs_.record(slab_of(pointer), offset);
    recorded = ObjectRecord{record.load(std::memory_order_relaxed)}.recorded();
    record.store(0, std::memory_order_relaxed);
  }
  if (recorded) {
    postpone_locked(pointer);
  } else {
    release_locked(pointer);
  }
}

void CachingAllocator::release_locked(void* pointer) noexcept {
  if (offset_of(pointer) >= small_zone_bytes_) {
    heap_.give(&piece_of(pointer));
  } else {
    slabs_.give(pointer);
  }
}

bool CachingAllocator::record_stream(void* pointer, StreamId stream) noexcept {
  const Hold hold(lock_);
  try {
    return note_stream_locked(pointer, stream);
  } catch (...) {
    return false;
  }
}

// Everything that freeing will need is allocated here, where it may fail.
bool CachingAllocator::note_stream_locked(void* pointer, StreamId stream) {
  const std::size_t offset = offset_of(pointer);
  const StreamId own = offset >= small_zone_bytes_ ? piece_of(pointer).stream : 0;
  if (stream == own) return true;
  Pending& note = recorded_.try_emplace(pointer, Pending{pointer, {}, {}}).first->second;
  if (std::find(note.streams.begin(), note.streams.end(), stream) != note.streams.end()) return true;
  pending_.reserve(pending_.size() + recorded_.size());
  note.fences.reserve(note.streams.size() + 1);
  note.streams.push_back(stream);
  if (offset >= small_zone_bytes_) {
    piece_of(pointer).recorded = true;
    heap_.never_keep(&piece_of(pointer));
  } else {
    slabs_.record(slab_of(pointer), offset).fetch_or(ObjectRecord::kRecorded, std::memory_order_relaxed);
  }
  return true;
}

void CachingAllocator::postpone_locked(void* pointer) noexcept {
  const auto note = recorded_.find(pointer);
  pending_bytes_ += rounded_bytes(pointer);
  if (offset_of(pointer) >= small_zone_bytes_) piece_of(pointer).state = PieceState::kPending;
  pending_.push_back(std::move(note->second));  // room was reserved
  recorded_.erase(note);
  poll_pending_locked(false);
}

// A stream without a Fence yet gets one now: later than the free, so safe.
bool CachingAllocator::is_passed_locked(Pending& pending, bool wait) noexcept {
  std::erase_if(pending.streams, [&](StreamId stream) {
    const auto fence = arena_.device().record_fence(stream);
    if (fence) pending.fences.push_back(*fence);
    return fence.has_value();
  });
  std::erase_if(pending.fences, [&](Fence fence) {
    if (wait) arena_.device().wait(fence);
    return arena_.device().passed(fence);
  });
  return pending.streams.empty() && pending.fences.empty();
}

void CachingAllocator::poll_pending_locked(bool wait) noexcept {
  std::erase_if(pending_, [&](Pending& pending) {
    if (!is_passed_locked(pending, wait)) return false;
    pending_bytes_ -= rounded_bytes(pending.pointer);
    release_locked(pending.pointer);
    return true;
  });
}

std::size_t CachingAllocator::trim_locked(std::size_t bytes) noexcept {
  ++trims_;
  slabs_.give_cached();
  std::size_t given = slabs_.trim(bytes);
  if (given < bytes) given += heap_.trim(bytes - given);
  trimmed_bytes_ += given;
  return given;
}

bool CachingAllocator::begin_planned(const std::shared_ptr<const PlannedStep>& step) noexcept {
  const Hold hold(lock_);
  heap_.end_planned();
  if (step == nullptr) return false;
  for (const PlannedPiece& piece : step->pieces()) {
    if (piece.bytes % rounding_ != 0 || (piece.offset % rounding_ != 0 && !piece.elsewhere) || piece.bytes < min_piece_bytes_) return false;
  }
  if (!heap_.begin_planned(step)) return false;
  ++planned_steps_;
  return true;
}

bool CachingAllocator::end_planned(const PlannedStep* only) noexcept {
  const Hold hold(lock_);
  if (only == nullptr) return heap_.end_planned();
  return heap_.planned().step() == only && heap_.park();
}

std::size_t CachingAllocator::trim() noexcept {
  const Hold hold(lock_);
  heap_.end_planned();
  poll_pending_locked(true);
  return trim_locked(kNoCap);
}

bool CachingAllocator::set_cap(std::size_t bytes) noexcept {
  std::size_t missing = 0;
  do {
    const Hold hold(lock_);
    if (arena_.reserved_bytes() > bytes) {
      poll_pending_locked(true);
      trim_locked(arena_.reserved_bytes() - bytes);
    }
    if (arena_.reserved_bytes() > bytes && heap_.end_planned()) trim_locked(arena_.reserved_bytes() - bytes);
    if (arena_.reserved_bytes() <= bytes) {
      arena_.set_cap(bytes);
      return true;
    }
    missing = arena_.reserved_bytes() - bytes;
  } while (relieve(missing));
  return false;
}

void CachingAllocator::set_pressure(PressureCallback callback) {
  auto fresh = callback ? std::make_shared<const PressureCallback>(std::move(callback)) : nullptr;
  const Hold hold(lock_);
  pressure_.swap(fresh);  // the old one dies after the lock: fresh was declared first
}

// Asks the callback, without a lock. True when memory was freed since, so that trying again makes sense.
bool CachingAllocator::relieve(std::size_t bytes) noexcept {
  if (under_pressure) return false;
  std::shared_ptr<const PressureCallback> callback;
  std::uint64_t frees_before = 0;
  {
    const Hold hold(lock_);
    callback = pressure_;
    if (callback == nullptr) return false;
    ++pressure_calls_;
    frees_before = counts_.frees();
  }
  std::size_t said = 0;
  under_pressure = true;
  try {
    said = (*callback)(bytes);
  } catch (...) {
    said = 0;
  }
  under_pressure = false;
  if (said == 0) return false;
  const Hold hold(lock_);
  pressure_bytes_ += said;
  return counts_.frees() != frees_before;
}

Statistics CachingAllocator::statistics() const {
  const Hold hold(lock_);
  Statistics now;
  counts_.show(now);
  now.allocations_per_class = allocations_per_class_;
  for (const ObjectStack& stack : slabs_.stacks()) {
    if (stack.object_bytes != 0) now.allocations_per_class[static_cast<std::size_t>(std::bit_width(stack.object_bytes - 1))] += stack.allocations;
  }
  for (const std::uint64_t count : now.allocations_per_class) now.allocations += count;
  now.reserved_bytes = arena_.reserved_bytes();
  now.peak_reserved_bytes = arena_.peak_reserved_bytes();
  now.cap_bytes = arena_.cap_bytes();
  now.cached_bytes = slabs_.cached_bytes();
  now.pending_bytes = pending_bytes_;
  now.arena_bytes = slabs_.address_bytes() + heap_.address_bytes();
  now.failed_allocations = failed_allocations_;
  now.planned_hits = heap_.planned().hits();
  now.planned_misses = heap_.planned().misses();
  now.planned_steps = planned_steps_;
  now.planned_steps_given_up = planned_steps_given_up_;
  now.device_calls = arena_.device_calls();
  now.device_failures = arena_.device_failures();
  now.trims = trims_;
  now.trimmed_bytes = trimmed_bytes_;
  now.pressure_calls = pressure_calls_;
  now.pressure_bytes = pressure_bytes_;
  return now;
}

void CachingAllocator::reset_peaks() noexcept {
  const Hold hold(lock_);
  counts_.reset_peaks();
  arena_.reset_peak();
}

PoolStatistics CachingAllocator::pool_statistics(std::size_t* pending_bytes) const noexcept {
  const Hold hold(lock_);
  if (pending_bytes != nullptr) *pending_bytes = pending_bytes_;
  return pools_.show();
}

void CachingAllocator::reset_pool_peaks() noexcept {
  const Hold hold(lock_);
  pools_.reset_peaks();
}

void CachingAllocator::reset_pool_totals() noexcept {
  const Hold hold(lock_);
  pools_.reset_totals();
}

void CachingAllocator::visit_live(const std::function<void(void*, std::size_t, Tag)>& show) const {
  struct Shown {
    void* pointer;
    std::size_t bytes;
    Tag tag;
  };
  std::vector<Shown> all;
  {
    const Hold hold(lock_);
    slabs_.visit_live([&](std::size_t offset, ObjectRecord record) { all.push_back({arena_.base() + offset, record.requested(), record.tag()}); });
    heap_.visit([&](const Piece& piece) {
      if (piece.requested != 0) all.push_back({arena_.base() + piece.offset, piece.requested, piece.tag.load(std::memory_order_relaxed)});
    });
  }
  for (const Shown& one : all) show(one.pointer, one.bytes, one.tag);
}

void CachingAllocator::after_fork_in_child() noexcept {
  arena_.set_cap(kNoCap);
  heap_.end_planned();  // the step goes on in the parent
  observer_.store(nullptr, std::memory_order_release);
  auto dropped = std::move(pressure_);
  lock_.leave(fork_key_);
}

}  // namespace reprise
