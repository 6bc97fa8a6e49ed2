// Images read at given places, bilinear, zero outside, corners not aligned: schemas and autograd to any order.
//
//   y = S(x; g)             grid_sample, linear in x           x: S*(dy; g)       g: G(dy, x; g)
//   dx = S*(dy; g)          grid_sample_input_gradient        dy: S(v; g)         g: G(dy, v; g)
//   dg = G(dy, x; g)        grid_sample_grid_gradient         dy: T(x, w; g)      x: T*(dy, w; g)      g: below
//
// v and w are the cotangents of dx and dg. S, S* and G are torch's kernels, on every device. T is the change of y when the grid moves by w:
// with the four neighbours a b / c d of a place, f its distances from a in pixels, and u the movement in pixels,
//
//   T = ux [(b - a)(1 - fy) + (d - c) fy] + uy [(c - a)(1 - fx) + (d - b) fx]
//
// whose derivative for fx is uy (a - b - c + d), and for fy ux times the same. These are aten's functions, which differentiate on.
//
// Source: Jaderberg et al. 2015, Spatial Transformer Networks, section 3.3.

#include <ATen/ops/grid_sampler_2d.h>
#include <ATen/ops/grid_sampler_2d_backward.h>
#include <torch/library.h>

#include "common/bilinear.h"
#include "common/host.h"

namespace gan_fast {
namespace {

constexpr int kBilinear = 0, kZeros = 0;

at::MemoryFormat image_format(const Tensor& x) {
  return x.suggest_memory_format() == at::MemoryFormat::ChannelsLast ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

void check(const Tensor& x, const Tensor& grid) {
  TORCH_CHECK_VALUE(
      x.dim() == 4 && grid.dim() == 4 && grid.sym_size(3) == 2 && grid.sym_size(0) == x.sym_size(0),
      "grid_sample expects images [N, C, H, W] and places [N, H', W', 2], but got shapes ", x.sym_sizes(), " and ", grid.sym_sizes());
}

Tensor sample(const Tensor& x, const Tensor& grid) {
  check(x, grid);
  return at::grid_sampler_2d(x, grid, kBilinear, kZeros, false).contiguous(image_format(x));
}

Tensor input_gradient(const Tensor& dy, const Tensor& x, const Tensor& grid) {
  check(x, grid);
  return std::get<0>(at::grid_sampler_2d_backward(dy, x, grid, kBilinear, kZeros, false, {true, false})).contiguous(image_format(x));
}

Tensor grid_gradient(const Tensor& dy, const Tensor& x, const Tensor& grid) {
  check(x, grid);
  return std::get<1>(at::grid_sampler_2d_backward(dy, x, grid, kBilinear, kZeros, false, {false, true})).contiguous();
}

Tensor sample_meta(const Tensor& x, const Tensor& grid) {
  check(x, grid);
  return at::empty_symint({x.sym_size(0), x.sym_size(1), grid.sym_size(1), grid.sym_size(2)}, x.options(), image_format(x));
}

Tensor input_gradient_meta(const Tensor&, const Tensor& x, const Tensor& grid) {
  check(x, grid);
  return at::empty_symint(x.sym_sizes(), x.options(), image_format(x));
}

Tensor grid_gradient_meta(const Tensor&, const Tensor& x, const Tensor& grid) {
  check(x, grid);
  return at::empty_symint(grid.sym_sizes(), grid.options());
}

Tensor call_sample(const Tensor& x, const Tensor& grid) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&)>("gan_fast::grid_sample");
  return op.call(x, grid);
}

Tensor call_input_gradient(const Tensor& dy, const Tensor& x, const Tensor& grid) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const Tensor&)>("gan_fast::grid_sample_input_gradient");
  return op.call(dy, x, grid);
}

Tensor call_grid_gradient(const Tensor& dy, const Tensor& x, const Tensor& grid) {
  static const auto op = find_op<Tensor(const Tensor&, const Tensor&, const Tensor&)>("gan_fast::grid_sample_grid_gradient");
  return op.call(dy, x, grid);
}

// The neighbours of every place: where they lie, and the place's distances from the first, all [N, 1, H', W'].
struct Neighbours {
  Tensor fx, fy;         // differentiable in the grid
  Tensor index[4];       // [N, C, H' W'] into an image's pixels
  Tensor inside[4];      // 1 or 0
  Tensor half_w, half_h; // pixels for a unit of the grid
};

Neighbours neighbours_of(const Tensor& x, const Tensor& grid) {
  const c10::SymInt height = x.sym_size(2), width = x.sym_size(3);
  const auto pixels = [&](int axis, const c10::SymInt& side) {
    return ((grid.select(3, axis) + 1) * c10::Scalar(side) - 1).div(2).unsqueeze(1);
  };
  // kept near the image, so that they fit an integer; NaN is any place, its distances stay NaN
  const auto first = [](const Tensor& p, const c10::SymInt& side) {
    return p.detach().nan_to_num(0.0).clamp(c10::Scalar(-2), c10::Scalar(side + 1)).floor();
  };
  const Tensor px = pixels(0, width), py = pixels(1, height);
  const Tensor x0 = first(px, width), y0 = first(py, height);
  Neighbours n;
  n.fx = px - x0;
  n.fy = py - y0;
  n.half_w = at::ones({}, grid.options()) * c10::Scalar(width) / 2;
  n.half_h = at::ones({}, grid.options()) * c10::Scalar(height) / 2;
  const Tensor ix = x0.to(at::kLong), iy = y0.to(at::kLong);
  for (int k = 0; k < 4; ++k) {
    const Tensor cx = ix + k % 2, cy = iy + k / 2;
    n.inside[k] = cx.ge(0).logical_and(cx.lt(c10::Scalar(width))).logical_and(cy.ge(0)).logical_and(cy.lt(c10::Scalar(height))).to(x.scalar_type());
    const Tensor at = cy.clamp(c10::Scalar(0), c10::Scalar(height - 1)) * c10::Scalar(width) + cx.clamp(c10::Scalar(0), c10::Scalar(width - 1));
    n.index[k] = at.flatten(2).expand_symint({x.sym_size(0), x.sym_size(1), grid.sym_size(1) * grid.sym_size(2)});
  }
  return n;
}

Tensor value(const Tensor& x, const Neighbours& n, const Tensor& grid, int k) {
  const Tensor v = x.flatten(2).gather(2, n.index[k]);
  return v.view_symint({x.sym_size(0), x.sym_size(1), grid.sym_size(1), grid.sym_size(2)}) * n.inside[k];
}

struct GridSampleGridGradient : torch::autograd::Function<GridSampleGridGradient> {
  static Tensor forward(AutogradContext* ctx, const Tensor& dy, const Tensor& x, const Tensor& grid) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({dy, x, grid});
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_grid_gradient(dy, x, grid);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (!grads[0].defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &dy = saved[0], &x = saved[1], &grid = saved[2];
    const Neighbours n = neighbours_of(x, grid);
    const Tensor ux = (grads[0].select(3, 0) * n.half_w).unsqueeze(1), uy = (grads[0].select(3, 1) * n.half_h).unsqueeze(1);
    if (ctx->needs_input_grad(0) || ctx->needs_input_grad(2)) {
      const Tensor a = value(x, n, grid, 0), b = value(x, n, grid, 1), c = value(x, n, grid, 2), d = value(x, n, grid, 3);
      if (ctx->needs_input_grad(0)) {
        out[0] = ux * ((b - a) * (1 - n.fy) + (d - c) * n.fy) + uy * ((c - a) * (1 - n.fx) + (d - b) * n.fx);
      }
      if (ctx->needs_input_grad(2)) {
        const Tensor twist = (dy * (a - b - c + d)).sum(1, true);
        out[2] = at::cat({twist * uy * n.half_w, twist * ux * n.half_h}, 1).permute({0, 2, 3, 1});
      }
    }
    if (ctx->needs_input_grad(1)) {
      const Tensor gx = 1 - n.fx, gy = 1 - n.fy;
      const Tensor weight[4] = {-ux * gy - uy * gx, ux * gy - uy * n.fx, uy * gx - ux * n.fy, ux * n.fy + uy * n.fx};
      Tensor dx = at::zeros_like(x.flatten(2));
      for (int k = 0; k < 4; ++k) {
        dx = dx.scatter_add(2, n.index[k], (dy * (weight[k] * n.inside[k])).flatten(2));
      }
      out[1] = dx.view_symint(x.sym_sizes());
    }
    return out;
  }
};

struct GridSampleInputGradient : torch::autograd::Function<GridSampleInputGradient> {
  static Tensor forward(AutogradContext* ctx, const Tensor& dy, const Like& x, const Tensor& grid) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({dy, grid});
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_input_gradient(dy, x.tensor, grid);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (!grads[0].defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0)) {
      out[0] = call_sample(grads[0], saved[1]);
    }
    if (ctx->needs_input_grad(1)) {
      out[2] = call_grid_gradient(saved[0], grads[0], saved[1]);
    }
    return out;
  }
};

struct GridSample : torch::autograd::Function<GridSample> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& grid) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({x, grid});
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_sample(x, grid);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(2);
    if (!grads[0].defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    if (ctx->needs_input_grad(0)) {
      out[0] = call_input_gradient(grads[0], saved[0], saved[1]);
    }
    if (ctx->needs_input_grad(1)) {
      out[1] = call_grid_gradient(grads[0], saved[0], saved[1]);
    }
    return out;
  }
};

Tensor sample_autograd(const Tensor& x, const Tensor& grid) {
  return GridSample::apply(x, grid);
}

Tensor input_gradient_autograd(const Tensor& dy, const Tensor& x, const Tensor& grid) {
  return GridSampleInputGradient::apply(dy, Like{x.detach()}, grid);
}

Tensor grid_gradient_autograd(const Tensor& dy, const Tensor& x, const Tensor& grid) {
  return GridSampleGridGradient::apply(dy, x, grid);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def("grid_sample(Tensor input, Tensor grid) -> Tensor");
  m.def("grid_sample_input_gradient(Tensor dy, Tensor input, Tensor grid) -> Tensor");
  m.def("grid_sample_grid_gradient(Tensor dy, Tensor input, Tensor grid) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CompositeExplicitAutograd, m) {
  m.impl("grid_sample", &sample);
  m.impl("grid_sample_input_gradient", &input_gradient);
  m.impl("grid_sample_grid_gradient", &grid_gradient);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("grid_sample", &sample_meta);
  m.impl("grid_sample_input_gradient", &input_gradient_meta);
  m.impl("grid_sample_grid_gradient", &grid_gradient_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("grid_sample", &sample_autograd);
  m.impl("grid_sample_input_gradient", &input_gradient_autograd);
  m.impl("grid_sample_grid_gradient", &grid_gradient_autograd);
}

}  // namespace gan_fast
