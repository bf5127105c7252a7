#include "integration/torch/operator_facts.hpp"

#include <ATen/core/enum_tag.h>

#include <algorithm>
#include <array>
#include <memory>
#include <string_view>
#include <unordered_map>

namespace reprise::engine {
namespace {

template <size_t N>
bool contains(const std::string_view (&list)[N], std::string_view name) {
  for (auto item : list)
    if (item == name) return true;
  return false;
}

constexpr std::string_view kUninitialised[] = {"aten::empty",     "aten::empty_like",        "aten::empty_strided",  "aten::empty_permuted",
                                               "aten::new_empty", "aten::new_empty_strided", "aten::empty_quantized"};
constexpr std::string_view kMetadataOnly[] = {"aten::empty_like", "aten::new_empty", "aten::new_empty_strided", "aten::zeros_like", "aten::ones_like",
                                              "aten::full_like",  "aten::new_zeros", "aten::new_ones",          "aten::new_full"};
constexpr std::string_view kOverwriters[] = {"aten::fill_",      "aten::zero_",   "aten::copy_",       "aten::bernoulli_",
                                             "aten::uniform_",   "aten::normal_", "aten::random_",     "aten::exponential_",
                                             "aten::geometric_", "aten::cauchy_", "aten::log_normal_", "aten::_foreach_copy_"};
// Change which memory a tensor shows, read values into Python, or otherwise mean more than their results.
constexpr std::string_view kSideEffects[] = {"aten::set_",          "aten::resize_",     "aten::resize_as_", "aten::_resize_output_",
                                             "aten::record_stream", "aten::_pin_memory", "aten::pin_memory", "aten::_local_scalar_dense",
                                             "aten::_cslt_compress"};
// Their results hold bytes that nobody sets (oneDNN's RNN workspace): two runs differ there, so they cannot be compared and are kept.
constexpr std::string_view kUndefinedBytes[] = {"aten::mkldnn_rnn_layer"};
constexpr std::string_view kReceivers[] = {"_c10d_functional::irecv", "_c10d_functional::batch_p2p_ops"};  // the two of their kind that write
constexpr std::string_view kHiddenWriters[] = {"aten::native_batch_norm", "aten::cudnn_batch_norm", "aten::miopen_batch_norm", "aten::_native_batch_norm_legit",
                                               "aten::_batch_norm_with_update"};
constexpr std::string_view kRandomByProbability[] = {"aten::_scaled_dot_product_flash_attention_for_cpu", "aten::_scaled_dot_product_flash_attention",
                                                     "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention",
                                                     "aten::_scaled_dot_product_attention_math"};

bool is_communication(std::string_view name) { return name.starts_with("c10d::") || name.starts_with("fsdp::") || name.starts_with("_c10d_functional"); }

bool holds_tensors(const c10::Type& type) {
  if (type.kind() == c10::TypeKind::ListType) return holds_tensors(*type.castRaw<c10::ListType>()->getElementType());
  return type.kind() == c10::TypeKind::TensorType;
}

// c10d and FSDP declare few of the arguments that they write. Where they declare none, each tensor not called an input counts as written.
void find_undeclared_writes(const c10::FunctionSchema& schema, OperatorFacts& facts) {
  const bool functional = facts.name.starts_with("_c10d_functional") && !contains(kReceivers, facts.name);
  if (facts.mutates || !facts.communicates || functional) return;
  for (size_t i = 0; i < facts.writes.size(); i++) {
    const auto& argument = schema.arguments()[i];
    if (holds_tensors(*argument.type()) && argument.name().find("input") == std::string::npos) facts.writes[i] = 1;
    facts.mutates |= facts.writes[i] != 0;
  }
}

bool known_namespace(std::string_view name) { return name.starts_with("aten::") || name.starts_with("torchvision::"); }

void look_at_arguments(const c10::FunctionSchema& schema, OperatorFacts& facts) {
  const auto& arguments = schema.arguments();
  facts.writes.assign(arguments.size(), 0);
  for (size_t i = 0; i < arguments.size(); i++) {
    const auto* alias = arguments[i].alias_info();
    if (alias && alias->isWrite()) facts.writes[i] = 1;
    if (arguments[i].name() == "generator") facts.generator_argument = static_cast<int>(i);
    if (arguments[i].name() == "training") facts.training_argument = static_cast<int>(i);
    if (arguments[i].name() == "dropout_p") facts.probability_argument = static_cast<int>(i);
  }
  if (contains(kHiddenWriters, facts.name))
    for (size_t i : {size_t{3}, size_t{4}})
      if (i < facts.writes.size()) facts.writes[i] = 2;
  for (uint8_t w : facts.writes) {
    facts.mutates |= w != 0;
    facts.hides_writes |= w == 2;
  }
}

// By name: whatever may multiply matrices asks (solvers too: on CUDA they go through the same handle), and only convolutions, recurrent layers and what hides
// several of those ask for other precisions as well.
PrecisionRead precision_read(std::string_view name, bool elementwise) {
  constexpr std::string_view kProducts[] = {"mm",     "matmul", "dot",    "mv",    "addr",     "linear",  "cdist",
                                            "affine", "matrix", "linalg", "solve", "cholesky", "inverse", "qr"};
  constexpr std::string_view kSeveral[] = {"conv", "rnn", "lstm", "gru", "attention", "transformer", "mkldnn", "cudnn", "miopen"};
  const auto names_one_of = [&](const auto& words) {
    return std::any_of(std::begin(words), std::end(words), [&](std::string_view word) { return name.find(word) != std::string_view::npos; });
  };
  if (elementwise) return PrecisionRead::kNone;
  if (!name.starts_with("aten::") || names_one_of(kSeveral)) return PrecisionRead::kAny;
  return names_one_of(kProducts) ? PrecisionRead::kMatrixProducts : PrecisionRead::kNone;
}

OperatorFacts find_facts(const c10::OperatorHandle& op) {
  const c10::FunctionSchema& schema = op.schema();
  OperatorFacts facts;
  facts.name = schema.name();
  facts.hash = std::hash<std::string>{}(schema.name() + "." + schema.overload_name());
  look_at_arguments(schema, facts);
  facts.communicates = is_communication(facts.name);
  find_undeclared_writes(schema, facts);
  facts.only_views = !facts.mutates && !schema.returns().empty();
  for (const auto& result : schema.returns()) facts.only_views &= result.alias_info() != nullptr;
  facts.precision = precision_read(facts.name, op.hasTag(at::Tag::pointwise));
  facts.random = op.hasTag(at::Tag::nondeterministic_seeded);
  if (!contains(kRandomByProbability, facts.name)) facts.probability_argument = -1;
  facts.makes_uninitialised = contains(kUninitialised, facts.name);
  facts.metadata_only = contains(kMetadataOnly, facts.name);
  facts.overwrites_first = contains(kOverwriters, facts.name);
  if (facts.communicates) facts.opaque_reason = "communication between processes";
  else if (!known_namespace(facts.name)) facts.opaque_reason = "operator outside torch's own namespaces";
  else if (contains(kUndefinedBytes, facts.name)) facts.opaque_reason = "operator whose results hold undefined bytes";
  else if (contains(kSideEffects, facts.name)) facts.opaque_reason = "operator with an effect besides its results";
  return facts;
}

}  // namespace

const OperatorFacts& facts_of(const c10::OperatorHandle& op) {
  // Facts are never freed: recorded Ops point to them and may outlive the thread that found them.
  thread_local std::unordered_map<const void*, const OperatorFacts*> cache;
  thread_local std::array<std::pair<const void*, const OperatorFacts*>, 256> recent{};  // in front of it: most programs use fewer operators
  const void* const key = &op.schema();
  auto& [recent_key, recent_facts] = recent[(reinterpret_cast<uintptr_t>(key) >> 6) % recent.size()];
  if (recent_key == key && recent_facts->name == op.schema().name()) return *recent_facts;
  const OperatorFacts*& slot = cache[key];
  // A library that was unloaded may leave its schema's address to another operator.
  if (!slot || slot->name != op.schema().name()) slot = new OperatorFacts(find_facts(op));
  recent_key = key;
  recent_facts = slot;
  return *slot;
}

}  // namespace reprise::engine
