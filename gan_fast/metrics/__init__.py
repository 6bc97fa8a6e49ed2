"""How good samples are, offline: a proxy Frechet distance beside its floors, class coverage, and a replay check;
of class-conditional samples how many are what was asked for; of toy distributions how many modes were found, beside
uniform noise; of stacked digits how many of 1,000; of translations whether style was reached and content kept; of
sounds how many a classifier recognises, and of vocoders the error of the mel spectrogram beside Griffin-Lim's.
"""

from gan_fast.metrics.agreement import Agreement, class_agreement
from gan_fast.metrics.features import Extractor, extractor_for
from gan_fast.metrics.figures import (
    Replay,
    class_coverage,
    gaussian_baseline,
    nearest_neighbour_ratio,
    proxy_frechet,
    untrained_baseline,
)
from gan_fast.metrics.frechet import Moments, frechet_distance, moments
from gan_fast.metrics.modes import DEFAULT_POINTS, ModeFigures, ModeReport, evaluate_points, mode_figures
from gan_fast.metrics.report import DEFAULT_SAMPLES, QualityReport, evaluate_samples
from gan_fast.metrics.sounds import (
    DEFAULT_SOUNDS,
    DEFAULT_VOCODED,
    SoundReport,
    VocoderReport,
    evaluate_sounds,
    evaluate_vocoder,
)
from gan_fast.metrics.stacked import DEFAULT_STACKED, StackedFigures, StackedReport, evaluate_stacked, stacked_figures
from gan_fast.metrics.translation import TranslationFigures, TranslationReport, evaluate_translation

__all__ = [
    "DEFAULT_POINTS",
    "DEFAULT_SAMPLES",
    "DEFAULT_SOUNDS",
    "DEFAULT_STACKED",
    "DEFAULT_VOCODED",
    "Agreement",
    "Extractor",
    "ModeFigures",
    "ModeReport",
    "Moments",
    "QualityReport",
    "Replay",
    "SoundReport",
    "StackedFigures",
    "StackedReport",
    "TranslationFigures",
    "TranslationReport",
    "VocoderReport",
    "class_agreement",
    "class_coverage",
    "evaluate_points",
    "evaluate_samples",
    "evaluate_sounds",
    "evaluate_stacked",
    "evaluate_translation",
    "evaluate_vocoder",
    "extractor_for",
    "frechet_distance",
    "gaussian_baseline",
    "mode_figures",
    "moments",
    "nearest_neighbour_ratio",
    "proxy_frechet",
    "stacked_figures",
    "untrained_baseline",
]
