#include "profiler/packing.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <limits>
#include <memory>
#include <type_traits>

namespace reprise {
namespace {

constexpr int64_t kBlock = 64;                                                                               // elements packed at a time
constexpr std::array kForms = {Packing::kBits, Packing::kOneByte, Packing::kTwoBytes, Packing::kFourBytes};  // the shortest first

template <class T>
T load(const void* content, int64_t index) {
  T element;
  std::memcpy(&element, static_cast<const char*>(content) + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return element;
}

template <class T>
void load_block(const void* content, int64_t index, int64_t count, T* block) {
  std::memcpy(block, static_cast<const char*>(content) + index * static_cast<int64_t>(sizeof(T)), static_cast<size_t>(count) * sizeof(T));
}

// Eight bytes that are 0 or 1 to eight bits, the first to the lowest: each byte is moved by one factor of the product into the top byte, none meets another.
uint8_t gather_bits(const uint8_t* flags) {
  uint64_t word;
  std::memcpy(&word, flags, sizeof word);
  return static_cast<uint8_t>((word * 0x0102040810204080ULL) >> 56);
}

// The first element, and the first one that differs from it.
template <class T>
T other_than(T first, const void* content, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (const T element = load<T>(content, i); element != first) return element;
  return first;
}

template <class T>
bool pack_bits(const void* content, int64_t count, uint8_t* packed, PackedForm& out) {
  const T first = load<T>(content, 0), second = other_than(first, content, count);
  out.first = first, out.second = second;
  for (int64_t i = 0; i < count; i += kBlock) {
    std::array<T, kBlock> block;
    const int64_t here = std::min(kBlock, count - i);
    if (here < kBlock) block.fill(first);
    load_block(content, i, here, block.data());
    std::array<uint8_t, kBlock> is_second;
    uint8_t neither = 0;
    for (size_t k = 0; k < static_cast<size_t>(kBlock); k++) {
      is_second[k] = block[k] == second;
      neither = static_cast<uint8_t>(neither | ((block[k] != first) & (block[k] != second)));
    }
    if (neither) return false;
    for (int64_t k = 0; k < here; k += 8) packed[(i + k) / 8] = gather_bits(is_second.data() + k);
  }
  return true;
}

// Four elements per look-up: which of the two, by four bits.
template <class T>
void unpack_bits(const PackedForm& form, const uint8_t* packed, char* content) {
  std::array<std::array<T, 4>, 16> table;
  for (size_t bits = 0; bits < table.size(); bits++)
    for (size_t k = 0; k < 4; k++) table[bits][k] = static_cast<T>((bits >> k) & 1 ? form.second : form.first);
  const int64_t count = form.bytes / static_cast<int64_t>(sizeof(T));
  int64_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const uint8_t bits = packed[i / 8];
    std::memcpy(content + i * static_cast<int64_t>(sizeof(T)), table[bits & 15].data(), sizeof table[0]);
    std::memcpy(content + (i + 4) * static_cast<int64_t>(sizeof(T)), table[bits >> 4].data(), sizeof table[0]);
  }
  for (; i < count; i++) std::memcpy(content + i * static_cast<int64_t>(sizeof(T)), &table[(packed[i / 8] >> (i % 8)) & 1][0], sizeof(T));
}

template <class Signed, class Narrow>
bool pack_distances(const void* content, int64_t count, uint8_t* packed, PackedForm& out) {
  using Wide = std::make_unsigned_t<Signed>;
  Signed low = load<Signed>(content, 0), high = low;
  for (int64_t i = 0; i < count; i += kBlock) {
    std::array<Signed, kBlock> block;
    block.fill(low);
    load_block(content, i, std::min(kBlock, count - i), block.data());
    for (const Signed element : block) low = std::min(low, element), high = std::max(high, element);
    if (static_cast<Wide>(static_cast<Wide>(high) - static_cast<Wide>(low)) > static_cast<Wide>(std::numeric_limits<Narrow>::max())) return false;
  }
  out.first = static_cast<Wide>(low);
  for (int64_t i = 0; i < count; i++) {
    const auto distance = static_cast<Narrow>(load<Wide>(content, i) - static_cast<Wide>(low));
    std::memcpy(packed + i * static_cast<int64_t>(sizeof(Narrow)), &distance, sizeof distance);
  }
  return true;
}

template <class Wide, class Narrow>
void unpack_distances(const PackedForm& form, const uint8_t* packed, char* content) {
  const int64_t count = form.bytes / static_cast<int64_t>(sizeof(Wide));
  for (int64_t i = 0; i < count; i++) {
    const auto element = static_cast<Wide>(static_cast<Wide>(form.first) + load<Narrow>(packed, i));
    std::memcpy(content + i * static_cast<int64_t>(sizeof(Wide)), &element, sizeof element);
  }
}

// Calls visit with a signed number of the element's width.
template <class Visit>
auto by_width(int32_t item_bytes, Visit&& visit) {
  switch (item_bytes) {
    case 1: return visit(int8_t{});
    case 2: return visit(int16_t{});
    case 4: return visit(int32_t{});
    default: return visit(int64_t{});
  }
}

// Calls visit with an unsigned number of the distance's width; kBits has none.
template <class Visit>
auto by_distance(Packing form, Visit&& visit) {
  switch (form) {
    case Packing::kOneByte: return visit(uint8_t{});
    case Packing::kTwoBytes: return visit(uint16_t{});
    default: return visit(uint32_t{});
  }
}

}  // namespace

int64_t packed_bytes(Packing form, int64_t bytes, int32_t item_bytes) {
  const bool whole = item_bytes == 1 || item_bytes == 2 || item_bytes == 4 || item_bytes == 8;
  if (form == Packing::kNone || !whole || bytes <= 0 || bytes % item_bytes != 0) return 0;
  const int64_t count = bytes / item_bytes;
  const int64_t packed =
      form == Packing::kBits ? (count + 7) / 8 : by_distance(form, [&](auto distance) { return count * static_cast<int64_t>(sizeof distance); });
  return packed < bytes ? packed : 0;
}

bool pack(Packing form, const void* content, int64_t bytes, int32_t item_bytes, void* packed, PackedForm& out) {
  if (packed_bytes(form, bytes, item_bytes) == 0) return false;
  out = {form, item_bytes, bytes, 0, 0};
  auto* const to = static_cast<uint8_t*>(packed);
  return by_width(item_bytes, [&](auto element) {
    using Element = decltype(element);
    const int64_t count = bytes / item_bytes;
    if (form == Packing::kBits) return pack_bits<std::make_unsigned_t<Element>>(content, count, to, out);
    return by_distance(form, [&](auto distance) { return pack_distances<Element, decltype(distance)>(content, count, to, out); });
  });
}

void unpack(const PackedForm& form, const void* packed, void* content) {
  const auto* const from = static_cast<const uint8_t*>(packed);
  auto* const to = static_cast<char*>(content);
  by_width(form.item_bytes, [&](auto element) {
    using Wide = std::make_unsigned_t<decltype(element)>;
    if (form.form == Packing::kBits) return unpack_bits<Wide>(form, from, to);
    by_distance(form.form, [&](auto distance) { unpack_distances<Wide, decltype(distance)>(form, from, to); });
  });
}

PackingFacts find_packing(const void* content, int64_t bytes, int32_t item_bytes) {
  const auto now = [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); };
  for (const Packing form : kForms) {
    const int64_t needed = packed_bytes(form, bytes, item_bytes);
    if (needed == 0) continue;
    // Not from the allocator whose cap is being kept: it is there for a moment of a Pass that is measured, and most contents are given up in their first block.
    const std::unique_ptr<uint8_t[]> packed(new uint8_t[static_cast<size_t>(needed)]);
    PackedForm out;
    const double began = now();
    if (pack(form, content, bytes, item_bytes, packed.get(), out)) return {form, needed, now() - began, 0};
  }
  return {};
}

}  // namespace reprise
