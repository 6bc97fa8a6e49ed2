#include "common/cuda/map_reduce_host.h"

#include <cstdint>

namespace gan_fast::cuda {

namespace {

// Up to here one block is done before a second one would have paid for the exchange of partial sums.
constexpr long long kOneBlockElements = 4096;

}  // namespace

Partition partition(const long long* n, int count, int packet, int max_blocks, bool may_be_one_block) {
  Partition p{};
  long long elements = 0, wanted = 0;
  int busy = 0;
  long long blocks[kMaxSegments];
  for (int k = 0; k < count; ++k) {
    elements += n[k];
    busy += n[k] > 0;
    const long long per_block = static_cast<long long>(kThreads) * packet;
    blocks[k] = (n[k] + per_block - 1) / per_block;
    wanted += blocks[k];
  }
  if (may_be_one_block && elements <= kOneBlockElements && busy <= kWarps) {
    p.warp_units = true;
    p.blocks = 1;
    int warps[kMaxSegments];
    int left = kWarps - busy;
    for (int k = 0; k < count; ++k) {
      warps[k] = n[k] > 0;
    }
    // Each further warp goes to the segment whose warps have most to do.
    for (; left > 0 && busy > 0; --left) {
      int most = -1;
      for (int k = 0; k < count; ++k) {
        if (n[k] > 0 && (most < 0 || n[k] * warps[most] > n[most] * warps[k])) {
          most = k;
        }
      }
      ++warps[most];
    }
    for (int k = 0, end = 0; k < count; ++k) {
      p.unit_end[k] = end += warps[k];
    }
    return p;
  }
  long long end = 0;
  for (int k = 0; k < count; ++k) {
    if (wanted > max_blocks && blocks[k] > 0) {
      const double share = static_cast<double>(blocks[k]) / static_cast<double>(wanted);
      blocks[k] = std::max<long long>(1, static_cast<long long>(share * max_blocks));
    }
    end += blocks[k];
    p.unit_end[k] = static_cast<int>(end);
  }
  p.blocks = static_cast<unsigned>(end);
  return p;
}

bool moves_packets(const Segment& s, int packet) {
  std::uintptr_t all = 0;
  for (const void* pointer : {s.x, s.y, s.p, s.c, static_cast<const void*>(s.value), static_cast<const void*>(s.grad),
                              static_cast<const void*>(s.grad2), s.inner == 1 ? s.w : nullptr}) {
    all |= reinterpret_cast<std::uintptr_t>(pointer);
  }
  return all % 16 == 0 && (s.w == nullptr || s.inner == 1 || s.inner % packet == 0);
}

}  // namespace gan_fast::cuda
