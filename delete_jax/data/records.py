"""Images in files of records, read and decoded when their turn comes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

ENDLESS = sys.maxsize
"""The length of a `grain.MapDataset` that repeats itself for ever."""


class Records:
    """The images of a source with random access, such as Grain's `ArrayRecordDataSource` or `MapDataset`: what `delete_jax.unlearn` takes in
    place of an array.

    Attributes:
      shape, dtype: of all images, `[n, h, w, c]`, as the first record has them.

    Examples:
      >>> import numpy as np
      >>> import delete_jax as dj
      >>> source = [bytes([i] * 12) for i in range(5)]  # any sequence of records
      >>> images = dj.data.Records(source, lambda record: np.frombuffer(record, np.uint8).reshape(2, 2, 3))
      >>> images.shape, images[np.array([4, 1])][:, 0, 0, 0].tolist()
      ((5, 2, 2, 3), [4, 1])
    """

    def __init__(self, source: Sequence[Any], decode: Callable[[Any], np.ndarray]):
        """Reads the first record.

        Args:
          source: has a length and gives one record for an integer; for a list of integers a list of records where it has
            `__getitems__`, as Grain's sources do. A `grain.MapDataset` gives what its transformations make; it must be finite and
            leave no sample out, so one with `filter`, or `repeat()` without a number, is refused.
          decode: a record -> an image `[h, w, c]`, all of one shape and dtype (uint8, or float and ready for the network);
            `lambda record: record["image"]` for a `MapDataset` of dicts.

        Raises:
          ValueError: there is no record or no end of them, the first is None, or its image has other than three axes.
        """
        if not len(source):
            raise ValueError("the source has no records: give at least one")
        if len(source) >= ENDLESS:
            raise ValueError(
                "the source has no end: leave out repeat(), for epochs= or steps= says how often it is read"
            )
        self.source, self.decode = source, decode
        first = self._image(0, source[0])
        if first.ndim != 3:
            raise ValueError(f"decode must return an image [h, w, c], got an array of shape {first.shape}")
        self.shape, self.dtype = (len(source), *first.shape), first.dtype

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: np.ndarray) -> np.ndarray:
        """The images at integers `[m]`: `[m, h, w, c]`.

        Raises:
          ValueError: one of them is None, or has another shape or dtype than the first record's.
        """
        places = [int(place) for place in index]
        get_many = getattr(self.source, "__getitems__", None)
        records = get_many(places) if get_many is not None else [self.source[place] for place in places]
        images = np.empty((len(places), *self.shape[1:]), self.dtype)
        for number, record in enumerate(records):
            image = self._image(places[number], record)
            if image.shape != self.shape[1:] or image.dtype != self.dtype:
                raise ValueError(
                    f"record {places[number]} is an image of {image.dtype} {image.shape}, and the first is one of {self.dtype} "
                    f"{self.shape[1:]}: bring all to one size and dtype in decode"
                )
            images[number] = image
        return images

    def _image(self, place: int, record: Any) -> np.ndarray:
        if record is None:  # a MapDataset keeps its length and has a hole where `filter` left a sample out
            raise ValueError(
                f"record {place} is None, as Grain has it for a sample that filter leaves out: leave out the filter, and give the "
                "labels and records of the samples that count"
            )
        return np.asarray(self.decode(record))
