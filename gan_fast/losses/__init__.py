"""Fused losses: drop-ins for PyTorch's, the seven adversarial losses, `GANLoss`, and what is added to them."""

from gan_fast.losses.adversarial import (
    LOSSES,
    AdversarialLoss,
    CriticStats,
    Debts,
    HingeLoss,
    LeastSquaresLoss,
    LossTerms,
    MinimaxLoss,
    NonSaturatingLoss,
    RelativisticAverageLoss,
    RelativisticLoss,
    WassersteinLoss,
    get,
)
from gan_fast.losses.auxiliary import auxiliary_classifier, cycle_consistency, feature_matching, identity
from gan_fast.losses.drop_in import (
    BCELoss,
    BCEWithLogitsLoss,
    LogSigmoid,
    Softplus,
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    logsigmoid,
    softplus,
)
from gan_fast.losses.gan_loss import GANLoss

__all__ = [
    "LOSSES",
    "AdversarialLoss",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CriticStats",
    "Debts",
    "GANLoss",
    "HingeLoss",
    "LeastSquaresLoss",
    "LogSigmoid",
    "LossTerms",
    "MinimaxLoss",
    "NonSaturatingLoss",
    "RelativisticAverageLoss",
    "RelativisticLoss",
    "Softplus",
    "WassersteinLoss",
    "auxiliary_classifier",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cycle_consistency",
    "feature_matching",
    "get",
    "identity",
    "logsigmoid",
    "softplus",
]
