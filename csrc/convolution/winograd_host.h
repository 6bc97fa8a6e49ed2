// Which convolutions Winograd's kernels of the CPU run, and the runs.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <string>

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

}  // namespace gan_fast
