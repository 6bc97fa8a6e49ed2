#include "convolution/winograd_host.h"

#include <ATen/Parallel.h>
#include <ATen/TensorSubclassLikeUtils.h>
#include <ATen/record_function.h>
#include <c10/core/CPUAllocator.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "common/cpu/bf16.h"
#include "common/host.h"
#include "common/huge_pages.h"
#include "convolution/winograd.h"

namespace gan_fast {
namespace {

using at::MemoryFormat;
using OptionalTensor = std::optional<Tensor>;
using winograd::kPlaces;

const char* name(WinogradMode mode) {
  return mode == WinogradMode::Always ? "always" : mode == WinogradMode::Never ? "never" : "auto";
}

WinogradMode parse(const std::string& text) {
  for (const WinogradMode mode : {WinogradMode::Auto, WinogradMode::Always, WinogradMode::Never}) {
    if (text == name(mode)) {
      return mode;
    }
  }
  TORCH_CHECK_VALUE(false, "Winograd's mode (GAN_FAST_WINOGRAD) is ", text, "; expected one of auto, always, never");
}

std::atomic<WinogradMode>& mode() {
  static std::atomic<WinogradMode> chosen{[] {
    const char* text = std::getenv("GAN_FAST_WINOGRAD");
    return text == nullptr || *text == '\0' ? WinogradMode::Auto : parse(text);
  }()};
  return chosen;
}

bool all(at::IntArrayRef values, int64_t value) {
  return std::all_of(values.begin(), values.end(), [value](int64_t v) { return v == value; });
}

std::pair<int64_t, int64_t> padding_of(const WinogradGeometry& g) {
  return {g.padding.front(), g.padding.back()};
}

// aten's rule for the memory order of results on the CPU.
MemoryFormat order_of(const Tensor& x, const Tensor& w) {
  const bool last =
      x.suggest_memory_format() == MemoryFormat::ChannelsLast || w.suggest_memory_format() == MemoryFormat::ChannelsLast;
  return last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

using winograd::Storage;

// ---- Scratch memory, kept by each thread as oneDNN keeps its own: fresh pages of it would cost up to half of a run

class Workspace {
 public:
  // Room for so many bytes, begun anew: what was handed out before is gone.
  void begin(int64_t bytes) {
    const size_t wanted = static_cast<size_t>(rounded(bytes));
    if (wanted > bytes_) {
      give_back();
      memory_ = c10::GetCPUAllocator()->allocate(wanted);
      if (wanted >= kHuge) {
        advise_huge_pages(memory_.get(), wanted);
      }
      bytes_ = wanted;
    }
    used_ = 0;
  }

  void* take(int64_t bytes) {
    void* const result = static_cast<char*>(memory_.get()) + used_;
    used_ += rounded(bytes);
    return result;
  }

  // After a call, also one that failed: the scratch of very many channels is given back.
  void end() {
    if (bytes_ > kKept) {
      give_back();
    }
  }

  // What `take` uses of the room: whole cache lines.
  static int64_t rounded(int64_t bytes) { return (bytes + 63) / 64 * 64; }

 private:
  static constexpr size_t kHuge = size_t{4} << 20, kKept = size_t{64} << 20;

  void give_back() {
    memory_ = c10::DataPtr();
    bytes_ = 0;
  }

  c10::DataPtr memory_;
  size_t bytes_ = 0, used_ = 0;
};

struct Lease {
  Lease(Workspace& w, int64_t bytes) : workspace(w) { workspace.begin(bytes); }
  Lease(const Lease&) = delete;
  ~Lease() { workspace.end(); }
  void* take(int64_t bytes) { return workspace.take(bytes); }
  Workspace& workspace;
};

thread_local Workspace shared_workspace;  // of a call, on the thread that makes it
thread_local Workspace own_workspace;     // of a thread that computes

// What a profiler sees of a product: the event "gan_fast::winograd" with the operations of the sum that it stands for.
class Seen {
 public:
  explicit Seen(int64_t pairs) : guard_(at::RecordScope::FUNCTION) {
    if (guard_.isActive()) {
      operations_[0] = 2 * 9 * pairs;
      guard_.before("gan_fast::winograd", c10::ArrayRef<const c10::IValue>(operations_.data(), 1));
    }
  }

 private:
  std::array<c10::IValue, 1> operations_;
  at::RecordFunction guard_;
};

// ---- Memory orders

// Elements of x from image `first` on.
const void* from_image(const Tensor& x, int64_t first) {
  return x.defined() ? static_cast<const char*>(x.const_data_ptr()) + first * x.stride(0) * x.element_size() : nullptr;
}

// Some images of a tensor, channels last: where they lie, or copied to scratch. `scale`: [N, C] or undefined.
class ImagesOf {
 public:
  ImagesOf(const Tensor& x, const Tensor& scale)
      : last_(x.is_contiguous(MemoryFormat::ChannelsLast)),
        x_(last_ || x.is_contiguous() ? x : x.contiguous(MemoryFormat::ChannelsLast)),
        scale_(scale) {
    last_ = x_.is_contiguous(MemoryFormat::ChannelsLast);
  }

  bool copied() const { return !last_; }
  int64_t scratch(int64_t count) const { return last_ ? 0 : Workspace::rounded(count * bytes()); }
  int64_t bytes() const { return x_.size(1) * x_.size(2) * x_.size(3) * x_.element_size(); }

  winograd::Images<const void*> at(int64_t first, int64_t count, void* scratch) const {
    const void* from = static_cast<const char*>(x_.const_data_ptr()) + first * bytes();
    if (!last_) {
      transpose(winograd_storage(x_), from, scratch, count, x_.size(1), x_.size(2) * x_.size(3));
      from = scratch;
    }
    return {from, x_.size(2), x_.size(3), x_.size(1), from_image(scale_, first)};
  }

  static void transpose(Storage storage, const void* from, void* to, int64_t count, int64_t rows, int64_t columns) {
    const winograd::Transposition job{from, to, rows, columns};
    at::parallel_for(0, count * ((columns + 15) / 16), 4, [&](int64_t begin, int64_t end) {
      winograd_transpose_kernel()(storage, job, begin, end);
    });
  }

 private:
  bool last_;
  Tensor x_, scale_;
};

winograd::Tiling tiling(int64_t height, int64_t width, int64_t padding_h, int64_t padding_w) {
  return {(height + 1) / 2, (width + 1) / 2, padding_h, padding_w};
}

// As many images as fill the third-level cache's share of two or so threads, one at least.
int64_t images_within(int64_t bytes_each, int64_t images) {
  constexpr int64_t kBytes = int64_t{8} << 20;
  return std::clamp<int64_t>(kBytes / std::max<int64_t>(bytes_each, 1), 1, images);
}

// What stands around a correlation, all of the type of sums: scales [N, C], noise [N or 1, 1, H, W], bias [C].
struct Around {
  Tensor x_scale, y_scale, noise, bias;
  int act = 0;
  double alpha = 0, gain = 1, clamp = -1;
  Tensor other;  // of y's shape, channels last
  Tensor sums;   // [N, C]: sum over pixels of other times y without y_scale
};

// y[n, o] = sum over i of x[n, i] * w[o, i], or with `turned` of w[i, o] turned round; w is of the type of sums.
Tensor correlate(
    const Tensor& x, const Tensor& w, bool turned, int64_t padding_h, int64_t padding_w, MemoryFormat order,
    const Around& around) {
  const Storage storage = winograd_storage(x);
  const int64_t size = x.element_size();
  const int64_t images = x.size(0), in = x.size(1), out = w.size(turned ? 1 : 0);
  const int64_t height = x.size(2) + 2 * padding_h - 2, width = x.size(3) + 2 * padding_w - 2;
  Seen seen(images * in * out * (turned ? x.size(2) * x.size(3) : height * width));
  Tensor y = in_huge_pages(at::empty({images, out, height, width}, x.options(), order));
  const bool last = y.is_contiguous(MemoryFormat::ChannelsLast);
  const int64_t y_bytes = out * height * width * size;
  const ImagesOf x_images(x, around.x_scale);
  // Images that are copied to another order go in groups, whose copies stay in the cache.
  const int64_t group = last && !x_images.copied() ? images : images_within(x_images.bytes() + y_bytes, images);

  const winograd::Tiling tiles = tiling(height, width, padding_h, padding_w);
  const int64_t u_bytes =
      kPlaces * winograd::panels(out) * ((in + 1) / 2 * 2) * winograd::kPanel * winograd::cell_size(storage);
  const int64_t y_scratch = last ? 0 : group * y_bytes;
  const int64_t sum_bytes =
      around.sums.defined() ? images * tiles.rows * out * winograd::sum_size(storage) : 0;
  Lease scratch(
      shared_workspace, Workspace::rounded(u_bytes) + x_images.scratch(group) + Workspace::rounded(y_scratch) +
          Workspace::rounded(sum_bytes));
  void* const u = scratch.take(u_bytes);
  void* const x_copy = scratch.take(x_images.scratch(group));
  void* const y_copy = scratch.take(y_scratch);
  char* const row_sums = static_cast<char*>(scratch.take(sum_bytes));
  std::memset(row_sums, 0, sum_bytes);

  const int64_t sign = turned ? -1 : 1, corner = turned ? 2 * (w.stride(2) + w.stride(3)) : 0;
  const winograd::Weights weights{
      static_cast<const char*>(w.const_data_ptr()) + corner * w.element_size(), out, in, w.stride(turned ? 1 : 0),
      w.stride(turned ? 0 : 1), sign * w.stride(2), sign * w.stride(3), u};
  at::parallel_for(0, winograd::panels(out), 1, [&](int64_t begin, int64_t end) {
    winograd_weights_kernel()(storage, weights, begin, end);
  });

  for (int64_t first = 0; first < images; first += group) {
    const int64_t here = std::min(group, images - first);
    const int64_t count = here * tiles.rows * tiles.columns;
    // Patches of a block should stay in the second-level cache; a thread has one block at least. Sums are of whole rows
    // of tiles, so that no two threads add to one.
    constexpr int64_t kMost = 48;
    const int64_t share = (count + at::get_num_threads() - 1) / at::get_num_threads();
    const int64_t step = around.sums.defined() ? std::max<int64_t>(kMost / tiles.columns, 1) * tiles.columns
                                               : winograd::strips(std::min(kMost, share));
    char* const y_here = static_cast<char*>(y.mutable_data_ptr()) + first * y_bytes;
    const Tensor& noise = around.noise;
    const int64_t noise_stride = noise.defined() && noise.size(0) > 1 ? noise.stride(0) : 0;
    const winograd::Epilogue epilogue{
        noise.defined() ? from_image(noise, noise_stride == 0 ? 0 : first) : nullptr,
        noise_stride,
        around.bias.defined() ? around.bias.const_data_ptr() : nullptr,
        around.act,
        around.alpha,
        around.gain,
        around.clamp};
    const winograd::Forward job{
        x_images.at(first, here, x_copy),
        {last ? y_here : y_copy, height, width, out, from_image(around.y_scale, first)},
        tiles,
        u,
        epilogue,
        step,
        winograd::strips(step),
        from_image(around.other, first),
        sum_bytes == 0 ? nullptr : row_sums + first * tiles.rows * out * winograd::sum_size(storage)};
    at::parallel_for(0, (count + step - 1) / step, 1, [&](int64_t begin, int64_t end) {
      Lease own(own_workspace, winograd::forward_scratch(storage, job));
      winograd_forward_kernel()(
          storage, job, begin * step, std::min(end * step, count), own.take(winograd::forward_scratch(storage, job)));
    });
    if (!last) {
      ImagesOf::transpose(storage, y_copy, y_here, here, height * width, out);
    }
  }
  if (around.sums.defined()) {
    const Tensor rows = at::from_blob(row_sums, {images, tiles.rows, out}, around.sums.options());
    at::sum_out(const_cast<Tensor&>(around.sums), rows, 1);
  }
  return y;
}

// Into how many parts to cut the channels of both sides, so that there is even work for all threads: transforms are made
// anew for each part, so as few as do.
std::pair<int64_t, int64_t> groups_for(int64_t threads, int64_t in_panels, int64_t out_panels) {
  std::pair<int64_t, int64_t> best{1, 1};
  double best_use = 0;
  for (int64_t parts = 1; parts <= in_panels * out_panels && best_use < 0.9; ++parts) {
    for (int64_t in = 1; in <= std::min(parts, in_panels); ++in) {
      const int64_t out = parts / in, units = 4 * parts, rounds = (units + threads - 1) / threads;
      const double use = static_cast<double>(units) / static_cast<double>(rounds * threads);
      if (parts % in == 0 && out <= out_panels && use > best_use) {
        best = {in, out};
        best_use = use;
      }
    }
  }
  return best;
}

// dw[o, i] = sum over n and pixels of dy[n, o] x[n, i], written to any [O, I, 3, 3] of the type of sums.
void correlate_weights(
    const Tensor& x, const Tensor& x_scale, const Tensor& dy, const Tensor& dy_scale, int64_t padding_h,
    int64_t padding_w, const Tensor& dw) {
  const Storage storage = winograd_storage(x);
  const int64_t images = x.size(0), in = x.size(1), out = dy.size(1);
  Seen seen(images * in * out * dy.size(2) * dy.size(3));
  const int64_t in_panels = winograd::panels(in), out_panels = winograd::panels(out);
  const winograd::Tiling tiles = tiling(dy.size(2), dy.size(3), padding_h, padding_w);
  const ImagesOf x_images(x, x_scale), dy_images(dy, dy_scale);
  const int64_t group = !x_images.copied() && !dy_images.copied()
      ? images
      : images_within(x_images.bytes() + dy_images.bytes(), images);
  const int64_t sum_bytes =
      kPlaces * in_panels * out_panels * winograd::kPanel * winograd::kPanel * winograd::sum_size(storage);
  Lease scratch(
      shared_workspace, Workspace::rounded(sum_bytes) + x_images.scratch(group) + dy_images.scratch(group));
  void* const sums = scratch.take(sum_bytes);
  void* const x_copy = scratch.take(x_images.scratch(group));
  void* const dy_copy = scratch.take(dy_images.scratch(group));
  std::memset(sums, 0, sum_bytes);
  const auto [in_groups, out_groups] = groups_for(at::get_num_threads(), in_panels, out_panels);
  for (int64_t image = 0; image < images; image += group) {
    const int64_t here = std::min(group, images - image);
    const winograd::Sums job{
        x_images.at(image, here, x_copy), dy_images.at(image, here, dy_copy), tiles,
        here * tiles.rows * tiles.columns, in_groups, out_groups, sums};
    at::parallel_for(0, winograd::units(job), 1, [&](int64_t begin, int64_t end) {
      Lease own(own_workspace, winograd::sums_scratch(storage, job));
      winograd_sums_kernel()(storage, job, begin, end, own.take(winograd::sums_scratch(storage, job)));
    });
  }
  const winograd::WeightGradient job{
      sums, in, out, dw.mutable_data_ptr(), dw.stride(0), dw.stride(1), dw.stride(2), dw.stride(3)};
  at::parallel_for(0, in_panels, 1, [&](int64_t begin, int64_t end) {
    winograd_weight_gradient_kernel()(storage, job, begin, end);
  });
}

// Measured beside oneDNN (docs/kernels.md) with AVX2 and with AVX-512. Below, the transforms of few channels, of weights
// for few tiles, or of tiles that are mostly beyond the image's border cost more than the products they save; and each
// thread wants work. So another number of threads may choose otherwise, for small convolutions.
constexpr int64_t kLeastChannels = 24, kLeastTiles = 256, kLeastTilesEach = 24, kLeastPixels = 3;

int64_t least_tiles() {
  return std::max(kLeastTiles, kLeastTilesEach * at::get_num_threads());
}

bool is_faster(WinogradProduct product, const Tensor& x, const Tensor& w, int64_t tiles, int64_t pixels) {
  constexpr int64_t kLeastCopied = 64;
  const bool weights = product == WinogradProduct::WeightGradient;
  const bool copied = weights && order_of(x, w) == MemoryFormat::Contiguous;
  const int64_t most_units = 4 * winograd::panels(w.size(0)) * winograd::panels(w.size(1));
  return current_isa() != Isa::Default && tiles >= least_tiles() && pixels >= kLeastPixels * tiles &&
      (!weights || most_units >= at::get_num_threads()) &&
      std::min(w.size(0), w.size(1)) >= (copied ? kLeastCopied : kLeastChannels);
}

}  // namespace

void set_winograd(const std::string& text) {
  mode().store(parse(text), std::memory_order_relaxed);
}

std::string winograd_mode() {
  return name(mode().load(std::memory_order_relaxed));
}

Storage winograd_storage(const Tensor& x) {
  const int code = storage_code(x.scalar_type());
  TORCH_INTERNAL_ASSERT(code <= static_cast<int>(Storage::BFloat16));
  return static_cast<Storage>(code);
}

bool is_readable(const Tensor& t) {
  return t.device().is_cpu() && t.layout() == at::kStrided && !at::isTensorSubclassLike(t) && !t.is_neg() &&
      !t.is_conj() && !t._is_zerotensor() && t.has_storage() && t.unsafeGetTensorImpl()->storage_initialized();
}

bool winograd_serves(
    WinogradProduct product, const Tensor& image, const Tensor& x, const Tensor& w, const WinogradGeometry& g) {
  // Where something is wrong the answer is no, and aten says what.
  if (!x.device().is_cpu() || x.dim() != 4 || w.dim() != 4 || g.groups != 1 ||
      (x.scalar_type() != at::kFloat && x.scalar_type() != at::kDouble)) {
    return false;
  }
  for (const at::IntArrayRef numbers : {g.stride, g.padding, g.dilation, g.output_padding}) {
    if (numbers.empty() || numbers.size() > 2) {
      return false;
    }
  }
  if (w.size(2) != 3 || w.size(3) != 3 || !all(g.stride, 1) || !all(g.dilation, 1) || !all(g.output_padding, 0)) {
    return false;
  }
  for (const Tensor& t : {image, x, w}) {
    if (t.scalar_type() != x.scalar_type() || !is_readable(t) || t.numel() == 0) {
      return false;
    }
  }
  const auto [ph, pw] = padding_of(g);
  if (x.size(1) != w.size(g.transposed ? 0 : 1) || std::min(ph, pw) < 0 || std::max(ph, pw) > 2) {
    return false;
  }
  const int64_t grown = g.transposed ? -1 : 1, channels = w.size(g.transposed ? 1 : 0);
  const int64_t height = x.size(2) + grown * (2 * ph - 2), width = x.size(3) + grown * (2 * pw - 2);
  const bool fits = product == WinogradProduct::Output ||
      image.sizes() == at::IntArrayRef({x.size(0), channels, height, width});
  if (height < 1 || width < 1 || !fits) {
    return false;
  }
  const WinogradMode asked = mode().load(std::memory_order_relaxed);
  if (asked != WinogradMode::Auto) {
    return asked == WinogradMode::Always;
  }
  // The tiles are those of what is computed, or of the smaller image where that is the weights.
  const bool back = product == WinogradProduct::InputGradient;
  const int64_t h = back ? x.size(2) : product == WinogradProduct::WeightGradient && g.transposed ? x.size(2) : height;
  const int64_t v = back ? x.size(3) : product == WinogradProduct::WeightGradient && g.transposed ? x.size(3) : width;
  return is_faster(product, x, w, x.size(0) * ((h + 1) / 2) * ((v + 1) / 2), x.size(0) * h * v);
}

Tensor winograd_output(const Tensor& x, const Tensor& w, const OptionalTensor& bias, const WinogradGeometry& g) {
  const auto [ph, pw] = padding_of(g);
  Around around;
  if (bias.has_value() && bias->defined()) {
    around.bias = bias->contiguous();
  }
  return g.transposed ? correlate(x, w, true, 2 - ph, 2 - pw, order_of(x, w), around)
                      : correlate(x, w, false, ph, pw, order_of(x, w), around);
}

Tensor winograd_input_gradient(const Tensor& dy, const Tensor& x, const Tensor& w, const WinogradGeometry& g) {
  const auto [ph, pw] = padding_of(g);
  return g.transposed ? correlate(dy, w, false, ph, pw, order_of(x, w), {})
                      : correlate(dy, w, true, 2 - ph, 2 - pw, order_of(x, w), {});
}

Tensor winograd_weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& w, const WinogradGeometry& g) {
  const auto [ph, pw] = padding_of(g);
  Tensor dw = at::empty(w.sizes(), w.options(), order_of(x, w));
  // A transposed convolution's x and dy have each other's places: w is [x's channels, dy's channels, 3, 3] then.
  g.transposed ? correlate_weights(dy, {}, x, {}, ph, pw, dw) : correlate_weights(x, {}, dy, {}, ph, pw, dw);
  return dw;
}

// ---- Modulated convolution

namespace {

// In the type of sums, dense; undefined stays undefined.
Tensor wide(const Tensor& t, const Tensor& like) {
  return t.defined() ? t.to(accumulate_type(like.scalar_type())).contiguous() : t;
}

// Any order, in the type of sums.
Tensor wide_weights(const Tensor& w) {
  return w.to(accumulate_type(w.scalar_type()));
}

MemoryFormat suggested(const Tensor& x) {
  return x.suggest_memory_format() == MemoryFormat::ChannelsLast ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

// A tile unit multiplies so much faster that fewer products are no gain.
bool has_bf16_products() {
  static const bool has = bf16_support().products && !bf16_support().matrix_unit;
  return has;
}

}  // namespace

std::optional<std::array<int64_t, 3>> winograd_layer_limits(bool narrow, bool last) {
  constexpr int64_t kLeastLast = 64, kLeastFlat = 128;
  const WinogradMode asked = mode().load(std::memory_order_relaxed);
  if (asked == WinogradMode::Always) {
    return std::array<int64_t, 3>{1, 1, 0};
  }
  if (asked == WinogradMode::Never || !narrow || current_isa() != Isa::Avx512 || !has_bf16_products()) {
    return std::nullopt;
  }
  return std::array<int64_t, 3>{last ? kLeastLast : kLeastFlat, least_tiles(), kLeastPixels};
}

bool winograd_layer_serves(const Tensor& x, const Tensor& w, int64_t padding) {
  const bool narrow = x.scalar_type() == at::kBFloat16;
  if (!x.device().is_cpu() || x.dim() != 4 || w.dim() != 4 || w.size(2) != 3 || w.size(3) != 3 || padding < 0 ||
      padding > 2 || (x.scalar_type() != at::kFloat && x.scalar_type() != at::kDouble && !narrow) ||
      (w.scalar_type() != x.scalar_type() && w.scalar_type() != accumulate_type(x.scalar_type())) ||
      x.size(1) != w.size(1) || !is_readable(x) || !is_readable(w) || x.numel() == 0 || w.numel() == 0) {
    return false;
  }
  const int64_t height = x.size(2) + 2 * padding - 2, width = x.size(3) + 2 * padding - 2;
  const auto limits = winograd_layer_limits(narrow, suggested(x) == MemoryFormat::ChannelsLast);
  if (height < 1 || width < 1 || !limits.has_value()) {
    return false;
  }
  const auto [channels, least, pixels] = *limits;
  const int64_t tiles = x.size(0) * ((height + 1) / 2) * ((width + 1) / 2);
  return std::min(w.size(0), w.size(1)) >= channels && tiles >= least && x.size(0) * height * width >= pixels * tiles;
}

Tensor winograd_layer(
    const Tensor& x, const Tensor& w, const Tensor& s, const Tensor& d, const Tensor& noise, const Tensor& bias,
    int64_t padding, const WinogradEpilogue& e) {
  Around around;
  around.x_scale = wide(s, x);
  around.y_scale = wide(d, x);
  around.noise = wide(noise, x);
  around.bias = wide(bias, x);
  around.act = static_cast<int>(e.act);
  around.alpha = e.alpha;
  around.gain = e.gain;
  around.clamp = e.clamp;
  return correlate(x, wide_weights(w), false, padding, padding, suggested(x), around);
}

std::pair<Tensor, Tensor> winograd_layer_input_gradient(
    const Tensor& dz, const Tensor& w, const Tensor& s, const Tensor& d, const Tensor& x, int64_t padding) {
  Around around;
  around.x_scale = wide(d, dz);
  around.y_scale = wide(s, dz);
  const at::TensorOptions options = dz.options().dtype(accumulate_type(dz.scalar_type()));
  Tensor ds = at::empty({0}, options);
  if (x.defined()) {
    around.other = x.contiguous(MemoryFormat::ChannelsLast);
    ds = around.sums = at::empty({dz.size(0), w.size(1)}, options);
  }
  Tensor dx = correlate(dz, wide_weights(w), true, 2 - padding, 2 - padding, suggested(dz), around);
  return {std::move(dx), std::move(ds)};
}

Tensor winograd_layer_weight_gradient(
    const Tensor& dz, const Tensor& x, const Tensor& s, const Tensor& d, int64_t padding) {
  const Tensor dw = at::empty(
      {dz.size(1), x.size(1), 3, 3}, dz.options().dtype(accumulate_type(dz.scalar_type())), MemoryFormat::ChannelsLast);
  correlate_weights(x, wide(s, x), dz, wide(d, x), padding, padding, dw);
  return dw.to(dz.scalar_type());
}

}  // namespace gan_fast
