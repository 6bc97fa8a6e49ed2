// The kernel of `epilogue_gradient.h`.

#include "modulated_convolution/epilogue_gradient.h"

#include <algorithm>

#include "convolution/winograd_vectors.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

using modulated_convolution::EpilogueGradient;
using modulated_convolution::kPart;

// Of one vector of dy and y: dz, which is returned, and what is added to both sums.
template <class T>
class EpilogueDerivative {
  using V = Vec<T>;

 public:
  explicit EpilogueDerivative(const EpilogueGradient& job)
      : clamped_(job.epilogue.clamp >= 0),
        clamp_(static_cast<T>(job.clamp)),
        gain_(static_cast<T>(job.epilogue.gain)),
        slope_(static_cast<T>(job.epilogue.act == 2 ? job.epilogue.alpha : job.epilogue.act == 1 ? 0 : 1)) {}

  V operator()(V dy, const V& y, const V* noise, V& sum, V& products) const {
    if (clamped_) {
      dy = V::blendv(V(T(0)), dy, y.abs() < clamp_);
    }
    products = at::vec::fmadd(dy, y, products);
    V dz = dy * gain_;
    dz = V::blendv(dz * slope_, dz, y > V(T(0)));
    if (noise != nullptr) {
      products = products - dz * *noise;
    }
    sum = sum + dz;
    return dz;
  }

 private:
  bool clamped_;
  V clamp_, gain_, slope_;
};

template <class S>
void epilogue_gradient_of_planes(const EpilogueGradient& job, int64_t begin, int64_t end) {
  using T = SumOf<S>;
  using V = Vec<T>;
  constexpr int64_t kBlock = 2048;  // summed by itself
  const EpilogueDerivative<T> derivative(job);
  const auto total = [](const V& v) {
    return at::vec::vec_reduce_all<T>([](const V& a, const V& b) { return a + b; }, v);
  };
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t image = plane / job.channels, channel = plane % job.channels;
    const S* const dy = static_cast<const S*>(job.dy) + plane * job.pixels;
    const S* const y = static_cast<const S*>(job.y) + plane * job.pixels;
    S* const dz = static_cast<S*>(job.dz) + plane * job.pixels;
    const T* const noise = job.epilogue.noise == nullptr
        ? nullptr
        : static_cast<const T*>(job.epilogue.noise) + image * job.epilogue.noise_stride;
    double sums[2] = {};
    for (int64_t first = 0; first < job.pixels; first += kBlock) {
      const int64_t last = std::min(first + kBlock, job.pixels);
      V sum(T(0)), products(T(0));
      for (int64_t p = first; p < last; p += V::size()) {
        const int count = static_cast<int>(std::min<int64_t>(V::size(), last - p));
        const V n = noise == nullptr ? V(T(0)) : V::loadu(noise + p, count);
        const V z = derivative(
            load(dy, p, last - p), load(y, p, last - p), noise == nullptr ? nullptr : &n, sum, products);
        store(dz + p, z, count);
      }
      sums[0] += total(sum);
      sums[1] += total(products);
    }
    T* const to = static_cast<T*>(job.sums) + 2 * image * job.channels + channel;
    to[0] = static_cast<T>(sums[0]);
    to[job.channels] = static_cast<T>(sums[1]);
  }
}

// kN vectors of channels from c on, of some pixels of one image; the last vector may have fewer where kN is 1.
template <class S, int kN>
inline void epilogue_gradient_of_pixels(
    const EpilogueGradient& job, const EpilogueDerivative<SumOf<S>>& derivative, int64_t image, int64_t first,
    int64_t last, int64_t c, SumOf<S>* sums) {
  using T = SumOf<S>;
  using V = Vec<T>;
  const int64_t channels = job.channels;
  const T* const noise = job.epilogue.noise == nullptr
      ? nullptr
      : static_cast<const T*>(job.epilogue.noise) + image * job.epilogue.noise_stride;
  V sum[kN], products[kN];
  for (int n = 0; n < kN; ++n) {
    sum[n] = products[n] = V(T(0));
  }
  constexpr int kSize = V::size();
  const int count = kN > 1 ? kSize : static_cast<int>(std::min<int64_t>(kSize, channels - c));
  for (int64_t pixel = first; pixel < last; ++pixel) {
    const int64_t at = (image * job.pixels + pixel) * channels + c;
    const V of_pixel(noise == nullptr ? T(0) : noise[pixel]);
    for (int n = 0; n < kN; ++n) {
      const S *const dy = static_cast<const S*>(job.dy) + at + n * kSize, *const y = static_cast<const S*>(job.y) + at + n * kSize;
      const V dz = derivative(
          kN > 1 ? load_all(dy) : load(dy, 0, count), kN > 1 ? load_all(y) : load(y, 0, count),
          noise == nullptr ? nullptr : &of_pixel, sum[n], products[n]);
      store(static_cast<S*>(job.dz) + at + n * kSize, dz, count);
    }
  }
  for (int n = 0; n < kN; ++n) {
    sum[n].store(sums + c + n * kSize, count);
    products[n].store(sums + channels + c + n * kSize, count);
  }
}

template <class S>
void epilogue_gradient(const EpilogueGradient& job, int64_t begin, int64_t end) {
  using T = SumOf<S>;
  if (job.planes) {
    return epilogue_gradient_of_planes<S>(job, begin, end);
  }
  constexpr int kMany = 4;
  constexpr int64_t kStep = Vec<T>::size();
  const EpilogueDerivative<T> derivative(job);
  const int64_t parts = (job.pixels + kPart - 1) / kPart;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / parts, first = task % parts * kPart, last = std::min(first + kPart, job.pixels);
    T* const sums = static_cast<T*>(job.sums) + task * 2 * job.channels;
    int64_t c = 0;
    for (; c + kMany * kStep <= job.channels; c += kMany * kStep) {
      epilogue_gradient_of_pixels<S, kMany>(job, derivative, image, first, last, c, sums);
    }
    for (; c < job.channels; c += kStep) {
      epilogue_gradient_of_pixels<S, 1>(job, derivative, image, first, last, c, sums);
    }
  }
}

}  // namespace

void modulated_epilogue_gradient(winograd::Storage storage, const EpilogueGradient& job, int64_t begin, int64_t end) {
  with_storage(storage, [&](auto zero) { epilogue_gradient<decltype(zero)>(job, begin, end); });
}

}  // namespace gan_fast::CPU_CAPABILITY
