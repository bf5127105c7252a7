// Packing: lossless short forms of a Value's content, checked element by element while packing: what comes back has the same bits, or is not packed at all.
//
// Words: an element is `item_bytes` (1, 2, 4 or 8) consecutive bytes, read as an unsigned number; nothing here knows floats, so NaN payloads and -0.0 are just
// bits. A form says how an element is stored:
//   kBits                        at most two different elements occur (bools, scaled dropout masks): 1 bit each
//   kOneByte, kTwoBytes, kFourBytes   largest - smallest fits (indices of small range): the distance from the smallest; elements are read as signed
// Q1  packed_bytes(form, bytes, item_bytes) < bytes where the form is offered
// Q2  pack() returned true  =>  unpack() writes exactly the bytes that were packed
// Cost: memory speed, one read of the content (two for distances); a content that does not fit is given up at the first block of elements that shows it.
// Threads: none; different contents may be packed at once. Failure: none; a form that does not fit is `false`.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace reprise {

enum class Packing : uint8_t { kNone, kBits, kOneByte, kTwoBytes, kFourBytes };

inline constexpr std::array<const char*, 5> kPackingNames = {"none", "bits", "one_byte", "two_bytes", "four_bytes"};
constexpr const char* name_of(Packing form) { return kPackingNames[static_cast<size_t>(form)]; }

// What is known of a Value's packed form. kNone: it has none, and all numbers are 0.
struct PackingFacts {
  Packing form = Packing::kNone;
  int64_t bytes = 0;          // of the packed form
  double pack_seconds = 0;    // wall, of the last time that it was packed
  double unpack_seconds = 0;  // 0: never unpacked so far
  bool operator==(const PackingFacts&) const = default;
};

// What unpack() needs beside the packed bytes.
struct PackedForm {
  Packing form = Packing::kNone;
  int32_t item_bytes = 0;
  int64_t bytes = 0;    // of the content
  uint64_t first = 0;   // kBits: the element of a 0 bit; distances: the smallest element
  uint64_t second = 0;  // kBits: the element of a 1 bit
};

// Bytes of the packed form; 0 where the form is not offered for such elements (a distance as wide as the element, bytes that are no whole elements, nothing to gain).
int64_t packed_bytes(Packing form, int64_t bytes, int32_t item_bytes);

// Writes packed_bytes() bytes to `packed`. False: the content does not fit the form, and what was written means nothing.
bool pack(Packing form, const void* content, int64_t bytes, int32_t item_bytes, void* packed, PackedForm& out);

void unpack(const PackedForm& form, const void* packed, void* content);

// The shortest form that fits this content now, found by packing it.
PackingFacts find_packing(const void* content, int64_t bytes, int32_t item_bytes);

}  // namespace reprise
