// upfirdn2d: schema, autograd to any order, the CPU implementation. See upfirdn2d.h for the formula.
//
//   upfirdn2d(x [N, C, H, W], f, up, down, before, size, flip_filter, gain) -> gain times the result [N, C, size[1], size[0]]
//
// Pairs of numbers are [x, y]; f is [fh, fw], [n] (the same taps along both axes) or None (one tap of 1) and has no gradient.
// The size stands for the padding behind the image. So the adjoint in x is a call of the op itself, with x's size:
// nothing else is needed for any order of gradient.

#include <torch/library.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "common/bilinear.h"
#include "common/cpu/isa.h"
#include "common/huge_pages.h"
#include "upfirdn2d/upfirdn2d_host.h"
#include "upfirdn2d/upfirdn2d_rows.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(upfirdn2d_rows, void, (int storage, const UpfirdnRows& a, long long begin, long long end, void* memory))

namespace {

using at::IntArrayRef;
using c10::SymInt;
using c10::SymIntArrayRef;
using Op = Tensor(
    const Tensor&, const OptionalTensor&, IntArrayRef, IntArrayRef, SymIntArrayRef, SymIntArrayRef, bool, double);

// ---- CPU: the filter as numbers

// A column times a row of taps, or a matrix [height, width]: then the column is empty. In the order of a correlation.
struct Taps {
  std::vector<double> column, row;
  int height, width;
};

std::vector<double> numbers_of(const Tensor& f) {
  const Tensor wide = f.to(at::kDouble).contiguous();
  const double* p = wide.const_data_ptr<double>();
  return {p, p + wide.numel()};
}

// Splits a matrix of rank one, which users give for [1, 3, 3, 1] and its kin: height + width taps do for height times width. `exact`
// asks for a product that is the matrix; otherwise float's rounding of it is near enough.
bool split_rank_one(Taps& t, bool exact) {
  const std::vector<double>& f = t.row;
  const auto largest = std::max_element(f.begin(), f.end(), [](double a, double b) { return std::abs(a) < std::abs(b); });
  const double pivot = *largest;
  if (!(std::abs(pivot) > 0 && std::abs(pivot) < std::numeric_limits<double>::infinity())) {
    return false;
  }
  const auto at = static_cast<int>(largest - f.begin());
  const int p = at / t.width, q = at % t.width;
  const double tolerance = exact ? std::ldexp(1, -52) : std::ldexp(1, -22);
  double smallest = std::abs(pivot);
  for (int j = 0; j < t.width; ++j) {
    const double v = std::abs(f[p * t.width + j]);
    smallest = v > std::abs(pivot) * std::ldexp(1, -12) ? std::min(smallest, v) : smallest;
    for (int i = 0; i < t.height; ++i) {
      const double whole = f[i * t.width + j] * pivot, product = f[i * t.width + q] * f[p * t.width + j];
      if (!(std::abs(whole - product) <= tolerance * std::abs(whole))) {
        return false;
      }
    }
  }
  // Scaled by the smallest tap, rows and columns of small whole numbers, as binomial filters have, come out exact.
  std::vector<double> row(t.width);
  t.column.resize(t.height);
  for (int j = 0; j < t.width; ++j) {
    row[j] = f[p * t.width + j] / smallest;
  }
  for (int i = 0; i < t.height; ++i) {
    t.column[i] = f[i * t.width + q] * smallest / pivot;
  }
  t.row = std::move(row);
  return true;
}

Taps taps_of(const OptionalTensor& f, bool flip_filter, double gain, bool exact) {
  if (!f.has_value()) {
    return {{1.0}, {gain}, 1, 1};
  }
  Taps t{{}, numbers_of(*f), static_cast<int>(f->size(0)), static_cast<int>(f->size(-1))};
  if (!flip_filter) {
    std::reverse(t.row.begin(), t.row.end());
  }
  if (f->dim() == 1) {
    t.column = t.row;
  } else {
    split_rank_one(t, exact);
  }
  for (double& v : t.row) {
    v *= gain;
  }
  return t;
}

// ---- CPU: phases and tiles

// The arrays behind a UpfirdnAxis; T is the accumulation type. `taps` holds one row of n numbers, or one after the other several.
template <class T>
struct Axis {
  std::vector<long long> first;
  std::vector<int> count, tap;
  std::vector<T> values;
  UpfirdnAxis axis{};
  long long lowest = 0, highest = 0;  // inputs that results 0 ... P - 1 read: from lowest to before highest

  Axis(const std::vector<double>& taps, int n, int up, int down, long long before) {
    const int divisor = std::gcd(up, down), phases = up / divisor;
    lowest = std::numeric_limits<long long>::max();
    highest = std::numeric_limits<long long>::min();
    for (int r = 0; r < phases; ++r) {
      const Phase phase(r, up, down, before, n);
      first.push_back(phase.first);
      count.push_back(phase.count);
      tap.push_back(phase.tap);
      axis.width = std::max(axis.width, phase.count);
      if (phase.count > 0) {
        lowest = std::min(lowest, phase.first);
        highest = std::max(highest, phase.first + phase.count);
      }
    }
    const auto matrices = static_cast<int>(taps.size()) / n;
    values.reserve(static_cast<size_t>(matrices) * phases * axis.width);
    for (int i = 0; i < matrices; ++i) {
      for (int r = 0; r < phases; ++r) {
        for (int m = 0; m < axis.width; ++m) {
          values.push_back(m < count[r] ? static_cast<T>(taps[i * n + tap[r] + m * up]) : T(0));
        }
      }
    }
    axis.every = std::all_of(count.begin(), count.end(), [&](int c) { return c == axis.width; }) ? axis.width : 0;
    axis.phases = phases;
    axis.step = down / divisor;
    axis.first = first.data();
    axis.count = count.data();
    axis.tap = tap.data();
    axis.tap_step = up;
    axis.taps = values.data();
  }
  Axis(const Axis&) = delete;
};

constexpr long long kTileBytes = 8192;      // the blended row of a tile: with the rows it is made of it fits in the first-level cache
constexpr long long kSlack = 128;           // numbers that vectors may read and write past the end of a part of the scratch memory
constexpr long long kGrainNumbers = 16384;  // below this waking a thread costs more than it saves

// Chooses tiles and lays out the scratch memory.
template <class T>
std::vector<int> lay_out(UpfirdnRows& a, const Axis<T>& h) {
  const long long phases = a.horizontal.phases, step = a.horizontal.step;
  const long long a_step = std::max<long long>(1, step * a.inner * static_cast<long long>(sizeof(T)));
  const long long turns = std::max<long long>(16, kTileBytes / a_step);
  a.tile = std::min((a.out_width + phases - 1) / phases, turns) * phases;
  const bool any = h.axis.width > 0;
  a.lowest = any ? h.lowest : 0;
  a.tile_in = (a.tile / phases - 1) * step + (any ? h.highest - h.lowest : 1);
  const bool splits = a.inner == 1 && step > 1;
  a.stream = splits ? a.tile_in / step + 1 + kSlack : 0;
  a.split_at = a.tile_in * a.inner + kSlack;
  a.phase_at = a.split_at + a.stream * step;
  a.result_at = a.phase_at + (a.inner == 1 ? a.tile / phases + kSlack : 0);
  a.scratch = a.result_at + a.tile * a.inner + kSlack;
  std::vector<int> offset;
  for (int r = 0; r < phases; ++r) {
    for (int m = 0; m < a.horizontal.width; ++m) {
      const long long at = std::max(0LL, h.first[r] - a.lowest) + m;
      offset.push_back(static_cast<int>(splits ? at % step * a.stream + at / step : at * a.inner));
    }
  }
  return offset;
}

template <class T>
void run_cpu(
    const ImageRows& in, const Tensor& y, const Taps& taps, IntArrayRef up, IntArrayRef down, IntArrayRef before, int storage) {
  const bool separable = !taps.column.empty();
  const std::vector<double> none(taps.height);
  const Axis<T> v(
      separable ? taps.column : none, taps.height, static_cast<int>(up[1]), static_cast<int>(down[1]), before[1]);
  const Axis<T> h(taps.row, taps.width, static_cast<int>(up[0]), static_cast<int>(down[0]), before[0]);
  UpfirdnRows a{};
  a.x = in.x.const_data_ptr();
  a.y = y.mutable_data_ptr();
  a.channels = in.channels_last ? 1 : y.size(1);
  a.inner = in.channels_last ? y.size(1) : 1;
  a.x_sample = in.sample;
  a.x_channel = in.channel;
  a.x_row = in.row;
  a.in_height = in.x.size(2);
  a.in_width = in.x.size(3);
  a.out_height = y.size(2);
  a.out_width = y.size(3);
  a.vertical = v.axis;
  a.horizontal = h.axis;
  a.separable = separable;
  const std::vector<int> offset = lay_out(a, h);
  a.offset = offset.data();
  const int64_t rows = y.numel() / (a.out_width * a.inner);
  const int64_t grain = std::max<int64_t>(1, kGrainNumbers / (a.out_width * a.inner));
  const auto kernel = upfirdn2d_rows_kernel();
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    std::vector<T> memory(a.scratch);
    kernel(storage, a, begin, end, memory.data());
  });
}

Tensor forward_cpu(
    const Tensor& x, const OptionalTensor& f, IntArrayRef up, IntArrayRef down, IntArrayRef before, IntArrayRef size,
    bool flip_filter, double gain) {
  check_upfirdn2d(x, f, up, down, c10::fromIntArrayRefSlow(before), c10::fromIntArrayRefSlow(size));
  check_result(f, before, size);
  const Tensor y = in_huge_pages(empty_result(x, c10::fromIntArrayRefSlow(size)));
  if (y.numel() == 0) {
    return y;
  }
  const ImageRows in = image_rows(x);
  const int storage = storage_code(x.scalar_type());
  const bool is_double = x.scalar_type() == at::kDouble;
  const Taps taps = taps_of(f, flip_filter, gain, is_double);
  if (is_double) {
    run_cpu<double>(in, y, taps, up, down, before, storage);
  } else {
    run_cpu<float>(in, y, taps, up, down, before, storage);
  }
  return y;
}

// ---- Shapes for tracing

Tensor forward_meta(
    const Tensor& x, const OptionalTensor& f, IntArrayRef up, IntArrayRef down, SymIntArrayRef before, SymIntArrayRef size,
    bool, double) {
  check_upfirdn2d(x, f, up, down, before, size);
  return empty_result(x, size);
}

// ---- Autograd

struct Geometry : torch::CustomClassHolder {
  std::vector<int64_t> up, down;
  std::vector<SymInt> before, size;
  bool flip_filter;
  double gain;

  Geometry(IntArrayRef u, IntArrayRef d, SymIntArrayRef b, SymIntArrayRef s, bool flip, double g)
      : up(u.vec()), down(d.vec()), before(b.vec()), size(s.vec()), flip_filter(flip), gain(g) {}

  // The same map from results to images of `from` [W, H].
  c10::intrusive_ptr<Geometry> adjoint(const OptionalTensor& f, SymIntArrayRef from) const {
    const auto taps = filter_size(f);
    const std::vector<SymInt> b{taps[0] - 1 - before[0], taps[1] - 1 - before[1]};
    return c10::make_intrusive<Geometry>(down, up, b, from, !flip_filter, gain);
  }
};

using GeometryPtr = c10::intrusive_ptr<Geometry>;

Tensor call(const Tensor& x, const OptionalTensor& f, const Geometry& g) {
  static const auto op = find_op<Op>("gan_fast::upfirdn2d");
  return op.call(x, f, g.up, g.down, g.before, g.size, g.flip_filter, g.gain);
}

struct Upfirdn2d : torch::autograd::Function<Upfirdn2d> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Like& f, const GeometryPtr& g) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({f.tensor});
    const std::vector<SymInt> from{x.sym_size(3), x.sym_size(2)};
    const OptionalTensor filter = f.tensor.defined() ? OptionalTensor(f.tensor) : std::nullopt;
    hold(ctx, "adjoint", g->adjoint(filter, from));
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call(x, filter, *g);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (grads[0].defined()) {
      const Tensor f = ctx->get_saved_variables()[0];
      out[0] = call(grads[0], f.defined() ? OptionalTensor(f) : std::nullopt, *held<Geometry>(ctx, "adjoint"));
    }
    return out;
  }
};

Tensor forward_autograd(
    const Tensor& x, const OptionalTensor& f, IntArrayRef up, IntArrayRef down, SymIntArrayRef before, SymIntArrayRef size,
    bool flip_filter, double gain) {
  check_upfirdn2d(x, f, up, down, before, size);
  const bool has = f.has_value() && f->defined();
  TORCH_CHECK_VALUE(
      !has || !f->requires_grad(), "upfirdn2d got a filter that requires grad, which it has no gradient for; detach it");
  return Upfirdn2d::apply(
      x, Like{has ? *f : Tensor()}, c10::make_intrusive<Geometry>(up, down, before, size, flip_filter, gain));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "upfirdn2d(Tensor x, Tensor? f, int[] up, int[] down, SymInt[] before, SymInt[] size, bool flip_filter, float gain) "
      "-> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("upfirdn2d", &forward_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("upfirdn2d", &forward_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("upfirdn2d", &forward_autograd);
}

}  // namespace gan_fast
