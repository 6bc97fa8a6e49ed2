"""Sound: wav files, resampling, the mel front end and its inversion by Griffin-Lim.

A waveform is fp32 `[T]` in [-1, 1] with its rate in samples per second; batches of them are `[N, 1, T]`.
"""

from gan_fast.sound.griffin_lim import griffin_lim
from gan_fast.sound.mel import MelSettings, MelSpectrogram, mel_filters, mel_l1
from gan_fast.sound.wav import decode_wav, encode_wav, resample

__all__ = [
    "MelSettings",
    "MelSpectrogram",
    "decode_wav",
    "encode_wav",
    "griffin_lim",
    "mel_filters",
    "mel_l1",
    "resample",
]
