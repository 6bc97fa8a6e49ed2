"""Wav files in every format, refusals in words, and resampling against sounds made at the other rate."""

from __future__ import annotations

import io
import sys
import wave

import numpy as np
import pytest
import torch

from gan_fast.sound import decode_wav, encode_wav, resample
from gan_fast.sound.wav import WavError
from sound.clips import tone, wav_bytes

PCM, FLOAT = 1, 3
VALUES = [0.0, 0.5, -0.5, 0.25, -1.0, 127 / 128]


def raw(kind: int, bits: int) -> bytes:
    """VALUES as a format has them; all are exact in 8 bits."""
    x = np.array(VALUES)
    if kind == FLOAT:
        return x.astype(f"<f{bits // 8}").tobytes()
    if bits == 8:
        return (x * 128 + 128).astype("u1").tobytes()
    whole = (x * 2 ** (bits - 1)).astype("<i8")
    return b"".join(int(v).to_bytes(bits // 8, "little", signed=True) for v in whole)


@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("kind", "bits"), [(PCM, 8), (PCM, 16), (PCM, 24), (PCM, 32), (FLOAT, 32), (FLOAT, 64)])
def test_every_format_gives_the_same_waveform(kind, bits, extensible):
    samples, rate = decode_wav(wav_bytes(raw(kind, bits), kind, bits, rate=11_025, extensible=extensible))
    assert rate == 11_025 and samples.tolist() == VALUES
    stereo, _ = decode_wav(wav_bytes(raw(kind, bits), kind, bits, channels=2, extensible=extensible))
    assert stereo.tolist() == [0.25, -0.125, (127 / 128 - 1) / 2]


def test_what_is_written_is_what_the_standard_library_reads():
    samples = torch.tensor([0.0, 0.5, -1.0, 2.0, -2.0, 1 / 32768])
    content = encode_wav(samples, 16_000)
    with wave.open(io.BytesIO(content)) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        read = np.frombuffer(file.readframes(6), "<i2")
    assert read.tolist() == [0, 16384, -32768, 32767, -32768, 1], "rounded and clipped"
    again, rate = decode_wav(content)
    assert rate == 16_000 and torch.equal(again * 32768, torch.from_numpy(read.copy()).float())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG" * 9, "not a wav file"),
        (wav_bytes(raw(PCM, 16), PCM, 16)[:-4], "cut off"),
        (wav_bytes(b"", PCM, 16), "without samples"),
        (wav_bytes(raw(PCM, 8), 7, 8), "8-bit format 7 samples: PCM of 8 to 32 bits and float are read"),
        (wav_bytes(np.array([0.0, np.nan], "<f4").tobytes(), FLOAT, 32), "infinite or NaN"),
        (wav_bytes(raw(PCM, 16), PCM, 16)[:44] + b"\0" * 40, "without samples|without a header|cut off"),
    ],
    ids=["png", "cut", "empty", "mu-law", "nan", "mangled"],
)
def test_refusals(content, message):
    with pytest.raises(WavError, match=message):
        decode_wav(content)


@pytest.mark.parametrize(("before", "after"), [(22_050, 16_000), (8000, 16_000), (44_100, 8000)])
def test_resampling_is_sampling_at_the_other_rate(before, after):
    got = resample(tone(440, before // 2, before, 0.3), before, after)
    expected = tone(440, after // 2, after, 0.3)
    assert len(got) == len(expected)
    inside = slice(200, -200)  # the filter hears silence beyond the ends
    torch.testing.assert_close(got[inside], expected[inside], atol=2e-3, rtol=0)
    assert resample(expected, after, after) is expected


def test_without_scipy_another_rate_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(WavError, match=r"22050 Hz where 16000 Hz is asked for.*pip install scipy"):
        resample(torch.zeros(100), 22_050, 16_000)


def test_resampling_leaves_nothing_above_half_the_new_rate():
    """A tone of 6,000 Hz at 16,000 would be heard at 2,000 Hz where every second sample is taken."""
    high = tone(6000, 8000, 16_000)
    assert high[::2].abs().max() > 0.4
    assert resample(high, 16_000, 8000)[200:-200].abs().max() < 0.01
