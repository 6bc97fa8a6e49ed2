// Large results on the CPU: fresh memory is paid for at its first touch, a page fault and a page of zeros at a time, which
// for 4 KB pages costs more than writing it. glibc maps blocks of 32 MB and more afresh every time and returns them when
// they are freed, so such a block is asked for in pages of 2 MB where the system grants them on advice (Linux,
// transparent_hugepage "madvise"; with "always" it has them already, with "never" nothing happens).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace gan_fast {

// For memory that nobody has touched yet.
inline void advise_huge_pages([[maybe_unused]] void* memory, [[maybe_unused]] std::size_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t kPage = 4096;
  const auto begin = reinterpret_cast<std::uintptr_t>(memory);
  const std::uintptr_t first = (begin + kPage - 1) / kPage * kPage, last = (begin + bytes) / kPage * kPage;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);  // advice: where it is refused all stays as it was
#endif
}

// For a result that nobody has written yet; changes no value.
inline Tensor in_huge_pages(Tensor fresh) {
  constexpr std::size_t kMapped = std::size_t{32} << 20;
  if (fresh.device().is_cpu() && fresh.has_storage() && fresh.nbytes() >= kMapped) {
    advise_huge_pages(const_cast<void*>(fresh.const_data_ptr()), fresh.nbytes());
  }
  return fresh;
}

}  // namespace gan_fast
