"""Real images in: built-in sets, folders, zips and packed files as uint8 tensors, and the order they are drawn in."""

from gan_fast.data.dataset import ImageDataset
from gan_fast.data.errors import DataError
from gan_fast.data.inspecting import InspectReport, inspect
from gan_fast.data.loading import load, pack
from gan_fast.data.packing import Packed
from gan_fast.data.sampler import Batch, BatchSampler

__all__ = ["Batch", "BatchSampler", "DataError", "ImageDataset", "InspectReport", "Packed", "inspect", "load", "pack"]
