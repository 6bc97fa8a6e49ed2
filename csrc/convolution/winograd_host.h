// Which convolutions Winograd's kernels of the CPU run, and the runs.
#pragma once

#include <ATen/ATen.h>

#include <array>
#include <optional>
#include <string>
#include <utility>

#include "convolution/winograd.h"

namespace gan_fast {

// auto: where it was measured to be faster (`winograd_serves`); always: wherever it can; never.
enum class WinogradMode { Auto, Always, Never };

// What set_winograd said last, else the environment variable GAN_FAST_WINOGRAD: auto, always or never.
void set_winograd(const std::string& name);
std::string winograd_mode();

// The three products of a convolution [N, I, H, W] x [O, I, 3, 3] at stride 1 with padding of 0 to 2.
enum class WinogradProduct { Output, InputGradient, WeightGradient };

struct WinogradGeometry {
  at::IntArrayRef stride, padding, dilation, output_padding;
  bool transposed;
  int64_t groups;
};

// Of a float32, float64 or bfloat16 tensor.
winograd::Storage winograd_storage(const at::Tensor& x);

// Whether memory can be read as it lies: a plain tensor of the CPU, dense or strided, that has its memory.
bool is_readable(const at::Tensor& t);

// Whether to run a product of aten's convolution of these arguments by Winograd's kernels. `image` is x for the output
// and dy for the gradients.
bool winograd_serves(
    WinogradProduct product, const at::Tensor& image, const at::Tensor& x, const at::Tensor& w,
    const WinogradGeometry& geometry);

// As aten's functions of these arguments give, memory order included; `winograd_serves` must have said yes.
at::Tensor winograd_output(
    const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& bias, const WinogradGeometry& geometry);
at::Tensor winograd_input_gradient(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, const WinogradGeometry& geometry);
at::Tensor winograd_weight_gradient(
    const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, const WinogradGeometry& geometry);

// ---- The products of a modulated convolution (`modulated_convolution/`), in float32, float64 and bfloat16

// Least channels of both sides, least tiles, and least pixels of a tile that lie within the image, on average; nothing
// where no such layer is run. Measured (docs/kernels.md): in bfloat16, by AVX512_BF16's sums of pairs, these save products
// that oneDNN makes; in float32 what is composed of `winograd_output` is as fast, and faster to second order. `narrow`: in
// bfloat16; `last`: images are channels last.
std::optional<std::array<int64_t, 3>> winograd_layer_limits(bool narrow, bool last);

// Whether to run them for images x and weights w, of x's type or of that of sums.
bool winograd_layer_serves(const at::Tensor& x, const at::Tensor& w, int64_t padding);

struct WinogradEpilogue {
  int64_t act;
  double alpha, gain, clamp;
};

at::Tensor winograd_layer(
    const at::Tensor& x, const at::Tensor& w, const at::Tensor& s, const at::Tensor& d, const at::Tensor& noise,
    const at::Tensor& bias, int64_t padding, const WinogradEpilogue& epilogue);
// dx and, where x is defined, ds.
std::pair<at::Tensor, at::Tensor> winograd_layer_input_gradient(
    const at::Tensor& dz, const at::Tensor& w, const at::Tensor& s, const at::Tensor& d, const at::Tensor& x,
    int64_t padding);
at::Tensor winograd_layer_weight_gradient(
    const at::Tensor& dz, const at::Tensor& x, const at::Tensor& s, const at::Tensor& d, int64_t padding);

}  // namespace gan_fast
