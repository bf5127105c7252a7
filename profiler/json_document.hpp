// One envelope and one strict, bounded reader for every JSON that the project writes:
//   {"reprise": kind, "version": n, "checksum": "16 hex digits", "body": {…}}   checksum = FNV-1a, 64 bits, of the body written without spaces
// Failure: std::invalid_argument "<kind> JSON: <field>: <value>, <limit>"; nothing is taken that was not asked for, nothing missing is guessed.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

namespace reprise {

// A place in a document, with its path for messages. Refers to the json it was made from.
class JsonField {
 public:
  JsonField(const nlohmann::json& value, std::string kind, std::string path) : value_(value), kind_(std::move(kind)), path_(std::move(path)) {}

  JsonField field(const char* name) const;                    // "is missing"
  void only(std::initializer_list<const char*> names) const;  // "is not a field"
  int64_t integer(int64_t low, int64_t high) const;
  uint64_t unsigned_integer() const;
  double number(double low, double high) const;
  bool boolean() const;
  std::string text(size_t max_bytes) const;
  size_t one_of(std::span<const char* const> names) const;  // which of them
  std::vector<JsonField> list(size_t max_entries) const;
  std::vector<int32_t> indices(size_t max_entries, int64_t end) const;  // each in [0, end)
  [[noreturn]] void fail(const std::string& what) const;

 private:
  const nlohmann::json& value_;
  std::string kind_, path_;
};

std::string write_document(const std::string& kind, int32_t version, const nlohmann::json& body);

// Checks size, syntax, envelope, version and checksum; returns the body.
nlohmann::json read_document(const std::string& kind, int32_t version, const std::string& text);

inline constexpr size_t kMaxDocumentBytes = size_t{256} << 20;
inline constexpr size_t kMaxDocumentDepth = 12;

}  // namespace reprise
