// Host side of map_reduce.h: splits lists of segments into launches, shares the card between the segments of a launch, and owns the
// memory a reduction needs on the way.
#pragma once

#include <ATen/ops/empty.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/cuda/launcher.h"
#include "common/cuda/map_reduce_arguments.h"
#include "common/host.h"

namespace gan_fast::cuda {

// <prefix>_<dtype>, picked by storage type.
class KernelFamily {
 public:
  KernelFamily(const std::string& op, const std::string& prefix)
      : kernels_{{op, prefix + "_f32"}, {op, prefix + "_f64"}, {op, prefix + "_bf16"}, {op, prefix + "_f16"}} {}
  Kernel& of(at::ScalarType storage) { return kernels_[storage_code(storage)]; }

 private:
  Kernel kernels_[4];
};

struct MapReduceFamilies {
  MapReduceFamilies(const std::string& op, const std::string& prefix)
      : reduce(op, prefix + "_reduce"), reduce_grad(op, prefix + "_reduce_grad"), map(op, prefix + "_map") {}
  KernelFamily reduce, reduce_grad, map;
};

// A segment and what its op adds to it; see SegmentWork.
template <class Numbers>
struct Item {
  Segment segment;
  Numbers numbers;
  double scale = 1;
  int side = 0;
  int other = 0;
  double other_factor = 0;
};

// How a launch is shared: units end at unit_end[k] for segment k.
struct Partition {
  int unit_end[kMaxSegments];
  bool warp_units;
  unsigned blocks;
};

// At most `max_blocks` blocks, or one more for each segment. One block for few elements, where `may_be_one_block`.
Partition partition(const long long* n, int count, int packet, int max_blocks, bool may_be_one_block);

// Whether a kernel may move 16 bytes at a time.
bool moves_packets(const Segment& s, int packet);

struct MapOptions {
  const void* grad_output = nullptr;
  const double* shifts = nullptr;
  const double* offsets = nullptr;
};

struct ReduceOptions : MapOptions {
  void* loss = nullptr;
  void* stats = nullptr;
  double real_count = 0, fake_count = 0;
  double* means = nullptr;
  double* derivatives = nullptr;
};

template <class Numbers>
MapReduceArguments<Numbers> arguments_of(
    const std::vector<Item<Numbers>>& items, size_t first, int count, int packet, const Partition& shares, const MapOptions& options) {
  MapReduceArguments<Numbers> a{};
  a.count = count;
  a.warp_units = shares.warp_units;
  a.grad_output = options.grad_output;
  a.shifts = options.shifts;
  a.offsets = options.offsets;
  for (int k = 0; k < count; ++k) {
    const Item<Numbers>& item = items[first + k];
    a.segment[k] = item.segment;
    a.numbers[k] = item.numbers;
    SegmentWork& work = a.work[k];
    work.scale = item.scale;
    work.inverse_n = 1 / static_cast<double>(item.segment.n);
    work.inverse_inner = 1 / static_cast<double>(item.segment.inner);
    work.other_factor = item.other_factor;
    work.unit_end = shares.unit_end[k];
    work.side = static_cast<short>(item.side);
    work.vector = moves_packets(item.segment, packet);
    work.index = static_cast<int>(first) + k;
    work.other = item.other;
  }
  return a;
}

template <class Numbers>
Partition partition_items(const std::vector<Item<Numbers>>& items, size_t first, int count, int packet, int max_blocks, bool one) {
  long long n[kMaxSegments];
  for (int k = 0; k < count; ++k) {
    n[k] = items[first + k].segment.n;
  }
  return partition(n, count, packet, max_blocks, one);
}

// Writes values or gradients, as the segments ask for.
template <class Numbers>
void run_map(
    KernelFamily& family, c10::Device device, at::ScalarType storage, const std::vector<Item<Numbers>>& items,
    const MapOptions& options) {
  Kernel& kernel = family.of(storage);
  const int packet = 16 / static_cast<int>(c10::elementSize(storage));
  for (size_t first = 0; first < items.size(); first += kMaxSegments) {
    const int count = static_cast<int>(std::min<size_t>(items.size() - first, kMaxSegments));
    const Partition shares = partition_items(items, first, count, packet, kernel.resident_blocks(device, kThreads), false);
    if (shares.blocks) {
      kernel.launch(device, {shares.blocks}, kThreads, arguments_of(items, first, count, packet, shares, options));
    }
  }
}

// Sums, and with the reduce_grad family writes gradients.
template <class Numbers>
void run_reduce(
    KernelFamily& family, c10::Device device, at::ScalarType storage, const std::vector<Item<Numbers>>& items,
    const ReduceOptions& options) {
  Kernel& kernel = family.of(storage);
  const int packet = 16 / static_cast<int>(c10::elementSize(storage));
  const size_t launches = (items.size() + kMaxSegments - 1) / kMaxSegments;
  const auto doubles = at::TensorOptions().dtype(at::kDouble).device(device);
  Tensor carry;
  if (launches > 1) {
    carry = at::empty({static_cast<int64_t>(launches), kFolded}, doubles);
  }
  for (size_t launch = 0; launch < launches; ++launch) {
    const size_t first = launch * kMaxSegments;
    const int count = static_cast<int>(std::min<size_t>(items.size() - first, kMaxSegments));
    const bool by_segment = options.means || options.derivatives;
    const Partition shares =
        partition_items(items, first, count, packet, kernel.resident_blocks(device, kThreads), !by_segment);
    auto a = arguments_of(items, first, count, packet, shares, options);
    ReduceTarget& target = a.target;
    Tensor partials, ticket;
    if (!shares.warp_units) {
      partials = at::empty({static_cast<int64_t>(std::max(shares.blocks, 1u)), kSums}, doubles);
      ticket = tickets(device);
      target.partials = partials.mutable_data_ptr<double>();
      target.ticket = reinterpret_cast<unsigned*>(ticket.mutable_data_ptr<int>());
    }
    double* carried = carry.defined() ? carry.mutable_data_ptr<double>() : nullptr;
    target.carry_in = launch > 0 ? carried + (launch - 1) * kFolded : nullptr;
    target.carry_out = launch + 1 < launches ? carried + launch * kFolded : nullptr;
    target.loss = options.loss;
    target.stats = options.stats;
    target.inverse_real_count = 1 / options.real_count;
    target.inverse_fake_count = 1 / options.fake_count;
    target.means = options.means;
    target.derivatives = options.derivatives;
    // Sums over nothing are results too: one block without units writes them.
    kernel.launch(device, {std::max(shares.blocks, 1u)}, kThreads, a);
  }
}

}  // namespace gan_fast::cuda
