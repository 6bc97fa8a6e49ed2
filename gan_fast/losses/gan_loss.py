"""`GANLoss`, the signature that image-translation code bases copied from one another, served by the fused losses."""

from __future__ import annotations

import torch
from torch import Tensor

from gan_fast.losses.adversarial import Logits, Term, evaluate_single
from gan_fast.reference.adversarial_loss import Kind


class GANLoss(torch.nn.Module):
    """`GANLoss(gan_mode)(prediction, target_is_real)`, averaged over the prediction; a list of scales is summed.

    | gan_mode | loss of x for real, for fake |
    |---|---|
    | vanilla | binary cross entropy of sigmoid(x) with the real / fake label |
    | lsgan | (x - label)^2, without a factor 1/2, as the code bases have it |
    | wgangp | -x, x |
    | hinge | max(0, 1 - x), max(0, 1 + x): the critic's side; the generator's is `wgangp` with target_is_real=True |
    | nonsaturating | softplus(-x), softplus(x) |

    Args:
        gan_mode: one of the names above.
        target_real_label: the label of real for vanilla and lsgan.
        target_fake_label: the label of fake for vanilla and lsgan.

    Input: logits of any shape, or a list of them. Output: 0-dim, float32 (float64 for float64 logits).

    Source: the interface of Zhu et al. 2017 (CycleGAN); losses as in `gan_fast.losses`.
    """

    MODES = ("vanilla", "lsgan", "wgangp", "hinge", "nonsaturating")

    def __init__(self, gan_mode: str, target_real_label: float = 1.0, target_fake_label: float = 0.0) -> None:
        super().__init__()
        if gan_mode not in self.MODES:
            raise ValueError(f"gan_mode is {gan_mode!r}; expected one of {', '.join(self.MODES)}")
        self.gan_mode = gan_mode
        self.target_real_label = float(target_real_label)
        self.target_fake_label = float(target_fake_label)

    def _term(self, target_is_real: bool) -> tuple[Kind, Term]:
        sign = -1.0 if target_is_real else 1.0
        label = self.target_real_label if target_is_real else self.target_fake_label
        if self.gan_mode == "vanilla":
            # cross entropy with label t is softplus(x) - t x; for t = 1 the form without cancellation is softplus(-x)
            return (Kind.SOFTPLUS, (-1.0, 1.0, 1.0 - label)) if label > 0.5 else (Kind.SOFTPLUS, (1.0, 1.0, -label))
        if self.gan_mode == "lsgan":
            return Kind.SQUARE, (label, 2.0, 0.0)
        if self.gan_mode == "wgangp":
            return Kind.LINEAR, (0.0, sign, 0.0)
        if self.gan_mode == "hinge":
            return Kind.HINGE, (sign, 1.0, 0.0)
        return Kind.SOFTPLUS, (sign, 1.0, 0.0)

    def forward(self, prediction: Logits, target_is_real: bool) -> Tensor:
        kind, term = self._term(bool(target_is_real))
        return evaluate_single(kind, term, prediction)

    def extra_repr(self) -> str:
        return f"{self.gan_mode!r}, {self.target_real_label}, {self.target_fake_label}"
