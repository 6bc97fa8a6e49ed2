// The vectorised inner loops of filtered_lrelu on the CPU: sums of weighted rows, and those that end in a leaky ReLU and its mask.
//
// Included only by filtered_lrelu_cpu.cpp, which is compiled once for each instruction set.
#pragma once

#include <cstring>
#include <new>

#include "common/cpu/map_reduce.h"
#include "filtered_lrelu/filtered_lrelu.h"

namespace gan_fast::CPU_CAPABILITY {

constexpr int kRows = 4;
template <class T>
class Buffer {
 public:
  explicit Buffer(long long n) : data_(static_cast<T*>(::operator new(bytes(n), std::align_val_t(64)))) {
    std::memset(static_cast<void*>(data_), 0, bytes(n));
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { ::operator delete(static_cast<void*>(data_), std::align_val_t(64)); }
  T* get() const { return data_; }

 private:
  static size_t bytes(long long n) { return sizeof(T) * static_cast<size_t>(n > 0 ? n : 1); }
  T* data_;
};

// sum_t weight[t] at[t][e]
template <class T>
struct Sum {
  const T** at;
  T* weight;
  int count;
};

template <class T, int B>
inline __attribute__((always_inline)) void accumulate(const Sum<T>& s, long long e, Vec<T> (&acc)[B]) {
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) acc[b] = Vec<T>(T(0));
  for (int t = 0; t < s.count; ++t) {
    const Vec<T> w(s.weight[t]);
    const T* p = s.at[t] + e;
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) acc[b] = at::vec::fmadd(Vec<T>::loadu(p + b * Vec<T>::size()), w, acc[b]);
  }
}

// Calls step with blocks of at most 8 vectors, as even as can be (a sum of one vector waits for itself), until n elements are
// covered; the last vector may reach beyond.
template <class T, class Step>
inline __attribute__((always_inline)) void in_blocks(long long n, const Step& step) {
  constexpr int V = Vec<T>::size();
  long long left = (n + V - 1) / V, e = 0;
  while (left > 0) {
    const int size = left <= 8 ? static_cast<int>(left) : left >= 24 ? 8 : left > 16 ? static_cast<int>((left + 2) / 3) : static_cast<int>((left + 1) / 2);
    switch (size) {
      case 8:
        step.template operator()<8>(e);
        break;
      case 7:
        step.template operator()<7>(e);
        break;
      case 6:
        step.template operator()<6>(e);
        break;
      case 5:
        step.template operator()<5>(e);
        break;
      case 4:
        step.template operator()<4>(e);
        break;
      case 3:
        step.template operator()<3>(e);
        break;
      case 2:
        step.template operator()<2>(e);
        break;
      default:
        step.template operator()<1>(e);
    }
    e += size * V;
    left -= size;
  }
}

template <class T>
void combine(const Sum<T>& s, T* out, long long n) {
  in_blocks<T>(n, [&]<int B>(long long e) __attribute__((always_inline)) {
    Vec<T> acc[B];
    accumulate<T, B>(s, e, acc);
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) acc[b].store(out + e + b * Vec<T>::size());
  });
}

template <class T>
struct Gains {
  T pos, neg, limit;
};

// Four rows of z from the sums that give t. out[r] is null where a row is not wanted. Write: `codes` gets the mask's bytes as
// numbers. Read: slope[r] is what t is multiplied by.
template <class T, MaskUse kUse>
void combine_rows(const Sum<T> (&sums)[kRows], T* const (&out)[kRows], const Gains<T>& g, const T* const (&slope)[kRows], T* codes, long long n) {
  using V = Vec<T>;
  const V zero(T(0)), one(T(1)), two(T(2)), pos(g.pos), neg(g.neg), high(g.limit), low(-g.limit);
  in_blocks<T>(n, [&]<int B>(long long e) __attribute__((always_inline)) {
    V code[B];
    if constexpr (kUse == MaskUse::Write) {
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) code[b] = zero;
    }
    for (int r = kRows - 1; r >= 0; --r) {
      if constexpr (kUse == MaskUse::Write) {
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) code[b] = code[b] * V(T(4));
      }
      if (out[r] == nullptr) continue;
      V acc[B];
      accumulate<T, B>(sums[r], e, acc);
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) {
        const long long at = e + b * V::size();
        if constexpr (kUse == MaskUse::Read) {
          (acc[b] * V::loadu(slope[r] + at)).store(out[r] + at);
        } else {
          const V positive = acc[b] > zero;
          const V z = acc[b] * V::blendv(neg, pos, positive);
          if constexpr (kUse == MaskUse::Write) {
            const V kind = V::blendv(one, zero, positive);
            code[b] = code[b] + V::blendv(kind, two, z.abs() > high);
          }
          at::vec::clamp(z, low, high).store(out[r] + at);
        }
      }
    }
    if constexpr (kUse == MaskUse::Write) {
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) code[b].store(codes + e + b * V::size());
    }
  });
}

// n bytes of the mask as slopes of 4 rows.
template <class T>
void slopes_of(const unsigned char* bytes, long long n, const Gains<T>& g, T* const (&slope)[kRows]) {
  for (int r = 0; r < kRows; ++r) {
    T* out = slope[r];
    const int shift = 2 * r;
    for (long long e = 0; e < n; ++e) {
      const int code = bytes[e] >> shift & 3;
      out[e] = code == kPositive ? g.pos : code == kNegative ? g.neg : T(0);
    }
  }
}

}  // namespace gan_fast::CPU_CAPABILITY
