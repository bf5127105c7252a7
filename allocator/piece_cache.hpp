// PieceCache: a few recently freed pieces of each exact size, not joined with their neighbours, so that asking for that size again is a pop.
//
// Words. Stack: the pieces of one size. Sizes share stacks by a hash; the size freed last has it.
//
// C1: a stack holds at most kDepth pieces, all of the stack's size, of stream 0, used in the heap's eyes, but not requested
//
// Threads: under the allocator's lock. Cost: one cache line. Failure: none; what does not fit is simply not kept.
#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace reprise {

struct Piece;

class PieceCache {
 public:
  static constexpr std::size_t kDepth = 6;
  struct alignas(64) Stack {
    std::size_t bytes = 0;  // 0: nobody's
    std::size_t count = 0;
    std::array<Piece*, kDepth> pieces{};
  };

  PieceCache() { claimed_.reserve(stacks_.size()); }

  Stack& stack_for(std::size_t bytes) noexcept { return stacks_[index_of(bytes)]; }
  const Stack& stack_for(std::size_t bytes) const noexcept { return stacks_[index_of(bytes)]; }

  // The stack of that size; what another size left there goes to `give`.
  template <class Give>
  Stack& claimed(std::size_t bytes, Give&& give) {
    Stack& stack = stack_for(bytes);
    if (stack.bytes == bytes) return stack;
    empty(stack, give);
    if (stack.bytes == 0) claimed_.push_back(&stack);  // room was reserved
    stack.bytes = bytes;
    return stack;
  }
  template <class Give>
  bool empty_all(Give&& give) {  // true: there was something
    bool any = false;
    for (Stack* stack : claimed_) {
      any |= empty(*stack, give);
      stack->bytes = 0;
    }
    claimed_.clear();
    return any;
  }
  template <class Visit>
  void visit(Visit&& visit_piece) const {  // (piece, bytes its stack is for)
    for (const Stack& stack : stacks_) {
      for (std::size_t i = 0; i < stack.count; ++i) visit_piece(*stack.pieces[i], stack.bytes);
    }
  }

 private:
  static constexpr unsigned kIndexBits = 8;
  static std::size_t index_of(std::size_t bytes) noexcept { return (bytes * 0x9E3779B97F4A7C15u) >> (64 - kIndexBits); }
  template <class Give>
  static bool empty(Stack& stack, Give& give) {
    const bool any = stack.count != 0;
    while (stack.count != 0) give(stack.pieces[--stack.count]);
    return any;
  }

  std::array<Stack, std::size_t{1} << kIndexBits> stacks_{};
  std::vector<Stack*> claimed_;  // those with a size
};

}  // namespace reprise
