"""Filters of the augmentations, from the orthonormal wavelets sym6 and sym2 (Daubechies, "Ten Lectures on Wavelets").

A scaling filter h has sum_k h_k h_{k+2m} = [m = 0]: upsampling by 2 with h and downsampling with h mirrored returns
the image. Half-band powers of sym2, L(z) = h(z) h(1/z) / 2 and H(z) = L(-z), add up to 1, and so do the four bands

    H(z),   L(z) H(z^2),   L(z) L(z^2) H(z^4),   L(z) L(z^2) L(z^4)

of frequencies [pi/2, pi], [pi/4, pi/2], [pi/8, pi/4] and [0, pi/8].
"""

from __future__ import annotations

import torch
from torch import Tensor

SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)


def bands() -> Tensor:
    """fp32 `[4, 43]`, symmetric filters of the four bands, lowest first; their sum is the unit impulse."""
    h = torch.tensor(SYM2, dtype=torch.float64)
    low = _convolve(h, h.flip(0)) / 2
    high = low * torch.tensor([-1.0, 1.0] * 4, dtype=torch.float64)[: len(low)]
    one = torch.ones(1, dtype=torch.float64)
    low_2, low_4 = _spread(low, 2), _spread(low, 4)
    rows = [
        _convolve(_convolve(low, low_2), low_4),
        _convolve(_convolve(low, low_2), _spread(high, 4)),
        _convolve(low, _spread(high, 2)),
        _convolve(high, one),
    ]
    width = len(rows[0])
    centred = [torch.nn.functional.pad(row, [(width - len(row)) // 2] * 2) for row in rows]
    return torch.stack(centred).float()


def _convolve(a: Tensor, b: Tensor) -> Tensor:
    product = torch.zeros(len(a) + len(b) - 1, dtype=a.dtype)
    for k in range(len(b)):
        product[k : k + len(a)] += b[k] * a
    return product


def _spread(filter_: Tensor, factor: int) -> Tensor:
    """f(z) to f(z^factor)."""
    wide = torch.zeros((len(filter_) - 1) * factor + 1, dtype=filter_.dtype)
    wide[::factor] = filter_
    return wide
