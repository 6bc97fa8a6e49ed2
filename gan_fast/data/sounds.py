"""Sounds as one int16 tensor, file after file, and the fixed-length clips a network sees:

x = i / 32768        i samples s .. s + length - 1 of a file,   s = floor(u (T - length + 1)),  u uniform in [0, 1)

A file shorter than a clip is followed by zeros.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from gan_fast.data.decode import Unusable
from gan_fast.data.errors import DataError
from gan_fast.data.files import Candidate, collect
from gan_fast.data.reading import describe_skipped
from gan_fast.data.splits import check_split, stratified, subset
from gan_fast.sound.wav import WavError, decode_wav, resample, to_int16

# Fewer files than pictures need to be worth holding a tenth out: one file is many clips.
FEWEST_TO_SPLIT = 50


class SoundDataset:
    """Sounds in memory.

    Attributes:
        audio: int16 `[total]`, all files end to end.
        starts: int64 `[N + 1]`: file k is audio[starts[k]:starts[k + 1]].
        length: samples of a clip.
        rate: samples per second.
        labels: int64 `[N]`, or None.
        classes: names of the labels; empty without labels.
        name: what a person calls the data.
        split: "train", "test" or "all".
        files: their names, where they came from files.
        skipped: for every reason, the files that were left out while loading.
        held_out: the sounds kept away from training, or None.
    """

    def __init__(
        self,
        audio: Tensor,
        starts: Tensor,
        *,
        length: int,
        rate: int,
        labels: Tensor | None = None,
        classes: Sequence[str] = (),
        name: str = "sounds",
        split: str = "train",
        files: Sequence[str] = (),
        skipped: dict[str, list[str]] | None = None,
        held_out: SoundDataset | None = None,
    ) -> None:
        if audio.dtype != torch.int16 or audio.ndim != 1 or starts.dtype != torch.int64 or starts.ndim != 1:
            raise DataError(
                "sounds must be int16 [total] and their starts int64 [N + 1]; got "
                f"{audio.dtype} {list(audio.shape)} and {starts.dtype} {list(starts.shape)}"
            )
        if len(starts) < 2 or int(starts[0]) != 0 or int(starts[-1]) != len(audio) or bool((starts.diff() < 1).any()):
            raise DataError(f"starts must rise from 0 to the {len(audio)} samples, one sound or more between")
        if labels is not None and (labels.dtype != torch.int64 or len(labels) != len(starts) - 1):
            raise DataError(f"labels must be int64 [{len(starts) - 1}]; got {labels.dtype} {list(labels.shape)}")
        if length < 1 or rate < 1:
            raise DataError(f"length and rate must be at least 1; got {length} and {rate}")
        self.audio, self.starts, self.length, self.rate = audio, starts, length, rate
        self.labels = labels
        self.classes = tuple(classes)
        self.name = name
        self.split = split
        self.files = tuple(files)
        self.skipped = skipped or {}
        self.held_out = held_out
        self._fingerprint: str | None = None

    def __len__(self) -> int:
        return len(self.starts) - 1

    def __repr__(self) -> str:
        return (
            f"SoundDataset({self.name!r}, {self.split}, {len(self)} sounds, clips of {self.length} at {self.rate} Hz)"
        )

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one clip: `(1, length)`."""
        return (1, self.length)

    @property
    def seconds(self) -> float:
        return len(self.audio) / self.rate

    @property
    def fingerprint(self) -> str:
        """sha256 of rate, samples, where they begin and labels; the clips' length is a setting of the recipe."""
        if self._fingerprint is None:
            digest = hashlib.sha256(f"sounds {self.rate} {self.classes}".encode())
            for values in (self.audio, self.starts, self.labels):
                if values is not None:
                    digest.update(values.contiguous().numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    def sounds(self) -> Iterator[Tensor]:
        """Every file whole, fp32 `[T]`."""
        for start, end in zip(self.starts.tolist(), self.starts.tolist()[1:], strict=False):
            yield self.audio[start:end].float() / 32768

    def float_batch(
        self,
        indices: Tensor,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        *,
        flip: Tensor | None = None,
        crop: Tensor | None = None,
    ) -> Tensor:
        """Clips `[B, 1, length]` in [-1, 1) for int64 `indices` `[B]`. `crop`, fp `[B]` in [0, 1), says where in its
        file each lies (see `BatchSampler`); without it a clip is the file's beginning."""
        if flip is not None:
            raise DataError(f"{self.name} holds sounds, which are not mirrored: train without flip")
        begin, end = self.starts[indices], self.starts[indices + 1]
        if crop is not None:
            places = (end - begin - self.length + 1).clamp_min(1)
            begin = begin + (crop.double() * places).long()
        where = begin[:, None] + torch.arange(self.length)
        samples = self.audio[where.clamp_max(len(self.audio) - 1)].masked_fill(where >= end[:, None], 0)
        return (samples[:, None].to(device, non_blocking=True).to(torch.float32) / 32768).to(dtype)

    def label_batch(self, indices: Tensor, device: torch.device | str = "cpu") -> Tensor:
        """Labels int64 `[B]`; raises DataError where the data has none."""
        if self.labels is None:
            raise DataError(f"{self.name} has no labels: put the sounds of each class in a folder of their own")
        return self.labels[indices].to(device, non_blocking=True)


def load_sounds(
    spec: str | os.PathLike[str], *, length: int, rate: int, split: str = "train", limit: int | None = None
) -> SoundDataset:
    """The wav files of a folder or a zip, at `rate` samples per second, for clips of `length` samples.

    Folders inside are classes where there are two or more; folders named train and test split the data, otherwise a
    tenth is held out where there are at least 50 files. `limit`: at most this many files, a fixed random choice.

    Raises:
        DataError: data missing, unreadable or empty, in one message that says what to do.
    """
    check_split(split)
    path = Path(spec).expanduser()
    if not path.exists():
        raise DataError(
            f"{spec}: there is no such file or folder (looked at {path.absolute()}). Sound recipes train on a folder "
            "or a zip of wav files: give one with --data. `python -m gan_fast.sound.speak digits FOLDER` makes one"
        )
    collection = collect(path)
    labels = None if collection.labels is None else torch.tensor(collection.labels)
    if collection.held is not None:
        held = torch.tensor(collection.held)
    else:
        held = torch.zeros(len(collection.candidates), dtype=torch.bool)
        if len(held) >= FEWEST_TO_SPLIT:
            held[stratified(torch.zeros(len(held), dtype=torch.int64) if labels is None else labels, 0.1)[1]] = True
    skipped = {reason: list(names) for reason, names in collection.refused.items()}

    def part(wanted: Tensor, split: str, held_out: SoundDataset | None = None) -> SoundDataset | None:
        every = wanted.nonzero().flatten()
        indices = every[subset(len(every), limit)].tolist()
        sounds, kept = [], []
        for index, outcome in zip(indices, _read_all([collection.candidates[i] for i in indices], rate), strict=True):
            if isinstance(outcome, str):
                skipped.setdefault(outcome, []).append(collection.candidates[index].name)
            else:
                sounds.append(outcome)
                kept.append(index)
        if not sounds:
            return None
        return SoundDataset(
            torch.cat(sounds),
            torch.tensor([0, *(len(sound) for sound in sounds)]).cumsum(0),
            length=length,
            rate=rate,
            labels=None if labels is None else labels[kept],
            classes=collection.classes,
            name=collection.name,
            split=split,
            files=[collection.candidates[i].name for i in kept],
            skipped=skipped,
            held_out=held_out,
        )

    if split == "train":
        dataset = part(~held, split, part(held, "test"))
    else:
        dataset = part(held if split == "test" else torch.ones_like(held), split)
    if dataset is None:
        raise DataError(f"no sound of {collection.name} ({split}) can be used: {describe_skipped(skipped)}")
    return dataset


def _read_all(candidates: Sequence[Candidate], rate: int) -> Iterator[Tensor | str]:
    """Of every file, in order, int16 `[T]` at `rate`, or the reason why not."""

    def one(candidate: Candidate) -> Tensor | str:
        if not candidate.name.lower().endswith((".wav", ".wave")):
            return "not a wav file"
        try:
            source = candidate.source()
            content = Path(source).read_bytes() if isinstance(source, str) else source.getvalue()
            samples, before = decode_wav(content)
        except (WavError, Unusable) as fault:
            return str(fault)
        except OSError as error:
            return f"cannot be opened ({error.strerror})"
        try:
            samples = resample(samples, before, rate)
        except WavError as error:
            raise DataError(f"{candidate.name}: {error}") from None
        return to_int16(samples) if bool(samples.any()) else "silent from beginning to end"

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(one, candidates)
