"""The loop around a step: devices, precision, averaging, checkpoints, logs, several processes."""

from gan_fast.training.checkpoint import CheckpointError
from gan_fast.training.evaluation import evaluate_run
from gan_fast.training.recipe import Budget, Recipe
from gan_fast.training.sampling import Sampler
from gan_fast.training.step import AdversarialStep, Latents, StepStats
from gan_fast.training.trainer import FitResult, NonFiniteError, Trainer

__all__ = [
    "AdversarialStep",
    "Budget",
    "CheckpointError",
    "FitResult",
    "Latents",
    "NonFiniteError",
    "Recipe",
    "Sampler",
    "StepStats",
    "Trainer",
    "evaluate_run",
]
