// Budget: the cap on reserved bytes, as a user writes it: "8GiB", "512MB", "60%", "1000000". Immutable.
// Units: B, kB/KB, MB, GB, TB (powers of 1000), KiB, MiB, GiB, TiB (powers of 1024); a fraction is allowed before a unit ("1.5GiB"), one space too.
// Failure: std::invalid_argument naming argument, value and limit.
#pragma once

#include <cstdint>
#include <string>

namespace reprise {

struct Budget {
  int64_t bytes = 0;   // > 0, or 0 when percent is set
  double percent = 0;  // (0, 100] of the device, or 0

  static Budget parse(const std::string& text);
  static Budget of_bytes(int64_t bytes);
  int64_t resolve(int64_t device_bytes) const;  // bytes on a device of that size
};

}  // namespace reprise
