// Packing gives back every bit, or says that the content does not fit.
#include "profiler/packing.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

namespace reprise {
namespace {

constexpr uint8_t kUntouched = 0xA5;

template <class T>
std::vector<uint8_t> bytes_of(const std::vector<T>& items) {
  std::vector<uint8_t> out(items.size() * sizeof(T));
  if (!items.empty()) std::memcpy(out.data(), items.data(), out.size());
  return out;
}

// Whether the form fits; where it does, the content must come back and nothing beside either buffer may be touched.
template <class T>
bool comes_back(Packing form, const std::vector<T>& items) {
  const std::vector<uint8_t> content = bytes_of(items);
  const auto bytes = static_cast<int64_t>(content.size());
  const int64_t needed = packed_bytes(form, bytes, sizeof(T));
  std::vector<uint8_t> packed(static_cast<size_t>(needed) + 8, kUntouched), back(content.size() + 8, kUntouched);
  PackedForm out;
  if (!pack(form, content.data(), bytes, sizeof(T), packed.data(), out)) return false;
  EXPECT_LT(needed, bytes) << "Q1";
  unpack(out, packed.data(), back.data());
  EXPECT_EQ(std::vector<uint8_t>(back.begin(), back.end() - 8), content) << "Q2";
  for (size_t i = 0; i < 8; i++) {
    EXPECT_EQ(packed[static_cast<size_t>(needed) + i], kUntouched);
    EXPECT_EQ(back[content.size() + i], kUntouched);
  }
  return true;
}

template <class T>
std::vector<T> drawn(std::mt19937_64& rng, size_t count, T a, T b) {
  std::vector<T> out(count);
  for (T& x : out) x = rng() % 3 ? a : b;
  return out;
}

template <class T>
void check_two_valued(T a, T b) {
  std::mt19937_64 rng(7);
  for (const size_t count : {2U, 3U, 7U, 8U, 9U, 63U, 64U, 65U, 127U, 128U, 1000U, 4099U}) {
    SCOPED_TRACE(::testing::Message() << count << " elements of " << sizeof(T) << " bytes");
    EXPECT_TRUE(comes_back(Packing::kBits, drawn(rng, count, a, b)));
    EXPECT_TRUE(comes_back(Packing::kBits, std::vector<T>(count, a)));
    for (const size_t where : {size_t{0}, count / 2, count - 1}) {  // a third element, anywhere
      std::vector<T> third(count, a);
      third[where == 0 ? count - 1 : 0] = b;
      third[where] = static_cast<T>(a ^ T{2});
      EXPECT_EQ(comes_back(Packing::kBits, third), count == 2) << "at " << where;
    }
  }
}

TEST(Packing, TwoValuedContentsOfEveryWidth) {
  check_two_valued<uint8_t>(0, 1);
  check_two_valued<uint16_t>(0, 0x3F8E);  // bfloat16
  check_two_valued<uint32_t>(0, std::bit_cast<uint32_t>(1.0F / 0.9F));
  check_two_valued<uint64_t>(std::bit_cast<uint64_t>(1.25), 0);
}

TEST(Packing, FloatsAreBits) {
  const float plus = 0.0F, minus = -0.0F, quiet = std::bit_cast<float>(0x7FC00123U), other = std::bit_cast<float>(0x7FC00124U);
  EXPECT_TRUE(comes_back(Packing::kBits, std::vector<float>{plus, minus, minus, plus, plus}));
  EXPECT_TRUE(comes_back(Packing::kBits, std::vector<float>{quiet, other, quiet}));
  EXPECT_FALSE(comes_back(Packing::kBits, std::vector<float>{plus, minus, 1.0F}));  // 0.0 == -0.0, but not in bits
  EXPECT_FALSE(comes_back(Packing::kBits, std::vector<float>{quiet, other, 1.0F}));
}

template <class Wide, class Narrow>
void check_distances(Packing form) {
  constexpr auto reach = static_cast<uint64_t>(std::numeric_limits<Narrow>::max());
  std::mt19937_64 rng(9);
  for (const Wide low :
       {Wide{0}, static_cast<Wide>(-100), std::numeric_limits<Wide>::min(), static_cast<Wide>(static_cast<uint64_t>(std::numeric_limits<Wide>::max()) - reach)})
    for (const size_t count : {2U, 5U, 64U, 65U, 1000U}) {
      std::vector<Wide> items(count);
      for (Wide& x : items) x = static_cast<Wide>(static_cast<uint64_t>(low) + rng() % (reach + 1));
      items.front() = low;
      items.back() = static_cast<Wide>(static_cast<uint64_t>(low) + reach);  // the largest that fits
      EXPECT_TRUE(comes_back(form, items)) << int64_t{low} << ", " << count << " elements of " << sizeof(Wide) << " bytes";
      if (items.back() == std::numeric_limits<Wide>::max()) continue;
      items.back()++;
      EXPECT_FALSE(comes_back(form, items));
    }
}

TEST(Packing, DistancesFromTheSmallest) {
  check_distances<int16_t, uint8_t>(Packing::kOneByte);
  check_distances<int32_t, uint8_t>(Packing::kOneByte);
  check_distances<int32_t, uint16_t>(Packing::kTwoBytes);
  check_distances<int64_t, uint8_t>(Packing::kOneByte);
  check_distances<int64_t, uint16_t>(Packing::kTwoBytes);
  check_distances<int64_t, uint32_t>(Packing::kFourBytes);
  EXPECT_FALSE(comes_back(Packing::kFourBytes, std::vector<int64_t>{std::numeric_limits<int64_t>::min(), std::numeric_limits<int64_t>::max()}));
}

TEST(Packing, OfferedOnlyWhereItIsShorter) {
  EXPECT_EQ(packed_bytes(Packing::kBits, 4000, 4), 125);
  EXPECT_EQ(packed_bytes(Packing::kBits, 4004, 4), 126);
  EXPECT_EQ(packed_bytes(Packing::kBits, 9, 1), 2);
  EXPECT_EQ(packed_bytes(Packing::kTwoBytes, 800, 8), 200);
  EXPECT_EQ(packed_bytes(Packing::kBits, 1, 1), 0);       // one byte to one byte
  EXPECT_EQ(packed_bytes(Packing::kOneByte, 100, 1), 0);  // a distance as wide as the element
  EXPECT_EQ(packed_bytes(Packing::kFourBytes, 100, 4), 0);
  EXPECT_EQ(packed_bytes(Packing::kBits, 0, 4), 0);
  EXPECT_EQ(packed_bytes(Packing::kBits, 10, 4), 0);   // no whole elements
  EXPECT_EQ(packed_bytes(Packing::kBits, 48, 16), 0);  // complex128
  EXPECT_EQ(packed_bytes(Packing::kNone, 48, 4), 0);
  PackedForm out;
  EXPECT_FALSE(pack(Packing::kBits, nullptr, 0, 4, nullptr, out));
}

TEST(Packing, TheShortestFormIsFound) {
  const auto find = [&](const auto& items) { return find_packing(items.data(), static_cast<int64_t>(items.size() * sizeof(items[0])), sizeof(items[0])).form; };
  EXPECT_EQ(find(std::vector<float>{0, 1.25F, 0, 0}), Packing::kBits);
  EXPECT_EQ(find(std::vector<float>{0, 1.25F, 2, 0}), Packing::kNone);
  EXPECT_EQ(find(std::vector<int64_t>{3, 9, 258, 4}), Packing::kOneByte);
  EXPECT_EQ(find(std::vector<int64_t>{3, 9, 259, 4}), Packing::kTwoBytes);
  EXPECT_EQ(find(std::vector<int64_t>{0, 9, int64_t{1} << 31, 4}), Packing::kFourBytes);
  EXPECT_EQ(find(std::vector<int64_t>{0, 9, int64_t{1} << 32, 4}), Packing::kNone);
  const std::vector<float> mask(100, 1.25F);
  EXPECT_EQ(find_packing(mask.data(), 400, 4).bytes, 13);
  EXPECT_EQ(find_packing(mask.data(), 400, 4).unpack_seconds, 0);
}

}  // namespace
}  // namespace reprise
