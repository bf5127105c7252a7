// check_invariants(): the numbers of the headers, asserted.
#include "allocator/caching_allocator.hpp"

namespace reprise {

namespace {

std::string differs(const char* number, const char* what, std::size_t found, std::size_t expected) {
  return std::string(number) + ": " + what + " is " + std::to_string(found) + ", expected " + std::to_string(expected);
}

std::string check_tally(const Tally& all, const Tally& small, const Tally& large) {
  for (const Tally* const tally : {&all, &small, &large}) {
    if (tally->now < 0 || tally->now > tally->peak) return "N2: a pool's level is " + std::to_string(tally->now) + ", its peak " + std::to_string(tally->peak);
  }
  return all.now == small.now + large.now ? ""
                                          : differs("N2", "the pools' sum", static_cast<std::size_t>(small.now + large.now), static_cast<std::size_t>(all.now));
}

std::string check_pools(const PoolStatistics& pools, std::size_t live, std::size_t allocated) {
  const auto bytes = [](const Tally& tally) { return static_cast<std::size_t>(tally.now); };
  if (bytes(pools.all.requested_bytes) != live) return differs("N2", "the pools' requested bytes", bytes(pools.all.requested_bytes), live);
  if (bytes(pools.all.allocated_bytes) != allocated) return differs("N2", "the pools' allocated bytes", bytes(pools.all.allocated_bytes), allocated);
  for (const auto member : {&PoolTallies::allocations, &PoolTallies::allocated_bytes, &PoolTallies::requested_bytes}) {
    if (auto wrong = check_tally(pools.all.*member, pools.small.*member, pools.large.*member); !wrong.empty()) return wrong;
  }
  return {};
}

}  // namespace

std::string PieceHeap::check_piece(const Piece& piece) const {
  const std::string at = " at offset " + std::to_string(piece.offset);
  if (piece.bytes == 0) return "P1: empty piece" + at;
  if (piece.after != nullptr && (piece.after->before != &piece || piece.after->offset != piece.offset + piece.bytes)) {
    return "P1: neighbours do not meet" + at;
  }
  const PageRange pages = arena_.touching(piece.offset, piece.bytes);
  if (piece.state == PieceState::kRegion) {
    if (&piece != region_ || !planned_.active()) return "P1: a region that nobody follows" + at;
    return arena_.uncommitted_in(pages) != 0 ? "P4: the region has an uncommitted page" + at : check_planned();
  }
  if (piece.state != PieceState::kFree) {
    if (piece.planned) return "P1: a planned piece among those that tile the heap" + at;
    if (arena_.uncommitted_in(pages) != 0) return "P4: used piece has an uncommitted page" + at;
    if (table_.find(piece.offset) != &piece) return "L1: used piece is not in the table" + at;
    return {};
  }
  if (table_.find(piece.offset) == &piece) return "L1: free piece is in the table" + at;
  if (piece.after != nullptr && piece.after->state == PieceState::kFree && piece.after->stream == piece.stream) {
    return "P2: two free neighbours of one stream" + at;
  }
  if (piece.holes != arena_.uncommitted_in(pages)) return "P3: wrong count of holes" + at;
  if (piece.holes != arena_.uncommitted_in(own_pages(piece))) {
    return "P4: an uncommitted page is shared" + at;
  }
  return {};
}

std::string PieceHeap::check() const {
  std::size_t used = 0;
  std::size_t free_count = 0;
  std::size_t expected = start_;
  for (const Piece* piece = first_; piece != nullptr; piece = piece->after) {
    if (piece->offset != expected) return differs("P1", "a piece's offset", piece->offset, expected);
    if (auto wrong = check_piece(*piece); !wrong.empty()) return wrong;
    expected = piece->offset + piece->bytes;
    if (piece->state == PieceState::kFree) {
      ++free_count;
    } else {
      used += piece->state == PieceState::kRegion ? planned_.live_bytes() : piece->bytes;
    }
  }
  if (expected != top_) return differs("P1", "the end of the last piece", expected, top_);
  if (used != used_bytes_) return differs("H1", "used bytes", used_bytes_, used);
  const PageRange above = arena_.inside(top_, arena_.bytes() - top_);
  if (arena_.committed_in(above) != 0) return differs("H2", "committed pages above the top", arena_.committed_in(above), 0);
  std::size_t indexed = 0;
  std::string wrong;
  const auto check_index = [&](const FreeIndex& index, StreamId id, bool full) {
    if (wrong.empty()) wrong = index.check();
    index.visit([&](const Piece* piece) {
      ++indexed;
      if (piece->state != PieceState::kFree || piece->stream != id || (piece->holes == 0) != full) {
        wrong = "P3: piece in the wrong index at offset " + std::to_string(piece->offset);
      }
    });
  };
  const auto check_stream = [&](const Stream& stream, StreamId id) {
    check_index(stream.full, id, true);
    check_index(stream.holed, id, false);
  };
  check_stream(*own_stream_, 0);
  for (const auto& [id, stream] : other_streams_) check_stream(*stream, id);
  if (wrong.empty()) wrong = check_cache();
  if (wrong.empty() && indexed != free_count) return differs("P3", "pieces in an index", indexed, free_count);
  return wrong;
}

std::string PieceHeap::check_planned() const {
  for (const Piece* piece : planned_.live()) {
    if (table_.find(piece->offset) != piece) return "R2: a planned piece is not in the table at offset " + std::to_string(piece->offset);
  }
  return planned_.check();
}

std::string PieceHeap::check_cache() const {
  std::string wrong;
  cache_.visit([&](const Piece& piece, std::size_t bytes) {
    if (piece.stack != &cache_.stack_for(bytes)) wrong = "C1: a cached piece is in the stack of another size at offset " + std::to_string(piece.offset);
    if (piece.bytes != bytes || piece.stream != 0 || piece.state != PieceState::kUsed || piece.requested != 0 || piece.planned) {
      wrong = "C1: a cached piece is live, planned, of another size or of another stream at offset " + std::to_string(piece.offset);
    }
  });
  return wrong;
}

std::string SlabHeap::check_slab(const Slab& slab) const {
  const std::string at = " in the slab at offset " + std::to_string(slab.offset);
  const PageRange pages = arena_.touching(slab.offset, kSlabBytes);
  if (slab.committed && arena_.uncommitted_in(pages) != 0) return "S2: uncommitted page" + at;
  if (!slab.committed) return slab.taken == 0 ? "" : "S2: objects taken from uncommitted memory" + at;
  std::size_t free_objects = 0;
  for (const std::uint64_t bits : slab.free_bits) free_objects += static_cast<std::size_t>(std::popcount(bits));
  const std::size_t objects = objects_per_slab(slab.class_index);
  if (slab.taken != objects - free_objects) return differs("S1", "taken objects", slab.taken, objects - free_objects) + at;
  const std::size_t object = object_bytes(slab.class_index);
  for (std::size_t unit = 0; unit < slab.records.size(); ++unit) {
    const ObjectRecord found{slab.records[unit].load(std::memory_order_relaxed)};
    if (found.requested() == 0) continue;
    const std::size_t index = unit * kUnitBytes / object;
    const bool starts = unit * kUnitBytes % object == 0 && index < objects;
    if (!starts || ((slab.free_bits[index / 64] >> (index % 64)) & 1) != 0) return "S3: record of an object that is not live" + at;
    if (found.requested() > object) return "S3: record larger than its object" + at;
  }
  return {};
}

std::string SlabHeap::check_stack(const ObjectStack& stack) const {
  if (stack.count > stack.depth) return differs("C2", "objects in a stack", stack.count, stack.depth);
  if (stack.depth * stack.object_bytes > kCacheBytes) return differs("C3", "bytes of a full stack", stack.depth * stack.object_bytes, kCacheBytes);
  for (std::size_t i = 0; i < stack.count; ++i) {
    const std::size_t offset = static_cast<std::size_t>(static_cast<std::byte*>(stack.pointers[i]) - arena_.base());
    Slab& slab = *slab_at(offset);
    if (slab.stack != &stack) return "C2: a cached object is in the stack of another class";
    if (stack.records[i] != &record(slab, offset)) return "C2: a cached object goes with the record of another";
    if (stack.records[i]->load(std::memory_order_relaxed) != 0) return "C2: a cached object is live";
  }
  return {};
}

std::string SlabHeap::check() const {
  for (const ObjectStack& stack : stacks_) {
    if (auto wrong = check_stack(stack); !wrong.empty()) return wrong;
  }
  std::size_t taken = 0;
  std::size_t listable = 0;
  std::size_t listed = 0;
  for (std::size_t offset = 0; offset < next_offset_; offset += kSlabBytes) {
    const Slab& slab = *slab_at(offset);
    if (auto wrong = check_slab(slab); !wrong.empty()) return wrong;
    if (!slab.committed || slab.taken == 0) {
      ++listable;
      continue;
    }
    taken += slab.taken * object_bytes(slab.class_index);
    if (slab.taken < objects_per_slab(slab.class_index)) ++listable;
  }
  if (taken != taken_bytes_) return differs("S1", "taken bytes", taken_bytes_, taken);
  const auto check_list = [&](const Slab* head, auto&& belongs) {
    for (const Slab* slab = head; slab != nullptr; slab = slab->next, ++listed) {
      if (!belongs(*slab)) return false;
    }
    return true;
  };
  for (std::size_t i = 0; i < available_.size(); ++i) {
    if (!check_list(available_[i], [&](const Slab& slab) { return slab.class_index == i && slab.taken != 0 && slab.taken < objects_per_slab(i); })) {
      return "S2: a slab that is not available is listed as available";
    }
  }
  if (!check_list(idle_, [](const Slab& slab) { return slab.committed && slab.taken == 0; })) return "S2: a slab that is not idle is listed as idle";
  if (!check_list(uncommitted_, [](const Slab& slab) { return !slab.committed; })) return "S2: a committed slab is listed as given back";
  return listed == listable ? "" : differs("S2", "listed slabs", listed, listable);
}

std::string CachingAllocator::check_sums_locked() const {
  std::size_t live = 0;
  std::size_t pieces = 0;
  std::size_t objects = 0;
  slabs_.visit_live([&](std::size_t offset, ObjectRecord record) {
    live += record.requested();
    objects += slabs_.object_bytes(slabs_.slab_at(offset)->class_index);
  });
  heap_.visit([&](const Piece& piece) {
    live += piece.requested;
    if (piece.requested != 0) pieces += piece.bytes;
  });
  if (counts_.live_bytes() != live) return differs("B1", "live bytes", counts_.live_bytes(), live);
  if (counts_.allocated_bytes() != pieces + objects) return differs("B2", "allocated bytes", counts_.allocated_bytes(), pieces + objects);
  if (auto wrong = pools_.wanted() ? check_pools(pools_.show(), live, pieces) : std::string(); !wrong.empty()) return wrong;
  std::size_t pending_pieces = 0;
  std::size_t pending_objects = 0;
  for (const Pending& pending : pending_) {
    (offset_of(pending.pointer) >= small_zone_bytes_ ? pending_pieces : pending_objects) += rounded_bytes(pending.pointer);
  }
  const std::size_t used = pieces + heap_.cached_bytes() + pending_pieces;
  if (heap_.used_bytes() != used) return differs("B3", "used bytes of the heap", heap_.used_bytes(), used);
  const std::size_t taken = objects + slabs_.cached_bytes() + pending_objects;
  if (slabs_.taken_bytes() != taken) return differs("B4", "taken bytes of the slabs", slabs_.taken_bytes(), taken);
  if (pending_bytes_ != pending_pieces + pending_objects) return differs("B3", "pending bytes", pending_bytes_, pending_pieces + pending_objects);
  return {};
}

std::string CachingAllocator::check_invariants() const {
  const Hold hold(lock_);
  if (arena_.recount() != arena_.reserved_bytes()) return differs("A1", "reserved bytes", arena_.reserved_bytes(), arena_.recount());
  if (arena_.reserved_bytes() > arena_.cap_bytes()) return differs("A2", "reserved bytes over the cap", arena_.reserved_bytes(), arena_.cap_bytes());
  if (auto wrong = slabs_.check(); !wrong.empty()) return wrong;
  if (auto wrong = heap_.check(); !wrong.empty()) return wrong;
  return check_sums_locked();
}

}  // namespace reprise
