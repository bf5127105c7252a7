#include "profiler/json_document.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace reprise {
namespace {

using nlohmann::json;

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  return text.size() <= 40 ? text : text.substr(0, 40) + "…";
}

std::string checksum(const std::string& text) {
  uint64_t hash = 14695981039346656037ULL;
  for (unsigned char c : text) hash = (hash ^ c) * 1099511628211ULL;
  static const char* digits = "0123456789abcdef";
  std::string out(16, '0');
  for (size_t i = 16; i-- > 0; hash >>= 4) out[i] = digits[hash & 15];
  return out;
}

}  // namespace

void JsonField::fail(const std::string& what) const { throw std::invalid_argument(kind_ + " JSON: " + (path_.empty() ? "document" : path_) + ": " + what); }

JsonField JsonField::field(const char* name) const {
  if (!value_.is_object()) fail(shown(value_) + " is not an object");
  const auto it = value_.find(name);
  const std::string path = path_.empty() ? name : path_ + "." + name;
  if (it == value_.end()) JsonField(value_, kind_, path).fail("is missing");
  return JsonField(*it, kind_, path);
}

void JsonField::only(std::initializer_list<const char*> names) const {
  if (!value_.is_object()) fail(shown(value_) + " is not an object");
  for (const auto& [name, _] : value_.items())
    if (std::none_of(names.begin(), names.end(), [&n = name](const char* allowed) { return n == allowed; })) fail("\"" + name + "\" is not a field");
}

int64_t JsonField::integer(int64_t low, int64_t high) const {
  if (!value_.is_number_integer()) fail(shown(value_) + " is not an integer");
  const bool too_big = value_.is_number_unsigned() && value_.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX);
  if (too_big || value_.get<int64_t>() > high) fail(shown(value_) + " is above " + std::to_string(high));
  if (value_.get<int64_t>() < low) fail(shown(value_) + " is below " + std::to_string(low));
  return value_.get<int64_t>();
}

uint64_t JsonField::unsigned_integer() const {
  if (!value_.is_number_unsigned()) fail(shown(value_) + " is not an unsigned integer");
  return value_.get<uint64_t>();
}

double JsonField::number(double low, double high) const {
  if (!value_.is_number()) fail(shown(value_) + " is not a number");
  const double x = value_.get<double>();
  if (!(x >= low)) fail(shown(value_) + " is below " + shown(json(low)));
  if (!(x <= high)) fail(shown(value_) + " is above " + shown(json(high)));
  return x;
}

bool JsonField::boolean() const {
  if (!value_.is_boolean()) fail(shown(value_) + " is not true or false");
  return value_.get<bool>();
}

std::string JsonField::text(size_t max_bytes) const {
  if (!value_.is_string()) fail(shown(value_) + " is not a text");
  const auto& s = value_.get_ref<const std::string&>();
  if (s.size() > max_bytes) fail(std::to_string(s.size()) + " bytes of text, the limit is " + std::to_string(max_bytes));
  return s;
}

size_t JsonField::one_of(std::span<const char* const> names) const {
  std::string all;
  for (size_t i = 0; i < names.size(); i++) {
    if (value_.is_string() && value_.get_ref<const std::string&>() == names[i]) return i;
    all += (i == 0 ? "" : ", ") + std::string(names[i]);
  }
  fail(shown(value_) + " is none of " + all);
}

std::vector<JsonField> JsonField::list(size_t max_entries) const {
  if (!value_.is_array()) fail(shown(value_) + " is not a list");
  if (value_.size() > max_entries) fail(std::to_string(value_.size()) + " entries, the limit is " + std::to_string(max_entries));
  std::vector<JsonField> out;
  for (size_t i = 0; i < value_.size(); i++) out.emplace_back(value_[i], kind_, path_ + "[" + std::to_string(i) + "]");
  return out;
}

std::vector<int32_t> JsonField::indices(size_t max_entries, int64_t end) const {
  std::vector<int32_t> out;
  for (const JsonField& f : list(max_entries)) out.push_back(static_cast<int32_t>(f.integer(0, end - 1)));
  return out;
}

std::string write_document(const std::string& kind, int32_t version, const json& body) {
  const std::string text = body.dump();
  return "{\"reprise\":" + json(kind).dump() + ",\"version\":" + std::to_string(version) + ",\"checksum\":\"" + checksum(text) + "\",\"body\":" + text + "}\n";
}

json read_document(const std::string& kind, int32_t version, const std::string& text) {
  const json nothing;
  const JsonField whole(nothing, kind, "");
  if (text.size() > kMaxDocumentBytes) whole.fail(std::to_string(text.size()) + " bytes, the limit is " + std::to_string(kMaxDocumentBytes));
  json document;
  try {
    document = json::parse(text, [&](int depth, json::parse_event_t, json&) {
      if (depth > static_cast<int>(kMaxDocumentDepth)) whole.fail("nested deeper than " + std::to_string(kMaxDocumentDepth));
      return true;
    });
  } catch (const json::exception&) {
    whole.fail("not valid JSON, or cut short, at " + std::to_string(text.size()) + " bytes");
  }
  const JsonField root(document, kind, "");
  root.only({"reprise", "version", "checksum", "body"});
  if (const std::string found = root.field("reprise").text(64); found != kind) root.field("reprise").fail("\"" + found + "\", expected \"" + kind + "\"");
  if (const int64_t found = root.field("version").integer(0, INT32_MAX); found != version)
    root.field("version").fail(std::to_string(found) + ", this build reads " + std::to_string(version));
  const std::string stated = root.field("checksum").text(16),
                    computed = checksum(document.value("body", json()).dump(-1, ' ', false, json::error_handler_t::replace));
  static_cast<void>(root.field("body"));
  if (stated != computed) root.field("checksum").fail("\"" + stated + "\", the body's is \"" + computed + "\"");
  return document["body"];
}

}  // namespace reprise
