#include "policy/budget.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

namespace reprise {
namespace {

struct Unit {
  const char* name;
  double bytes;
};

constexpr std::array<Unit, 11> kUnits = {{{"", 1},
                                          {"B", 1},
                                          {"kB", 1e3},
                                          {"KB", 1e3},
                                          {"MB", 1e6},
                                          {"GB", 1e9},
                                          {"TB", 1e12},
                                          {"KiB", 1024.0},
                                          {"MiB", 1048576.0},
                                          {"GiB", 1073741824.0},
                                          {"TiB", 1099511627776.0}}};

[[noreturn]] void fail(const std::string& text, const std::string& why) { throw std::invalid_argument("budget: \"" + text + "\" " + why); }

// Length of the number at the start: digits with at most one point.
size_t number_length(const std::string& text) {
  size_t i = text[0] == '-' || text[0] == '+' ? 1 : 0, digits = 0;
  for (bool point = false; i < text.size(); i++) {
    if (text[i] == '.' && !point) point = true;
    else if (text[i] >= '0' && text[i] <= '9') digits++;
    else break;
  }
  return digits ? i : 0;
}

}  // namespace

Budget Budget::of_bytes(int64_t bytes) {
  if (bytes < 1) throw std::invalid_argument("budget: " + std::to_string(bytes) + " bytes, must be at least 1");
  return {bytes, 0};
}

Budget Budget::parse(const std::string& text) {
  if (text.empty()) fail(text, "is empty, expected bytes, \"8GiB\" or \"60%\"");
  const size_t n = text.size() > 100 ? 0 : number_length(text);
  if (n == 0) fail(text.substr(0, 100), "is not a number, expected bytes, \"8GiB\" or \"60%\"");
  const double number = std::stod(text.substr(0, n));
  const std::string unit = text.substr(n < text.size() && text[n] == ' ' ? n + 1 : n);
  if (unit == "%") {
    if (!(number > 0)) fail(text, "must be above 0 %");
    if (number > 100) fail(text, "is above 100 %");
    return {0, number};
  }
  for (const Unit& u : kUnits) {
    if (unit != u.name) continue;
    if (number * u.bytes < 1) fail(text, "must be at least 1 byte");
    if (number * u.bytes >= 9.2e18) fail(text, "is above " + std::to_string(std::numeric_limits<int64_t>::max()) + " bytes");
    if (u.bytes <= 1 && number != std::floor(number)) fail(text, "is not a whole number of bytes");
    const bool whole = text.find('.') == std::string::npos;
    return {whole ? static_cast<int64_t>(std::stoll(text.substr(0, n))) * static_cast<int64_t>(u.bytes) : static_cast<int64_t>(number * u.bytes), 0};
  }
  fail(text, "has the unknown unit \"" + unit + "\", expected B, KB, MB, GB, TB, KiB, MiB, GiB, TiB or %");
}

int64_t Budget::resolve(int64_t device_bytes) const {
  if (device_bytes < 1) throw std::invalid_argument("budget: device_bytes is " + std::to_string(device_bytes) + ", must be at least 1");
  return percent > 0 ? static_cast<int64_t>(static_cast<double>(device_bytes) * percent / 100) : bytes;
}

}  // namespace reprise
