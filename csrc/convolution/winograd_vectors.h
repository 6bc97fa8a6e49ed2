// Vectors of sums from what images and squares are stored as. Included by files that are compiled for one instruction set.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <type_traits>

#include "convolution/winograd.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

using std::int64_t;

template <class T>
using Vec = at::vec::Vectorized<T>;

// Images are stored as S; sums and parameters are T.
template <class S>
using SumOf = std::conditional_t<std::is_same_v<S, c10::BFloat16>, float, S>;
// A number of a square or, in bfloat16, a pair that a product adds: the first in the low half.
using Pair = std::uint32_t;
template <class S>
constexpr bool kPairs = std::is_same_v<S, c10::BFloat16>;

template <class S>
inline Vec<SumOf<S>> load(const S* from, int64_t channel, int64_t count) {
  using V = Vec<SumOf<S>>;
  if (from == nullptr || count <= 0) {
    return V(SumOf<S>(0));
  }
  if constexpr (kPairs<S>) {
    V result;
    if (count >= V::size()) {
      at::vec::load_fp32_from_bf16(from + channel, result);
    } else {
      S some[V::size()] = {};
      std::copy_n(from + channel, count, some);
      at::vec::load_fp32_from_bf16(some, result);
    }
    return result;
  } else {
    return count >= V::size() ? V::loadu(from + channel) : V::loadu(from + channel, static_cast<int>(count));
  }
}

template <class S>
inline Vec<SumOf<S>> load_all(const S* from) {
  if constexpr (kPairs<S>) {
    Vec<float> result;
    at::vec::load_fp32_from_bf16(from, result);
    return result;
  } else {
    return Vec<S>::loadu(from);
  }
}

template <class S>
inline void store(S* to, const Vec<SumOf<S>>& value, int count) {
  if constexpr (kPairs<S>) {
    at::vec::convert_from_float<c10::BFloat16>(value, value).store(to, count);
  } else {
    value.store(to, count);
  }
}

// Two vectors rounded to bfloat16, side by side in each pair.
inline Vec<std::int32_t> pair_up(const Vec<float>& low, const Vec<float>& high) {
  using I = Vec<std::int32_t>;
  const auto rounded = [](const Vec<float>& x) {
    const I bits = at::vec::cast<std::int32_t>(x);
    const I up = bits + I(0x7fff) + ((bits >> I(16)) & I(1));
    const Vec<float> quiet = at::vec::cast<float>(bits | I(0x400000));
    return at::vec::cast<std::int32_t>(Vec<float>::blendv(at::vec::cast<float>(up), quiet, x != x));
  };
  return ((rounded(low) >> I(16)) & I(0xffff)) | (rounded(high) & I(static_cast<std::int32_t>(0xffff0000u)));
}

template <class F>
inline void with_storage(winograd::Storage storage, const F& f) {
  switch (storage) {
    case winograd::Storage::Float:
      return f(float());
    case winograd::Storage::Double:
      return f(double());
    case winograd::Storage::BFloat16:
      return f(c10::BFloat16());
  }
}

}  // namespace
}  // namespace gan_fast::CPU_CAPABILITY
