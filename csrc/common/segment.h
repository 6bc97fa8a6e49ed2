// One tensor's share of an elementwise-and-reduce loss, as raw memory: what CPU and CUDA kernels are given.
#pragma once

namespace gan_fast {

// Element i of a segment has inputs x[i], y[i] (a target or the other side of a pair), p[i] (a second weight inside the
// formula), the sample weight w[i / inner] and the cotangent c[i]; absent inputs are null. A kernel computes
//   value = w v(x, y, p),  derivative = w c v'(x, y, p),  grad = derivative * factor + offset,  grad2 = -grad
// with v the formula of the op. Pointers are of the op's storage type, except that weights are of its accumulation type
// (float; double for double); factor and offset are numbers.
struct Segment {
  const void* x;
  const void* y;
  const void* w;
  const void* p;
  const void* c;
  long long inner;
  long long n;
  void* value;
  void* grad;
  void* grad2;
  double factor;
  double offset;
};

// What is summed over a segment, before any division.
struct Sums {
  double value = 0;
  double derivative = 0;
  double x = 0, x_sign = 0;
  double y = 0, y_sign = 0;
  double invalid = 0;  // elements outside the formula's domain, where the op asks for the check
};

enum class Mode : int { Reduce = 0, ReduceGrad = 1, Value = 2, Grad = 3 };

}  // namespace gan_fast
