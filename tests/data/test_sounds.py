"""Sounds from folders: clips, splits, classes, what is left out, and crops that resume and are shared."""

from __future__ import annotations

import sys

import pytest
import torch

from gan_fast.data import BatchSampler, DataError, SoundDataset, load_sounds
from gan_fast.sound import encode_wav
from sound.clips import folder, tone, write


def test_a_folder_of_classes(tmp_path):
    root = folder(tmp_path / "beeps", 8000, 1024)
    (root / "train" / "rise" / "notes.txt").write_text("not a sound")
    (root / "train" / "rise" / "broken.wav").write_bytes(b"RIFF....WAVE")
    write(root / "train" / "rise" / "silent.wav", torch.zeros(100), 8000)
    data = load_sounds(root, length=1024, rate=8000)
    assert (len(data), len(data.held_out), data.shape, data.classes) == (24, 12, (1, 1024), ("fall", "rise"))
    assert {reason: len(names) for reason, names in data.skipped.items()} == {
        "not a wav file": 1,
        "a wav file without a header or without samples": 1,
        "silent from beginning to end": 1,
    }
    assert data.label_batch(torch.tensor([0, 23])).tolist() == [0, 1] and data.files[0] == "train/fall/000.wav"
    batch = data.float_batch(torch.tensor([0, 5]))
    assert batch.shape == (2, 1, 1024) and batch.abs().max() <= 1
    # File 5 is 35 samples shorter than a clip.
    assert (batch[1, 0, -35:] == 0).all() and torch.equal(batch[1, 0, :-35], list(data.sounds())[5])
    assert data.fingerprint == load_sounds(root, length=512, rate=8000).fingerprint != data.held_out.fingerprint
    assert load_sounds(root, length=8, rate=8000, split="all", limit=5).starts.shape == (6,)


def test_clips_of_a_long_file_lie_anywhere_in_it():
    ramp = torch.arange(-500, 500, dtype=torch.int16)
    data = SoundDataset(torch.cat([ramp, ramp[:10]]), torch.tensor([0, 1000, 1010]), length=100, rate=8000)
    crop = torch.linspace(0, 1, 5, dtype=torch.float64).clamp_max(1 - 1e-12)
    clips = data.float_batch(torch.zeros(5, dtype=torch.int64), crop=crop) * 32768
    begin = clips[:, 0, 0]
    assert begin.tolist() == [-500, -275, -50, 175, 400], "the last clip ends where the file does"
    assert (clips.diff(dim=2) == 1).all()
    short = data.float_batch(torch.ones(5, dtype=torch.int64), crop=crop) * 32768
    assert (short[:, 0, :10] == ramp[:10]).all() and (short[:, 0, 10:] == 0).all()


def test_files_of_another_rate_are_resampled_or_refused(tmp_path, monkeypatch):
    write(tmp_path / "a.wav", tone(300, 4410, 22_050), 22_050)
    assert len(load_sounds(tmp_path, length=100, rate=8000).audio) == 1600
    monkeypatch.setitem(sys.modules, "scipy.signal", None)
    with pytest.raises(DataError, match=r"a\.wav: 22050 Hz where 8000 Hz is asked for"):
        load_sounds(tmp_path, length=100, rate=8000)


def test_a_tenth_is_held_out_of_fifty(tmp_path):
    content = encode_wav(torch.ones(20), 8000)
    for k in range(50):
        (tmp_path / f"{k}.wav").write_bytes(content)
    data = load_sounds(tmp_path, length=10, rate=8000)
    assert (len(data), len(data.held_out), data.labels) == (45, 5, None)
    (tmp_path / "49.wav").unlink()
    assert load_sounds(tmp_path, length=10, rate=8000).held_out is None


def test_what_cannot_be_loaded(tmp_path):
    with pytest.raises(DataError, match=r"no such file or folder.*gan_fast\.sound\.speak"):
        load_sounds(tmp_path / "nothing", length=10, rate=8000)
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no sound of .* can be used: 1 not a wav file \(such as a\.png\)"):
        load_sounds(tmp_path, length=10, rate=8000)


def test_crops_resume_exactly_and_ranks_share_them():
    whole = BatchSampler(7, 4, seed=1, crop=True)
    ranks = [BatchSampler(7, 4, seed=1, rank=r, world=2, crop=True) for r in range(2)]
    for _ in range(5):
        one, many = next(whole), [next(rank) for rank in ranks]
        assert torch.equal(one.crop, torch.cat([batch.crop for batch in many])) and one.flip is None
    again = BatchSampler(7, 4, crop=True)
    again.load_state_dict(whole.state_dict())
    assert all(torch.equal(next(again).crop, next(whole).crop) for _ in range(5))
    # The order is the one without crops.
    assert torch.equal(next(BatchSampler(7, 4, seed=1)).indices, next(BatchSampler(7, 4, seed=1, crop=True)).indices)
