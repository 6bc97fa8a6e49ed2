"""What recipes of sound share: clips of one length at one rate, from a folder of wav files."""

from __future__ import annotations

import dataclasses

from gan_fast.data import SoundDataset, load_sounds
from gan_fast.training.recipe import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class SoundRecipe(Recipe):
    """Settings of the clips."""

    data: str = ""
    """A folder or zip of wav files, of any rate and length; folders inside are classes."""

    length: int = 8192
    """Samples of a training clip; files that are longer are cropped at random, shorter ones followed by silence."""

    rate: int = 16_000
    """Samples per second; files of another rate are resampled."""

    ema_kimg: float = 5.0
    """Half-life of the averaged generator, in thousand clips."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("resolution", "channels"):
            if getattr(self, name) is not None:
                raise ValueError(f"{name} is for images, and {self.name} trains on sounds: leave it out")
        if self.flip:
            raise ValueError(f"flip mirrors images, and {self.name} trains on sounds: leave it out")
        if self.updates != "alternating":
            raise ValueError(f"{self.name} trains with alternating updates only, got {self.updates!r}")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "length", "rate")

    def load_data(self) -> SoundDataset:
        if not self.data:
            raise ValueError(
                f"{self.name} trains on a folder of wav files: name it with --data "
                "(`python -m gan_fast.sound.speak digits FOLDER` makes one with espeak-ng)"
            )
        return load_sounds(self.data, length=self.length, rate=self.rate)

    def for_data(self, shape: tuple[int, ...], processes: int = 1) -> Recipe:
        if len(shape) != 2 or shape[0] != 1:
            raise ValueError(f"{self.name} trains on sounds [1, T] and the data given has samples {list(shape)}")
        if shape[1] != self.length:
            raise ValueError(f"recipe asks for clips of length {self.length} but the data given has {shape[1]}")
        return self
