#include <limits>

#include "profiler/json_document.hpp"
#include "profiler/profile.hpp"

namespace reprise {
namespace {

using nlohmann::json;

constexpr int64_t kMaxBytes = int64_t{1} << 50;
constexpr double kMaxSeconds = 1e9;
constexpr size_t kMaxEntries = 4'000'000;
constexpr int64_t kMaxIndex = std::numeric_limits<int32_t>::max();

json op_json(const ProfileData& d, size_t i) {
  const ProfileOp& o = d.ops[i];
  return {{"name", o.name},
          {"reads", o.reads},
          {"forward_seconds", o.forward_seconds},
          {"replay_seconds", o.replay_seconds},
          {"flops", o.flops},
          {"gradient_flops", o.gradient_flops},
          {"rise_bytes", o.rise_bytes},
          {"signature", o.signature},
          {"region", o.region},
          {"replayable", o.replayable},
          {"samples", d.samples[i]},
          {"replay_samples", d.replay_samples[i]}};
}

std::vector<float> read_samples(const JsonField& f) {
  std::vector<float> out;
  for (const JsonField& s : f.list(Profile::kMaxSamples)) out.push_back(static_cast<float>(s.number(0, kMaxSeconds)));
  return out;
}

void read_op(const JsonField& f, ProfileData& d, int64_t values) {
  f.only({"name", "reads", "forward_seconds", "replay_seconds", "flops", "gradient_flops", "rise_bytes", "signature", "region", "replayable", "samples",
          "replay_samples"});
  ProfileOp o;
  o.name = f.field("name").text(1000);
  o.reads = f.field("reads").indices(kMaxEntries, values);
  o.forward_seconds = f.field("forward_seconds").number(0, kMaxSeconds);
  o.replay_seconds = f.field("replay_seconds").number(0, kMaxSeconds);
  o.flops = f.field("flops").integer(0, std::numeric_limits<int64_t>::max());
  o.gradient_flops = f.field("gradient_flops").integer(0, std::numeric_limits<int64_t>::max());
  o.rise_bytes = f.field("rise_bytes").integer(0, kMaxBytes);
  o.signature = f.field("signature").unsigned_integer();
  o.region = static_cast<int32_t>(f.field("region").integer(0, static_cast<int64_t>(d.regions.size()) - 1));
  o.replayable = f.field("replayable").boolean();
  d.samples.push_back(read_samples(f.field("samples")));
  d.replay_samples.push_back(read_samples(f.field("replay_samples")));
  d.ops.push_back(std::move(o));
}

json packed_json(const PackingFacts& p) {
  return {{"form", name_of(p.form)}, {"bytes", p.bytes}, {"pack_seconds", p.pack_seconds}, {"unpack_seconds", p.unpack_seconds}};
}

PackingFacts read_packed(const JsonField& f) {
  f.only({"form", "bytes", "pack_seconds", "unpack_seconds"});
  PackingFacts p;
  p.form = static_cast<Packing>(f.field("form").one_of(kPackingNames));
  p.bytes = f.field("bytes").integer(0, kMaxBytes);
  p.pack_seconds = f.field("pack_seconds").number(0, kMaxSeconds);
  p.unpack_seconds = f.field("unpack_seconds").number(0, kMaxSeconds);
  return p;
}

void read_value(const JsonField& f, ProfileData& d, int64_t ops) {
  f.only({"trace_value", "bytes", "makers", "saved", "must_keep", "reason", "packed"});
  ProfileValue v;
  v.trace_value = static_cast<int32_t>(f.field("trace_value").integer(0, d.trace_values - 1));
  v.bytes = f.field("bytes").integer(0, kMaxBytes);
  v.makers = f.field("makers").indices(kMaxEntries, ops);
  v.saved = f.field("saved").boolean();
  v.must_keep = f.field("must_keep").boolean();
  v.reason = f.field("reason").text(1000);
  v.packed = read_packed(f.field("packed"));
  d.values.push_back(std::move(v));
}

void read_steps(const JsonField& f, ProfileData& d) {
  const auto fields = f.list(2 * kMaxEntries);
  if (fields.size() % 2) f.fail(std::to_string(fields.size()) + " entries, must be even");
  for (size_t i = 0; i < fields.size(); i += 2) {
    const auto kind = static_cast<StepKind>(fields[i].integer(0, static_cast<int64_t>(StepKind::kForwardEnd)));
    d.steps.push_back({kind, static_cast<int32_t>(fields[i + 1].integer(0, kMaxIndex))});
  }
}

}  // namespace

std::string Profile::to_json() const {
  json ops = json::array(), values = json::array(), steps = json::array();
  for (size_t i = 0; i < data_.ops.size(); i++) ops.push_back(op_json(data_, i));
  for (const ProfileValue& v : data_.values)
    values.push_back({{"trace_value", v.trace_value},
                      {"bytes", v.bytes},
                      {"makers", v.makers},
                      {"saved", v.saved},
                      {"must_keep", v.must_keep},
                      {"reason", v.reason},
                      {"packed", packed_json(v.packed)}});
  for (const Step& s : data_.steps) {
    steps.push_back(static_cast<int>(s.kind));
    steps.push_back(s.id);
  }
  return write_document("Profile", kVersion,
                        {{"trace_signature", data_.trace_signature},
                         {"trace_values", data_.trace_values},
                         {"ops", ops},
                         {"values", values},
                         {"buffers", data_.buffers},
                         {"outside_buffers", data_.outside_buffers},
                         {"steps", steps},
                         {"regions", data_.regions},
                         {"start_live_bytes", data_.start_live_bytes},
                         {"pass_seconds", data_.pass_seconds},
                         {"threads", data_.threads},
                         {"passes", data_.passes}});
}

Profile Profile::from_json(const std::string& text) {
  const json body = read_document("Profile", kVersion, text);
  const JsonField f(body, "Profile", "body");
  f.only({"trace_signature", "trace_values", "ops", "values", "buffers", "outside_buffers", "steps", "regions", "start_live_bytes", "pass_seconds", "threads",
          "passes"});
  ProfileData d;
  d.trace_signature = f.field("trace_signature").unsigned_integer();
  d.trace_values = static_cast<int32_t>(f.field("trace_values").integer(0, kMaxIndex));
  d.regions.clear();
  for (const JsonField& r : f.field("regions").list(kMaxEntries)) d.regions.push_back(r.text(4000));
  const auto ops = f.field("ops").list(kMaxEntries), values = f.field("values").list(kMaxEntries);
  for (const JsonField& o : ops) read_op(o, d, static_cast<int64_t>(values.size()));
  for (const JsonField& v : values) read_value(v, d, static_cast<int64_t>(ops.size()));
  for (const JsonField& b : f.field("buffers").list(kMaxEntries)) d.buffers.push_back(b.integer(0, kMaxBytes));
  d.outside_buffers = static_cast<int32_t>(f.field("outside_buffers").integer(0, static_cast<int64_t>(d.buffers.size())));
  read_steps(f.field("steps"), d);
  d.start_live_bytes = f.field("start_live_bytes").integer(0, kMaxBytes);
  d.pass_seconds = f.field("pass_seconds").number(0, kMaxSeconds);
  d.threads = static_cast<int32_t>(f.field("threads").integer(1, 1 << 20));
  d.passes = static_cast<int32_t>(f.field("passes").integer(1, kMaxIndex));
  return Profile(std::move(d));
}

}  // namespace reprise
