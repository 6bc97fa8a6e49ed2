// The gradient penalty on CUDA: one launch forward, one backward.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cstdint>

#include "common/cuda/map_reduce_host.h"
#include "gradient_penalty/gradient_penalty_arguments.h"
#include "gradient_penalty/gradient_penalty_host.h"

namespace gan_fast {
namespace {

// Up to here a warp is done with a row before a block would have met at its barriers.
constexpr int64_t kWarpRow = 1024;

cuda::GradientPenaltyArguments arguments_of(const Rows& rows, int64_t kind, double center, double weight) {
  cuda::GradientPenaltyArguments a{};
  a.x = rows.x.const_data_ptr();
  a.rows = rows.rows;
  a.inner = rows.inner;
  a.x_stride = rows.stride;
  a.kind = static_cast<int>(kind);
  a.center = center;
  a.factor = weight / static_cast<double>(rows.rows);
  return a;
}

bool aligned(const void* pointer, int64_t row_bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0 && row_bytes % 16 == 0;
}

// Shares the rows between units and returns the number of blocks.
unsigned share(cuda::GradientPenaltyArguments& a, at::ScalarType storage, int resident_blocks) {
  const auto size = static_cast<int64_t>(c10::elementSize(storage));
  a.vector = aligned(a.x, a.x_stride * size) && (a.out == nullptr || aligned(a.out, a.inner * size));
  a.warp_units = a.inner <= kWarpRow;
  a.parts = 1;
  if (a.warp_units) {
    return static_cast<unsigned>((a.rows + cuda::kWarps - 1) / cuda::kWarps);
  }
  const int64_t a_block = cuda::kThreads * 16 / size;
  a.parts = static_cast<int>(
      std::max<int64_t>(1, std::min<int64_t>(resident_blocks / a.rows, (a.inner + a_block - 1) / a_block)));
  return static_cast<unsigned>(a.rows * a.parts);
}

std::tuple<Tensor, Tensor> forward_cuda(const Tensor& g, int64_t kind, double center, double weight) {
  static cuda::KernelFamily kernels("gradient_penalty", "gradient_penalty_norms");
  check_gradient_penalty(g, kind, center);
  const c10::DeviceGuard guard(g.device());
  const at::ScalarType storage = g.scalar_type();
  const Rows rows = rows_of(g);
  const auto options = g.options().dtype(accumulate_type(storage));
  Tensor penalty = at::empty({}, options), norms = at::empty({rows.rows}, options);
  cuda::Kernel& kernel = kernels.of(storage);
  auto a = arguments_of(rows, kind, center, weight);
  const unsigned blocks = share(a, storage, kernel.resident_blocks(g.device(), cuda::kThreads));
  Tensor partials = at::empty({std::max<int64_t>(rows.rows * a.parts, 1)}, options.dtype(at::kDouble));
  const Tensor ticket = cuda::tickets(g.device());
  a.partials = partials.mutable_data_ptr<double>();
  a.ticket = reinterpret_cast<unsigned*>(ticket.mutable_data_ptr<int>());
  a.norms = norms.mutable_data_ptr();
  a.penalty = penalty.mutable_data_ptr();
  // The penalty on no samples is a result too: one block without units writes it.
  kernel.launch(g.device(), {std::max(blocks, 1u)}, cuda::kThreads, a);
  return {std::move(penalty), std::move(norms)};
}

Tensor backward_cuda(
    const Tensor& grad, const Tensor& g, const Tensor& squared_norms, int64_t kind, double center, double weight) {
  static cuda::KernelFamily kernels("gradient_penalty", "gradient_penalty_scale");
  check_gradient_penalty(g, kind, center);
  check_gradient_penalty_backward(grad, g, squared_norms);
  const c10::DeviceGuard guard(g.device());
  const at::ScalarType storage = g.scalar_type();
  const Rows rows = rows_of(g);
  const RowsTarget target = target_like(g, rows);
  if (g.numel() == 0) {
    return target.result;
  }
  const Tensor up = grad.to(accumulate_type(storage)), norms = squared_norms.contiguous();
  cuda::Kernel& kernel = kernels.of(storage);
  auto a = arguments_of(rows, kind, center, weight);
  a.out = target.rows.mutable_data_ptr();
  a.grad_output = up.const_data_ptr();
  a.norms = const_cast<void*>(norms.const_data_ptr());  // this kernel only reads them
  kernel.launch(g.device(), {share(a, storage, kernel.resident_blocks(g.device(), cuda::kThreads))}, cuda::kThreads, a);
  return target.finish();
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("gradient_penalty", &forward_cuda);
  m.impl("gradient_penalty_backward", &backward_cuda);
}

}  // namespace gan_fast
