#include "allocator/arena.hpp"

#include <algorithm>
#include <bit>
#include <cstdlib>

namespace reprise {

void Arena::Free::operator()(std::uint64_t* words) const { std::free(words); }

Arena::Arena(Device& device, std::size_t wanted_bytes)
    : device_(device), page_bytes_(device.page_bytes()), page_shift_(static_cast<unsigned>(std::countr_zero(page_bytes_))) {
  std::size_t bytes = (wanted_bytes + page_bytes_ - 1) & ~(page_bytes_ - 1);
  for (; bytes >= page_bytes_; bytes = (bytes / 2) & ~(page_bytes_ - 1)) {
    ++device_calls_;
    base_ = device_.reserve(bytes);
    if (base_ != nullptr) break;
    ++device_failures_;
  }
  if (base_ == nullptr) return;
  words_count_ = (bytes >> page_shift_) / 64 + 1;
  // calloc, not a vector: the pages of a bitmap that is never used are never touched
  words_.reset(static_cast<std::uint64_t*>(std::calloc(words_count_, sizeof(std::uint64_t))));
  if (words_ != nullptr) {
    bytes_ = bytes;
  } else {
    device_.release(base_, bytes);
    base_ = nullptr;
  }
}

Arena::~Arena() {
  if (base_ != nullptr) device_.release(base_, bytes_);
}

PageRange Arena::touching(std::size_t offset, std::size_t bytes) const { return {offset >> page_shift_, (offset + bytes + page_bytes_ - 1) >> page_shift_}; }

PageRange Arena::inside(std::size_t offset, std::size_t bytes) const {
  const std::size_t first = (offset + page_bytes_ - 1) >> page_shift_;
  return {first, std::max(first, (offset + bytes) >> page_shift_)};
}

std::size_t Arena::committed_in(PageRange pages) const {
  std::size_t count = 0;
  const std::size_t last = std::min(pages.last, highest_page_);
  for (std::size_t page = pages.first; page < last;) {
    const std::size_t in_word = std::min<std::size_t>(64 - (page & 63), last - page);
    const std::uint64_t mask = in_word == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << in_word) - 1) << (page & 63);
    count += static_cast<std::size_t>(std::popcount(words_[page >> 6] & mask));
    page += in_word;
  }
  return count;
}

std::size_t Arena::last_committed(PageRange pages) const {
  std::size_t page = std::max(pages.first, std::min(pages.last, highest_page_));
  while (page > pages.first && !bit(page - 1)) page = run_start(page - 1, pages.first);
  return page;
}

PageRange Arena::committed_run(PageRange pages, std::size_t from) const {
  const std::size_t last = std::min(pages.last, highest_page_);
  if (from < last && !bit(from)) from = run_end(from, last);
  return from < last ? PageRange{from, run_end(from, last)} : PageRange{pages.last, pages.last};
}

// The end of the run that starts at `page`, at most `last`.
std::size_t Arena::run_end(std::size_t page, std::size_t last) const {
  const bool value = bit(page);
  while (page < last) {
    const std::uint64_t differing = (value ? ~words_[page >> 6] : words_[page >> 6]) >> (page & 63);
    if (differing != 0) return std::min(last, page + static_cast<std::size_t>(std::countr_zero(differing)));
    page = (page | 63) + 1;
  }
  return last;
}

// The start of the run that `page` is in, at least `first`.
std::size_t Arena::run_start(std::size_t page, std::size_t first) const {
  const bool value = bit(page);
  while (page > first) {
    const std::size_t last = page - 1;  // look at the pages of last's word up to `last`, moved to the top of the word
    const std::uint64_t word = value ? ~words_[last >> 6] : words_[last >> 6];
    const std::uint64_t differing = word << (63 - (last & 63));
    if (differing != 0) return std::max(first, page - static_cast<std::size_t>(std::countl_zero(differing)));
    page = last & ~std::size_t{63};
  }
  return first;
}

void Arena::set_bits(PageRange pages, bool value) {
  for (std::size_t page = pages.first; page < pages.last;) {
    const std::size_t in_word = std::min<std::size_t>(64 - (page & 63), pages.last - page);
    const std::uint64_t mask = in_word == 64 ? ~std::uint64_t{0} : ((std::uint64_t{1} << in_word) - 1) << (page & 63);
    if (value) {
      words_[page >> 6] |= mask;
    } else {
      words_[page >> 6] &= ~mask;
    }
    page += in_word;
  }
}

std::size_t Arena::over_cap_by(PageRange pages) const {
  const std::size_t wanted = uncommitted_in(pages) << page_shift_;
  const std::size_t room = cap_bytes_ - std::min(cap_bytes_, reserved_bytes_);
  return wanted > room ? wanted - room : 0;
}

CommitResult Arena::commit(PageRange pages) {
  if (over_cap_by(pages) != 0) return CommitResult::kOverCap;
  for (std::size_t page = pages.first; page < pages.last;) {
    const std::size_t end = run_end(page, pages.last);
    if (!bit(page)) {
      const std::size_t bytes = (end - page) << page_shift_;
      ++device_calls_;
      if (!device_.commit(base_ + (page << page_shift_), bytes)) {
        ++device_failures_;
        return CommitResult::kDeviceFailed;
      }
      set_bits({page, end}, true);
      highest_page_ = std::max(highest_page_, end);
      reserved_bytes_ += bytes;
      peak_reserved_bytes_ = std::max(peak_reserved_bytes_, reserved_bytes_);
    }
    page = end;
  }
  return CommitResult::kDone;
}

std::size_t Arena::decommit(PageRange pages, std::size_t limit) {
  std::size_t given_back = 0;
  for (std::size_t page = last_committed(pages); page > pages.first && given_back < limit; page = last_committed({pages.first, page})) {
    const std::size_t start = std::max(run_start(page - 1, pages.first), page - std::min(page, limit - given_back));
    const std::size_t bytes = (page - start) << page_shift_;
    ++device_calls_;
    if (device_.decommit(base_ + (start << page_shift_), bytes)) {
      set_bits({start, page}, false);
      reserved_bytes_ -= bytes;
      given_back += page - start;
    } else {
      ++device_failures_;
    }
    page = start;
  }
  return given_back;
}

std::size_t Arena::recount() const { return committed_in({0, bytes_ >> page_shift_}) << page_shift_; }

}  // namespace reprise
