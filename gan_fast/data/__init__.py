"""Real data in: built-in images, folders, zips and packed files as uint8 tensors, points of toy distributions, and the
order they are drawn in.
"""

from gan_fast.data.dataset import ImageDataset
from gan_fast.data.errors import DataError
from gan_fast.data.inspecting import InspectReport, PointReport, inspect
from gan_fast.data.loading import load, pack
from gan_fast.data.packing import Packed
from gan_fast.data.pairs import PairDataset, load_pairs
from gan_fast.data.points import PointDataset
from gan_fast.data.sampler import Batch, BatchSampler
from gan_fast.data.sounds import SoundDataset, load_sounds
from gan_fast.data.toy import TOYS, Toy

__all__ = [
    "TOYS",
    "Batch",
    "BatchSampler",
    "DataError",
    "ImageDataset",
    "InspectReport",
    "Packed",
    "PairDataset",
    "PointDataset",
    "PointReport",
    "SoundDataset",
    "Toy",
    "inspect",
    "load",
    "load_pairs",
    "load_sounds",
    "pack",
]
