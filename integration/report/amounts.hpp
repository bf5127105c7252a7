// Byte counts in words, for reports and errors.
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>

namespace reprise {

inline std::string mebibytes(int64_t bytes) {  // "1.5 MiB"
  char text[48];
  std::snprintf(text, sizeof text, "%.1f MiB", double(bytes) / 1048576.0);
  return text;
}

inline std::string exact_bytes(int64_t bytes) { return std::to_string(bytes) + " bytes (" + mebibytes(bytes) + ")"; }  // "1572864 bytes (1.5 MiB)"

}  // namespace reprise
