// Values held in their packed form: packed when their last maker has run, checked while packing, had again bit for bit.
#include "integration/torch/pass.hpp"

namespace reprise::engine {

// In a Pass that is learned: has the content a shorter form?
void Pass::look_for_packing(int32_t id, const c10::Storage& storage) {
  Value& v = values_[size_t(id)];
  v.packed.reset();
  if (v.producer == kNoOp || !storage.device().is_cpu()) return;
  const PackingFacts facts = find_packing(storage.data(), v.bytes, v.item_bytes);
  if (facts.form == Packing::kNone) return;
  v.packed = std::make_unique<Packed>();
  v.packed->facts = facts;
}

// The program's storage goes when the program lets go of it. A content that does not fit the form is kept whole.
void Pass::pack_value(int32_t id, Packing form, Garbage& garbage) {
  Value& v = values_[size_t(id)];
  const auto content = available(id);
  if (!content || v.uninitialised || !content->device().is_cpu()) return;
  v.packed = std::make_unique<Packed>();
  Packed& packed = *v.packed;
  const int64_t bytes = packed_bytes(form, v.bytes, v.item_bytes);
  note(Mark::kReplayBegin, id);
  if (bytes > 0) {
    packed.content = new_storage(static_cast<size_t>(bytes));
    const double began = thread_cpu_seconds();  // one thread packs, whatever the operators use
    const bool fits = pack(form, content->data(), v.bytes, v.item_bytes, packed.content.mutable_data(), packed.form);
    const double took = thread_cpu_seconds() - began;
    added_seconds_ += took;
    if (fits) packed.facts = {form, bytes, took, 0};
    else packed.content = c10::Storage();
  }
  note(Mark::kReplayEnd, id);
  if (packed.content) {
    counters.packed++;
    counters.packed_away_bytes += v.bytes - bytes;
  } else {
    packed.refused = true;
    counters.pack_refused++;
    hold(id, garbage);
  }
}

c10::Storage Pass::unpack_value(int32_t id) {
  Packed& packed = *values_[size_t(id)].packed;
  c10::Storage content = new_storage(static_cast<size_t>(packed.form.bytes));
  const double began = thread_cpu_seconds();
  unpack(packed.form, packed.content.data(), content.mutable_data());
  packed.facts.unpack_seconds = thread_cpu_seconds() - began;
  counters.unpacked++;
  return content;
}

std::vector<int32_t> Pass::refused_packings() const {
  std::lock_guard<std::mutex> lock(mutex_);
  std::vector<int32_t> out;
  for (size_t i = 0; i < values_.size(); i++)
    if (values_[i].packed && values_[i].packed->refused) out.push_back(static_cast<int32_t>(i));
  return out;
}

}  // namespace reprise::engine
