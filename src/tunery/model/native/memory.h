// Memory of our own: on large pages where the system has them, and given back when it is let go of.

#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <new>
#include <utility>

namespace tunery {

constexpr int64_t kPage = 4096, kLargePage = 2 << 20;

// Zeros, from the start of a large page on. What is read once a step is spread over so much memory that
// pages of 4096 bytes would have the processor look nearly each of them up.
class Memory {
 public:
  Memory() = default;
  explicit Memory(int64_t bytes) : size_((bytes + kPage - 1) / kPage * kPage) {
    const int64_t reserved = size_ + kLargePage;
    void* const got = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) throw std::bad_alloc();
    uint8_t* const start = static_cast<uint8_t*>(got);
    const int64_t before = -reinterpret_cast<intptr_t>(start) & (kLargePage - 1);
    at_ = start + before;
    if (before) munmap(start, before);
    if (before < kLargePage) munmap(at_ + size_, kLargePage - before);
    if (const int64_t large = size_ / kLargePage * kLargePage) madvise(at_, large, MADV_HUGEPAGE);
  }
  Memory(Memory&& other) noexcept { swap(other); }
  Memory& operator=(Memory&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Memory() {
    if (at_) munmap(at_, size_);
  }

  uint8_t* data() const { return at_; }

 private:
  void swap(Memory& other) {
    std::swap(at_, other.at_);
    std::swap(size_, other.size_);
  }
  uint8_t* at_ = nullptr;
  int64_t size_ = 0;
};

}  // namespace tunery
