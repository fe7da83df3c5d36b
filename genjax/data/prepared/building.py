"""What the TFDS builders of genjax share: they need no TensorFlow."""

from collections.abc import Iterable, Iterator, Mapping
import io
import pathlib
from typing import Any, ClassVar

import numpy as np
from PIL import Image
import tensorflow_datasets as tfds

Examples = Iterable[tuple[Any, dict[str, Any]]]


def png(image_HWC: np.ndarray) -> io.BytesIO:
  """Encodes a uint8 image as a PNG file. TFDS would encode arrays with TensorFlow, but accepts files."""
  file = io.BytesIO()
  Image.fromarray(image_HWC[..., 0] if image_HWC.shape[-1] == 1 else image_HWC).save(file, 'PNG')
  file.seek(0)
  return file


def rows(splits: Mapping[str, Iterable[Iterable[Any]]]) -> dict[str, Iterable[Any]]:
  """Converts split -> columns of equal length to split -> rows."""
  return {split: zip(*columns, strict=True) for split, columns in splits.items()}


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """Base class of the data sets of genjax. `folder` has the original files, unless a package contains the data.

  FILES: description of the files in the folder, for the user. URLS: address -> SHA-256 of files to download.
  """

  FILES: ClassVar[str] = ''
  URLS: ClassVar[dict[str, str]] = {}
  SUMMARY: ClassVar[str] = ''
  FEATURES: ClassVar[dict[str, Any]] = {}
  KEEP_ORDER: ClassVar[bool] = False
  folder: pathlib.Path = pathlib.Path()

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=self.SUMMARY,
      features=tfds.features.FeaturesDict(self.FEATURES),
      disable_shuffling=self.KEEP_ORDER,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Examples]:
    del dl_manager
    return {split: self._generate_examples(part) for split, part in self.read().items()}

  def _generate_examples(self, part: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    for index, row in enumerate(part):
      yield index, self.example(row)

  def read(self) -> dict[str, Any]:
    """Returns split -> rows in the order of their keys; `example` converts a row."""
    raise NotImplementedError

  def example(self, row: Any) -> dict[str, Any]:
    """Converts a row to the features of `FEATURES`, here an image and its label."""
    image_HWC, label = row
    return {'image': png(image_HWC), 'label': int(label)}
