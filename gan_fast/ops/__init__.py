"""Layers as functions, with torch.nn.functional's arguments, whose gradients of gradients cost what they must.

Every op here is closed under differentiation (see `csrc/common/bilinear.h`): any order of gradient is made of the same
few products, grouped convolutions are never taken apart, nothing is computed with zeros, and no gradient that nobody
asked for. Values and first gradients are aten's own, but for 3x3 convolutions that the CPU does in fewer products
(`gan_fast.ops.convolution`). `gan_fast.penalties.fast_double_backward` puts them in place of torch's in code that is
already written.
"""

from gan_fast.ops.activation import leaky_relu, relu
from gan_fast.ops.bias_act import bias_act
from gan_fast.ops.conv2d_resample import conv2d_resample
from gan_fast.ops.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from gan_fast.ops.filtered_lrelu import filtered_lrelu
from gan_fast.ops.fma import fma
from gan_fast.ops.grid_sample import grid_sample
from gan_fast.ops.linear import linear
from gan_fast.ops.minibatch_stddev import minibatch_stddev
from gan_fast.ops.modulated_conv2d import modulated_conv2d, modulated_conv2d_v3
from gan_fast.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)
from gan_fast.ops.upfirdn2d import (
    Downsample2d,
    Filter2d,
    Upsample2d,
    downsample2d,
    filter2d,
    setup_filter,
    upfirdn2d,
    upsample2d,
)

__all__ = [
    "Downsample2d",
    "Filter2d",
    "Upsample2d",
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "bias_act",
    "conv1d",
    "conv2d",
    "conv2d_resample",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "downsample2d",
    "filter2d",
    "filtered_lrelu",
    "fma",
    "grid_sample",
    "leaky_relu",
    "linear",
    "max_pool1d",
    "max_pool2d",
    "minibatch_stddev",
    "modulated_conv2d",
    "modulated_conv2d_v3",
    "relu",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]
