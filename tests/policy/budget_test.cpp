#include "policy/budget.hpp"

#include <gtest/gtest.h>

#include <stdexcept>

namespace reprise {
namespace {

std::string error_of(const std::string& text) {
  try {
    Budget::parse(text);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
  return "no error";
}

TEST(Budget, ReadsUnitsAndPercent) {
  EXPECT_EQ(Budget::parse("8GiB").bytes, int64_t{8} << 30);
  EXPECT_EQ(Budget::parse("512MB").bytes, 512'000'000);
  EXPECT_EQ(Budget::parse("1.5 KiB").bytes, 1536);
  EXPECT_EQ(Budget::parse("123456789").bytes, 123'456'789);
  EXPECT_EQ(Budget::parse("60%").resolve(1000), 600);
  EXPECT_EQ(Budget::of_bytes(5).resolve(1000), 5);
}

TEST(Budget, NamesArgumentValueAndLimit) {
  EXPECT_EQ(error_of(""), "budget: \"\" is empty, expected bytes, \"8GiB\" or \"60%\"");
  EXPECT_EQ(error_of("8 GoB"), "budget: \"8 GoB\" has the unknown unit \"GoB\", expected B, KB, MB, GB, TB, KiB, MiB, GiB, TiB or %");
  EXPECT_EQ(error_of("-1"), "budget: \"-1\" must be at least 1 byte");
  EXPECT_EQ(error_of("0"), "budget: \"0\" must be at least 1 byte");
  EXPECT_EQ(error_of("NaN"), "budget: \"NaN\" is not a number, expected bytes, \"8GiB\" or \"60%\"");
  EXPECT_EQ(error_of("99999999999TB"), "budget: \"99999999999TB\" is above 9223372036854775807 bytes");
  EXPECT_EQ(error_of("101%"), "budget: \"101%\" is above 100 %");
  EXPECT_EQ(error_of("0%"), "budget: \"0%\" must be above 0 %");
  EXPECT_EQ(error_of("1.5"), "budget: \"1.5\" is not a whole number of bytes");
  EXPECT_THROW(Budget::of_bytes(0), std::invalid_argument);
}

}  // namespace
}  // namespace reprise
