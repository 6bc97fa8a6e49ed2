// What the host side of every loss needs: dtype codes, memory layouts, small tensors, and the chunked parallel loop.
#pragma once

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>
#include <ATen/TensorSubclassLikeUtils.h>

#include <algorithm>
#include <vector>

#include "common/segment.h"

namespace gan_fast {

using at::Tensor;
using at::TensorList;

enum Reduction : int64_t { None = 0, Mean = 1, Sum = 2 };

// The storage code of the kernels: 0 float, 1 double, 2 bfloat16, 3 half.
inline int storage_code(at::ScalarType t) {
  switch (t) {
    case at::kFloat:
      return 0;
    case at::kDouble:
      return 1;
    case at::kBFloat16:
      return 2;
    case at::kHalf:
      return 3;
    default:
      TORCH_CHECK_TYPE(false, "expected a float32, float64, bfloat16 or float16 tensor, but got ", t);
  }
}

// A dtype as Python spells it.
inline const char* name_of(at::ScalarType t) {
  switch (t) {
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kBFloat16:
      return "bfloat16";
    case at::kHalf:
      return "float16";
    default:
      return c10::toString(t);
  }
}

// Terms are computed and summed in float64 for float64, in float32 for everything narrower.
inline at::ScalarType accumulate_type(at::ScalarType t) {
  return t == at::kDouble ? at::kDouble : at::kFloat;
}

// The tensor itself where its elements fill one block of memory in some order (contiguous, channels_last, transposed),
// otherwise a contiguous copy. An elementwise kernel may then walk the memory from end to end.
inline Tensor dense(const Tensor& x) {
  return x.is_non_overlapping_and_dense() ? x : x.contiguous();
}

// An uninitialised tensor like a dense x. On the CPU past the dispatcher, which would cost half of a small loss.
inline Tensor empty_like_dense(const Tensor& x) {
  return x.device().is_cpu() ? Tensor(at::detail::empty_strided_cpu(x.sizes(), x.strides(), x.scalar_type()))
                             : at::empty_like(x);
}

// x with the memory order of `like`.
inline Tensor laid_out_as(const Tensor& x, const Tensor& like) {
  if (x.strides() == like.strides() && x.sizes() == like.sizes()) {
    return x;
  }
  return at::empty_like(like, x.options()).copy_(x);
}

// Whether a value of this tensor may be read now, without a sync and without being hidden behind a tracer.
inline bool is_plain_cpu(const Tensor& x) {
  return x.device().is_cpu() && !at::isTensorSubclassLike(x);
}

inline double read_scalar(const Tensor& x) {
  return x.scalar_type() == at::kDouble ? *x.const_data_ptr<double>()
      : x.scalar_type() == at::kFloat   ? *x.const_data_ptr<float>()
                                        : x.to(at::kDouble).item<double>();
}

// Runs block(k, begin, end, sums) over all segments in chunks of fixed size, in parallel where that pays, and returns each
// segment's sums. Chunks are added in their order: the result does not depend on the number of threads.
template <class Block>
std::vector<Sums> for_segments(const std::vector<Segment>& segments, const Block& block) {
  constexpr int64_t kChunk = 4096;
  constexpr int64_t kGrain = 4;  // chunks; below this waking a thread costs more than it saves
  std::vector<Sums> result(segments.size());
  int64_t chunks = 0;
  for (const Segment& s : segments) {
    chunks += (s.n + kChunk - 1) / kChunk;
  }
  if (chunks <= kGrain) {
    for (size_t k = 0; k < segments.size(); ++k) {
      for (int64_t begin = 0; begin < segments[k].n; begin += kChunk) {
        block(k, begin, std::min<int64_t>(begin + kChunk, segments[k].n), result[k]);
      }
    }
    return result;
  }
  struct Chunk {
    size_t segment;
    int64_t begin;
  };
  std::vector<Chunk> table;
  table.reserve(chunks);
  for (size_t k = 0; k < segments.size(); ++k) {
    for (int64_t begin = 0; begin < segments[k].n; begin += kChunk) {
      table.push_back({k, begin});
    }
  }
  std::vector<Sums> partial(chunks);
  at::parallel_for(0, chunks, kGrain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const auto [k, begin] = table[i];
      block(k, begin, std::min<int64_t>(begin + kChunk, segments[k].n), partial[i]);
    }
  });
  for (int64_t i = 0; i < chunks; ++i) {
    Sums& r = result[table[i].segment];
    const Sums& p = partial[i];
    r.value += p.value;
    r.derivative += p.derivative;
    r.x += p.x;
    r.x_sign += p.x_sign;
    r.y += p.y;
    r.y_sign += p.y_sign;
    r.invalid += p.invalid;
  }
  return result;
}

// The factor of a mean over x's elements, also where their number is symbolic.
inline Tensor divided_by_count(const Tensor& g, const Tensor& x) {
  const c10::SymInt n = x.sym_numel();
  if (const auto number = n.maybe_as_int()) {
    return g / static_cast<double>(*number);
  }
  return g.div(c10::Scalar(c10::SymFloat(n)));
}

}  // namespace gan_fast
