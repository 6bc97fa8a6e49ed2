"""Speech to train on, spoken by espeak-ng into wav files:

    python -m gan_fast.sound.speak digits FOLDER        FOLDER/train|test/zero..nine/VOICE-PITCH-SPEED.wav
    python -m gan_fast.sound.speak sentences FOLDER     FOLDER/train|test/NN-VOICE-PITCH.wav

Digits are held out by voice, pitch and speed, every fifth of these; sentences by their words: those under test are
never heard in training. Clips are trimmed of silence, brought to a peak of 0.9 and written at `--rate`, 16-bit PCM.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from gan_fast.sound.wav import WavError, decode_wav, encode_wav, resample

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = ("en-gb", "en-us", "en-gb-scotland", "en-gb-x-rp")
PITCHES = (30, 40, 50, 60)
SPEEDS = (210, 230, 250, 270)  # words a minute: at these a digit takes 0.3 to 0.5 seconds
SENTENCES = (
    "The boat left the harbour before the sun was up.",
    "Seven grey geese flew over the frozen lake.",
    "She put the letter under a heavy brass lamp.",
    "A cold wind shook the windows all night long.",
    "He asked for bread, two eggs and a cup of tea.",
    "My brother fixed the old wooden fence by himself.",
    "The judge thought about it and said nothing.",
    "Please bring the large yellow box to the kitchen.",
    "Every Thursday the choir sang in the village hall.",
    "It rained so hard that the road turned to mud.",
    "The young fox jumped quickly across the ditch.",
    "We could hear the train long before it came.",
    "They measured the depth of the well with a rope.",
    "Her voice was rough but very kind.",
    "The museum shows a ship built of oak and iron.",
    "Nobody knew which of the three keys was right.",
    "A pale moon rose behind the chimney.",
    "The teacher drew a perfect circle on the board.",
    "I should have bought a thicker pair of gloves.",
    "Fresh snow covered the garden and the path.",
    "The doctor washed his hands and opened the bag.",
    "Children were playing football in the street.",
    "An old clock struck four in the empty room.",
    "You can choose either the blue or the white one.",
    # from here on held out
    "The farmer sold his horses and moved to the coast.",
    "Bright flags hung above the market square.",
    "What would you do with an extra hour each day?",
    "The engine coughed twice and then went quiet.",
)
HELD_OUT_SENTENCES = 4
_SILENCE = 0.01


class SpeakError(RuntimeError):
    """espeak-ng is missing or failed."""


def speak(text: str, voice: str, pitch: int, speed: int) -> tuple[Tensor, int]:
    """A waveform `[T]` and its rate. Pitch 0 to 99, speed in words a minute. SpeakError without espeak-ng."""
    program = shutil.which("espeak-ng")
    if program is None:
        raise SpeakError("espeak-ng is not installed: apt install espeak-ng, or record clips of your own")
    command = [program, "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", text]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        raise SpeakError(f"espeak-ng failed on {text!r} as {voice}: {done.stderr.decode(errors='replace').strip()}")
    try:
        return decode_wav(done.stdout)
    except WavError as error:
        raise SpeakError(f"espeak-ng gave no sound for {text!r} as {voice}: {error}") from None


def tidy(samples: Tensor) -> Tensor:
    """Without the silence at both ends, with a peak of 0.9."""
    loud = (samples.abs() > _SILENCE * samples.abs().max()).nonzero().flatten()
    if not len(loud):
        raise SpeakError("espeak-ng gave silence")
    kept = samples[int(loud[0]) : int(loud[-1]) + 1]
    return kept * (0.9 / kept.abs().max())


def digits(voices: Sequence[str], pitches: Sequence[int], speeds: Sequence[int]) -> Iterator[tuple[str, Tensor, int]]:
    """(name below the folder, waveform, rate) of every digit by every voice, pitch and speed."""
    for v, p, s in itertools.product(range(len(voices)), range(len(pitches)), range(len(speeds))):
        voice, pitch, speed = voices[v], pitches[p], speeds[s]
        split = "test" if (v + 2 * p + 3 * s) % 5 == 0 else "train"
        for word in DIGITS:
            samples, rate = speak(word, voice, pitch, speed)
            yield f"{split}/{word}/{voice}-{pitch}-{speed}.wav", tidy(samples), rate


def sentences(voices: Sequence[str], pitches: Sequence[int], speed: int = 170) -> Iterator[tuple[str, Tensor, int]]:
    """The same of every sentence."""
    for (number, text), voice, pitch in itertools.product(enumerate(SENTENCES), voices, pitches):
        split = "test" if number >= len(SENTENCES) - HELD_OUT_SENTENCES else "train"
        samples, rate = speak(text, voice, pitch, speed)
        yield f"{split}/{number:02d}-{voice}-{pitch}.wav", tidy(samples), rate


def write(clips: Iterator[tuple[str, Tensor, int]], out: Path, rate: int) -> int:
    """Write clips at `rate`; returns how many."""
    count = 0
    for count, (name, samples, before) in enumerate(clips, 1):  # noqa: B007 (what is counted)
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_wav(resample(samples, before, rate), rate))
    return count


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m gan_fast.sound.speak", description="Speech spoken by espeak-ng.")
    parser.add_argument("what", choices=("digits", "sentences"))
    parser.add_argument("out", type=Path)
    parser.add_argument("--rate", type=int, default=16_000, help="samples per second (default: 16000)")
    parser.add_argument("--voices", nargs="+", default=VOICES, help="of espeak-ng --voices")
    parser.add_argument("--pitches", nargs="+", type=int, help="0 to 99")
    parser.add_argument("--speeds", nargs="+", type=int, default=SPEEDS, help="of digits, words a minute")
    options = parser.parse_args(argv)
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty: give a new folder")
    if options.what == "digits":
        clips = digits(options.voices, options.pitches or PITCHES, options.speeds)
    else:
        clips = sentences(options.voices, options.pitches or (40, 60))
    try:
        count = write(clips, options.out, options.rate)
    except (SpeakError, WavError) as error:
        print(f"speak: {error}", file=sys.stderr)
        return 1
    print(f"{count} clips at {options.rate} Hz in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
