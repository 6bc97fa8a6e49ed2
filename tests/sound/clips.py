"""Sounds made here: tones and chirps in folders, and wav files of any format from their bytes."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import torch

from gan_fast.sound import encode_wav


def tone(hertz: float, length: int, rate: int, phase: float = 0.0) -> torch.Tensor:
    return 0.5 * torch.sin(2 * math.pi * hertz * torch.arange(length, dtype=torch.float64) / rate + phase).float()


def chirp(low: float, high: float, length: int, rate: int) -> torch.Tensor:
    t = torch.arange(length, dtype=torch.float64) / rate
    return 0.5 * torch.sin(2 * math.pi * (low * t + (high - low) * t.square() * rate / (2 * length))).float()


def write(path: Path, samples: torch.Tensor, rate: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode_wav(samples, rate))


def folder(root: Path, rate: int, length: int, count: int = 12) -> Path:
    """Two classes, rising and falling chirps, `count` of each to train on and half as many held out."""
    stream = torch.Generator().manual_seed(0)
    for split, several in (("train", count), ("test", count // 2)):
        for k in range(several):
            low, high = (0.1 * rate * torch.rand(2, generator=stream)).tolist()
            ends, own = (low, 0.25 * rate + high), length - 7 * k
            write(root / split / "rise" / f"{k:03d}.wav", chirp(*ends, own, rate), rate)
            write(root / split / "fall" / f"{k:03d}.wav", chirp(*ends[::-1], own, rate), rate)
    return root


def wav_bytes(
    data: bytes, kind: int, bits: int, channels: int = 1, rate: int = 8000, extensible: bool = False
) -> bytes:
    """A wav file of raw samples, with a chunk of another program before them."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else kind, channels, rate, rate * block, block, bits)
    if extensible:
        form += struct.pack("<HHIH", 22, bits, 0, kind) + bytes.fromhex("000000001000800000aa00389b71")
    chunks = b"".join(
        name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)
        for name, body in ((b"fmt ", form), (b"LIST", b"odd"), (b"data", data))
    )
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks
