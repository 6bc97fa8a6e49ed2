"""Wav files to waveforms and back, and waveforms to another rate.

    8 bits      x = (b - 128) / 128                        unsigned
    16, 24, 32  x = i / 2^(bits - 1)                       signed, little-endian
    float       x as it is                                 32 or 64 bits
    channels    their mean

Reading walks the RIFF chunks itself: the standard library's `wave` refuses float samples, and before Python 3.12 the
extensible header that 24-bit files usually have. Writing is `wave`, 16-bit PCM.
"""

from __future__ import annotations

import io
import math
import struct
import wave

import torch
from torch import Tensor

# Of the fmt chunk: WAVE_FORMAT_PCM, _IEEE_FLOAT, _EXTENSIBLE.
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
# The longest file read: three hours at 48 kHz.
MOST_SAMPLES = 3 * 3600 * 48_000


class WavError(ValueError):
    """Bytes that are no wav file of a kind that is read. The message is a reason, without the file's name."""


def decode_wav(content: bytes) -> tuple[Tensor, int]:
    """fp32 `[T]`, the mean of all channels, and the rate of a wav file's bytes; WavError where it cannot be read."""
    if len(content) < 12 or content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        raise WavError("not a wav file")
    form, data, position = b"", None, 12
    while position + 8 <= len(content) and data is None:
        name, size = struct.unpack_from("<4sI", content, position)
        body = content[position + 8 : position + 8 + size]
        if name == b"fmt ":
            form = body
        elif name == b"data":
            # A writer to a pipe cannot know the size: it leaves the largest there is, or 0, and the data goes on.
            piped = size >= 0x7FFFF000 or (size == 0 and position + 8 < len(content))
            if len(body) < size and not piped:
                raise WavError("cut off: fewer samples than its header says")
            data = content[position + 8 :] if piped else body
        position += 8 + size + size % 2
    if len(form) < 16 or data is None:
        raise WavError("a wav file without a header or without samples")
    kind, channels, rate, _, block, bits = struct.unpack_from("<HHIIHH", form)
    if kind == _EXTENSIBLE and len(form) >= 26:
        kind = struct.unpack_from("<H", form, 24)[0]
    width = bits // 8
    if not channels or not rate or block != channels * width:
        raise WavError(f"a wav header that makes no sense: {channels} channels, {rate} Hz, {bits} bits, block {block}")
    frames = len(data) // block
    if not frames:
        raise WavError("a wav file without samples")
    if frames > MOST_SAMPLES:
        raise WavError(f"more than {MOST_SAMPLES:,} samples: cut it into pieces")
    samples = _samples(data[: frames * block], kind, bits)
    if not bool(samples.isfinite().all()):
        raise WavError("samples that are infinite or NaN")
    return samples.view(frames, channels).mean(1), rate


def _samples(data: bytes, kind: int, bits: int) -> Tensor:
    raw = bytearray(data)
    if kind == _FLOAT and bits in (32, 64):
        return torch.frombuffer(raw, dtype=torch.float32 if bits == 32 else torch.float64).float()
    if kind == _PCM and bits == 8:
        return (torch.frombuffer(raw, dtype=torch.uint8).float() - 128) / 128
    if kind == _PCM and bits == 16:
        return torch.frombuffer(raw, dtype=torch.int16).float() / 32768
    if kind == _PCM and bits == 32:
        return (torch.frombuffer(raw, dtype=torch.int32).double() / 2**31).float()
    if kind == _PCM and bits == 24:
        low, middle, high = torch.frombuffer(raw, dtype=torch.uint8).view(-1, 3).to(torch.int32).unbind(1)
        signed = torch.where(high >= 128, high - 256, high)
        return (low + 256 * middle + 65536 * signed).float() / 2**23
    what = {_PCM: "PCM", _FLOAT: "float"}.get(kind, f"format {kind}")
    raise WavError(f"{bits}-bit {what} samples: PCM of 8 to 32 bits and float are read, convert it to 16-bit PCM")


def to_int16(samples: Tensor) -> Tensor:
    """int16 of a waveform in [-1, 1], rounded; what lies beyond is clipped."""
    return samples.detach().float().cpu().mul(32768).round_().clamp_(-32768, 32767).to(torch.int16)


def encode_wav(samples: Tensor, rate: int) -> bytes:
    """The bytes of a 16-bit PCM wav file of one channel, from a waveform `[T]` in [-1, 1]."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(to_int16(samples).numpy().tobytes())
    return buffer.getvalue()


def resample(samples: Tensor, before: int, after: int) -> Tensor:
    """A waveform `[T]` at `before` samples per second, at `after`: `[ceil(T after / before)]`.

    Polyphase, with scipy's anti-aliasing filter (Kaiser window, beta 5). WavError without scipy.
    """
    if before == after:
        return samples
    try:
        from scipy.signal import resample_poly
    except ImportError:
        raise WavError(
            f"{before} Hz where {after} Hz is asked for, and resampling needs scipy, which is not installed: "
            "pip install scipy, or convert the files"
        ) from None
    common = math.gcd(before, after)
    return torch.from_numpy(resample_poly(samples.double().numpy(), after // common, before // common)).float()
