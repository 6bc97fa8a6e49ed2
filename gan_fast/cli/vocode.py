"""gan-fast vocode --run RUN --data FOLDER --out FOLDER"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from gan_fast.cli import UsageError
from gan_fast.cli.parse import parse
from gan_fast.data import load_sounds
from gan_fast.sound.mel import fit_to_hop, mel_l1
from gan_fast.training import folder, machine, sounds
from gan_fast.training.vocoding import Vocoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vocode:
    """Send wav files through a trained hifigan: sound to mel spectrogram and back to sound."""

    data: Path
    """Folder or zip of wav files of any rate and length."""

    run: Path | None = None
    """Run folder or checkpoint of hifigan. Default: the newest run under runs/."""

    out: Path = Path("vocoded")
    """Folder to write to; files keep their names."""

    griffin_lim: bool = False
    """Write Griffin-Lim's 60 iterations beside each, as NAME-griffin-lim.wav."""

    device: str = "auto"
    """auto, cpu, cuda, ..."""

    def __post_init__(self) -> None:
        if self.out.resolve() == self.data.resolve():
            raise UsageError(f"--out is the folder of the data, {self.data}: choose another")


def main(argv: Sequence[str]) -> int:
    options = parse(Vocode, argv, "vocode")
    vocoder = Vocoder(options.run or folder.newest(), machine.choose_device(options.device))
    mel = vocoder.generator.mel
    # Whole files: the length of a clip does not matter.
    dataset = load_sounds(options.data, length=1, rate=vocoder.rate, split="all")
    for reason, names in dataset.skipped.items():
        print(f"skipped {len(names)}: {reason} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})")
    error = spent = 0.0
    for name, audio in zip(dataset.files, dataset.sounds(), strict=True):
        began = time.perf_counter()
        made = vocoder.vocode(audio)
        spent += time.perf_counter() - began
        fitted = (fit_to_hop(x, mel.settings).to(vocoder.device) for x in (audio, made))
        error += float(mel_l1(mel, *fitted)) / len(dataset)
        target = options.out / Path(name).with_suffix("")
        sounds.save_wavs(target.parent, made[None, None], vocoder.rate, [target.name])
        if options.griffin_lim:
            plain = vocoder.griffin_lim(audio)
            sounds.save_wavs(target.parent, plain[None, None], vocoder.rate, [f"{target.name}-griffin-lim"])
    print(
        f"{len(dataset)} files, {dataset.seconds:.1f} seconds of sound, through {vocoder.source}: mel L1 {error:.3f}, "
        f"{spent / dataset.seconds:.3f} seconds of computing for each of sound; written to {options.out}"
    )
    return 0
