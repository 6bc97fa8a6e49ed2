// upfirdn2d on CUDA: picks the kernel and shares the results between blocks. One launch.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cstdint>

#include "common/cuda/map_reduce_host.h"
#include "upfirdn2d/upfirdn2d_arguments.h"
#include "upfirdn2d/upfirdn2d_host.h"

namespace gan_fast {
namespace {

using at::IntArrayRef;

constexpr int64_t kSharedBytes = 48 * 1024;  // what a block has without asking

int64_t over(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

cuda::UpfirdnAxisArguments axis_of(int64_t up, int64_t down, int64_t taps, int64_t in, int64_t out, int64_t before) {
  constexpr int64_t kMost = int64_t{1} << 30;
  TORCH_CHECK_VALUE(in < kMost && out < kMost, "upfirdn2d on CUDA takes images of less than 2^30 pixels a side");
  return {
      static_cast<int>(up), static_cast<int>(down), static_cast<int>(taps), static_cast<int>(in), static_cast<int>(out), before};
}

// A kernel with its taps in registers, and what a thread of it makes: Mode in the .cu file.
struct Mode {
  const char* name;
  int up, down;
  int tile_x, tile_y;  // results of a thread: contiguous images
  int last_x, last_y;  // channels_last
};
constexpr Mode kModes[] = {{"up2", 2, 1, 2, 8, 2, 8}, {"down2", 1, 2, 1, 8, 1, 4}, {"filter", 1, 1, 2, 8, 2, 4}};

const Mode* mode_of(const cuda::UpfirdnArguments& a) {
  const auto &h = a.horizontal, &v = a.vertical;
  if (a.f == nullptr || h.taps != cuda::kUpfirdnTaps || v.taps != cuda::kUpfirdnTaps || h.up != v.up || h.down != v.down) {
    return nullptr;
  }
  for (const Mode& m : kModes) {
    if (m.up == h.up && m.down == h.down) {
      return &m;
    }
  }
  return nullptr;
}

int64_t lead_of(const Mode& m, const cuda::UpfirdnAxisArguments& axis) {
  return m.up == 1 ? 0 : floor_mod(axis.before, m.up);
}

// Whether the numbers that those kernels count with fit in 32 bits, with room for a block's results beyond the image.
bool counts_in_32_bits(const cuda::UpfirdnArguments& a) {
  constexpr int64_t kMost = int64_t{1} << 28, kStride = int64_t{1} << 31;
  for (const cuda::UpfirdnAxisArguments* axis : {&a.horizontal, &a.vertical}) {
    if (axis->in >= kMost || axis->out >= kMost || std::abs(axis->before) >= kMost) {
      return false;
    }
  }
  for (const long long stride : {a.x_channel, a.x_row, a.x_column, a.y_channel, a.y_row, a.y_column}) {
    if (stride >= kStride) {
      return false;
    }
  }
  return a.samples * a.channels < int64_t{1} << 30;
}

// The least b with 2^b >= n.
int bits(int64_t n) {
  int b = 0;
  while (int64_t{1} << b < n) {
    ++b;
  }
  return b;
}

cuda::UpfirdnDivisor divisor_of(int64_t by) {
  // With 2^shift = 2^31 2^bits the magic number, rounded up, is below 2^32 and off by less than by / 2^bits <= 1.
  const int shift = 31 + bits(by);
  return {static_cast<unsigned>(by), static_cast<unsigned>(((uint64_t{1} << shift) + by - 1) / by), shift};
}

// Shares results between threads that make x by y of one packet each, and returns the number of blocks. At the most 2^most_packets
// threads lie next to each other along the packets and 2^most_columns along a row.
int64_t share(cuda::UpfirdnArguments& a, const Mode& m, int x, int y, int64_t images, int64_t packets, int most_packets, int most_columns) {
  const int64_t columns = over(a.horizontal.out + lead_of(m, a.horizontal), x), rows = over(a.vertical.out + lead_of(m, a.vertical), y);
  const int threads = bits(cuda::kUpfirdnThreads);
  a.log_packets = std::min(most_packets, bits(packets));
  a.log_columns = std::min(most_columns, bits(columns));
  a.log_rows = std::min(threads - a.log_packets - a.log_columns, bits(rows));
  a.images = static_cast<int>(std::min(int64_t{1} << (threads - a.log_packets - a.log_columns - a.log_rows), images));
  const int64_t strips = over(packets, int64_t{1} << a.log_packets);
  const int64_t tiles_x = over(columns, int64_t{1} << a.log_columns), tiles_y = over(rows, int64_t{1} << a.log_rows);
  a.strips = divisor_of(strips);
  a.tiles_x = divisor_of(tiles_x);
  a.tiles_y = divisor_of(tiles_y);
  a.by_channels = divisor_of(a.channels);
  return strips * tiles_x * tiles_y * over(images, a.images);
}

bool aligned(const void* p, int64_t bytes) {
  return reinterpret_cast<std::uintptr_t>(p) % bytes == 0;
}

struct Families {
  cuda::KernelFamily up2, down2, filter;
  explicit Families(const std::string& prefix)
      : up2("upfirdn2d", prefix + "up2"), down2("upfirdn2d", prefix + "down2"), filter("upfirdn2d", prefix + "filter") {}
  cuda::Kernel& of(const Mode& m, at::ScalarType storage) {
    return (m.up == 2 ? up2 : m.down == 2 ? down2 : filter).of(storage);
  }
};

unsigned grid_of(int64_t blocks) {
  TORCH_CHECK_VALUE(
      blocks <= 0x7fffffff, "upfirdn2d on CUDA: these images take ", blocks, " blocks, more than a launch has; split the batch");
  return static_cast<unsigned>(blocks);
}

void launch(cuda::UpfirdnArguments& a, const Tensor& x, const Tensor& y) {
  static Families tiles("upfirdn2d_"), last("upfirdn2d_last_");
  static cuda::KernelFamily rows("upfirdn2d", "upfirdn2d_rows"), any("upfirdn2d", "upfirdn2d_any");
  const at::ScalarType storage = x.scalar_type();
  const auto element = static_cast<int64_t>(x.element_size());
  const int64_t number = storage == at::kDouble ? 8 : 4, planes = a.samples * a.channels;
  const auto &h = a.horizontal, &v = a.vertical;
  const Mode* mode = counts_in_32_bits(a) ? mode_of(a) : nullptr;
  if (mode != nullptr && !a.channels_last && (a.x_column == 1 || h.in == 1)) {
    a.pairs = mode->tile_x == 2 && h.out % 2 == 0 && lead_of(*mode, h) == 0 && aligned(a.y, 2 * element);
    const unsigned blocks = grid_of(share(a, *mode, mode->tile_x, mode->tile_y, planes, 1, 0, 5));
    tiles.of(*mode, storage).launch(x.device(), {blocks}, cuda::kUpfirdnThreads, a);
    return;
  }
  if (mode != nullptr && a.channels_last) {
    const int64_t packet = storage == at::kDouble ? 2 : 4;
    const bool whole = a.channels % packet == 0 && a.x_channel == 1 && a.x_sample % packet == 0 && a.x_row % packet == 0 &&
        a.x_column % packet == 0 && aligned(a.x, packet * element) && aligned(a.y, packet * element);
    if (whole) {
      // A line of 128 bytes of channels, and beside it as square a patch of results as there are threads for.
      const int line = bits(128 / (packet * element));
      const unsigned blocks = grid_of(share(a, *mode, mode->last_x, mode->last_y, a.samples, a.channels / packet, line, 3));
      last.of(*mode, storage).launch(x.device(), {blocks}, cuda::kUpfirdnThreads, a);
      return;
    }
  }
  if (a.f != nullptr && !a.matrix && !a.channels_last) {
    for (a.rows = 32; a.rows >= 4; a.rows /= 2) {
      const int64_t lines = ((a.rows - 1) * int64_t{v.down} + v.taps - 1 + v.up - 1) / v.up + 1;
      const int64_t bytes = (h.taps + lines * cuda::kUpfirdnColumns) * number;
      if (bytes <= kSharedBytes) {
        const unsigned blocks = grid_of(over(h.out, cuda::kUpfirdnColumns) * over(v.out, a.rows) * planes);
        rows.of(storage).launch(x.device(), {blocks}, cuda::kUpfirdnThreads, a, static_cast<unsigned>(bytes));
        return;
      }
    }
  }
  any.of(storage).launch(x.device(), {grid_of(over(y.numel(), cuda::kUpfirdnThreads))}, cuda::kUpfirdnThreads, a);
}

Tensor forward_cuda(
    const Tensor& x, const OptionalTensor& f, IntArrayRef up, IntArrayRef down, IntArrayRef before, IntArrayRef size,
    bool flip_filter, double gain) {
  check_upfirdn2d(x, f, up, down, c10::fromIntArrayRefSlow(before), c10::fromIntArrayRefSlow(size));
  check_result(f, before, size);
  const c10::DeviceGuard guard(x.device());
  const Tensor y = empty_result(x, c10::fromIntArrayRefSlow(size));
  if (y.numel() == 0) {
    return y;
  }
  const Tensor taps = f.has_value() ? f->to(accumulate_type(x.scalar_type())).contiguous() : Tensor();
  cuda::UpfirdnArguments a{};
  a.x = x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.f = taps.defined() ? taps.const_data_ptr() : nullptr;
  a.matrix = taps.defined() && taps.dim() == 2;
  a.flip = flip_filter;
  a.gain = gain;
  const auto width = taps.defined() ? taps.size(-1) : 1, height = taps.defined() ? taps.size(0) : 1;
  a.horizontal = axis_of(up[0], down[0], width, x.size(3), size[0], before[0]);
  a.vertical = axis_of(up[1], down[1], height, x.size(2), size[1], before[1]);
  a.samples = x.size(0);
  a.channels = x.size(1);
  a.channels_last = y.suggest_memory_format() == at::MemoryFormat::ChannelsLast;
  a.x_sample = x.stride(0);
  a.x_channel = x.stride(1);
  a.x_row = x.stride(2);
  a.x_column = x.stride(3);
  a.y_sample = y.stride(0);
  a.y_channel = y.stride(1);
  a.y_row = y.stride(2);
  a.y_column = y.stride(3);
  launch(a, x, y);
  return y;
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("upfirdn2d", &forward_cuda);
}

}  // namespace gan_fast
