"""Layers as functions, with torch.nn.functional's arguments, whose gradients of gradients cost what they must.

Every op here is closed under differentiation (see `csrc/common/bilinear.h`): any order of gradient is made of the same
few products, grouped convolutions are never taken apart, nothing is computed with zeros, and no gradient that nobody
asked for. Values and first gradients are aten's own. `gan_fast.penalties.fast_double_backward` puts them in place of
torch's in code that is already written.
"""

from gan_fast.ops.activation import leaky_relu, relu
from gan_fast.ops.convolution import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from gan_fast.ops.filtered_lrelu import filtered_lrelu
from gan_fast.ops.grid_sample import grid_sample
from gan_fast.ops.linear import linear
from gan_fast.ops.pooling import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool2d,
)

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "avg_pool1d",
    "avg_pool2d",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "filtered_lrelu",
    "grid_sample",
    "leaky_relu",
    "linear",
    "max_pool1d",
    "max_pool2d",
    "relu",
]
