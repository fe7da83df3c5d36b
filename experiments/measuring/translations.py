"""How well pictures that are drawn from pictures match those that belong to them, beside what costs nothing: the source
itself, the mean picture, and enlargement by interpolation."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import re
from typing import Any

import numpy as np

from genjax import checks
from genjax import config as config_lib
from genjax.config import Config
from genjax.data import sources
from genjax.data.images import pairs
from genjax.experiments import imported, translation_data
from genjax.experiments.measuring import extracting
from genjax.metrics import pictures
from genjax.training import drawing
from genjax.training.experiment import Columns, Metric
from genjax.types import UserError

NAME = 'translation'
MEASURES = ('l1', 'psnr', 'ssim', 'lpips', 'attributes')
MEAN_OF = 10_000  # most training pictures that the mean picture is the mean of
COUNTERPARTS = 'counterparts'


@dataclasses.dataclass(frozen=True)
class Options:
  """config.evaluation of pictures from pictures.

  Attributes:
    num_samples: held-out pictures that are drawn from; fewer if there are fewer.
    measures: some of `MEASURES`; 'lpips' needs `perceptual`, 'attributes' a `judge`.
    perceptual: entry of `parts` that is the network of LPIPS.
    judge: entry of `parts` that reads attributes off pictures.
    becomes: attributes with the value that all pictures of the target domain have, for 'attributes', each as NAME=3.
    keeps: columns of the held-out split with attributes of the source that the drawn picture has to have, too.
    parts: extractors by name, see `genjax.experiments.measuring.options.Options`.
  """

  num_samples: int = 1000
  measures: tuple[str, ...] = ('l1', 'psnr', 'ssim')
  perceptual: str = 'lpips'
  judge: str = 'judge'
  becomes: tuple[str, ...] = ()
  keeps: tuple[str, ...] = ()
  parts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    checks.whole(self, 1, 'num_samples')
    for name in self.measures:
      config_lib.choose(dict.fromkeys(MEASURES), name, 'config.evaluation.measures')
    if bad := [entry for entry in self.becomes if not re.fullmatch(r'\w+=\d+', entry)]:
      raise checks.OutOfRange(f'becomes lists attributes with numbers of their values, such as body=6, got {bad[0]!r}')

  @property
  def values(self) -> dict[str, int]:
    """Attribute -> the value that it becomes."""
    return {name: int(value) for name, _, value in (entry.partition('=') for entry in self.becomes)}


def metrics(config: Config, back: bool = False) -> tuple[Metric, ...]:
  """The measure 'translation': of each name in config.evaluation.measures its mean over held-out pictures.

  'l1' is the mean absolute difference of pixels from 0 to 1. Beside each value stand NAME_of_copy, where the source
  itself is compared (enlarged by repeating pixels, if it is smaller), NAME_of_mean, the mean training picture, and of
  enlargement NAME_of_bicubic. 'attributes' gives becomes_ATTRIBUTE and keeps_ATTRIBUTE, shares of pictures that a judge
  reads right, beside those of the copy and of the counterparts, which show the judge's own errors.

  Args:
    config: of the experiment.
    back: whether sources are drawn from targets.

  Raises:
    UserError: an unknown measure, or attributes of data that has none.
  """
  options = config_lib.build(Options, config.get('evaluation') or {}, 'config.evaluation')
  if not options.measures:
    return ()
  data = translation_data.read(config)
  card: dict[str, Any] = {'measures': list(options.measures), 'reference': {'split': data.heldout},
                          'direction': 'back' if back else 'forward'}
  wanted = pairs.SOURCE if back else pairs.TARGET

  def check() -> dict[str, Callable[..., np.ndarray]]:
    return _functions(config, options, data.shapes()[wanted], card)

  def compute(sample: Callable[..., Columns], seed: int) -> dict[str, float]:
    functions, judged = check(), _Judged(config, options, data, card)
    heldout = translation_data.open_pairs(config, data.heldout)
    count = min(options.num_samples, len(heldout))
    card['num_samples'] = count
    sides = [(columns[wanted], columns[pairs.TARGET if back else pairs.SOURCE])
             for columns in _rows(heldout, count)]
    given_NHWC = np.concatenate([source for _, source in sides])
    mean_HWC = _mean(config, data, wanted)
    totals: dict[str, float] = {}
    first = 0
    for part in drawing.parts_of(sample, count, {translation_data.CONDITION: given_NHWC}):
      image_NHWC = part[pairs.TARGET]
      rows = slice(first, first + len(image_NHWC))
      real_NHWC = np.concatenate([real for real, _ in sides])[rows]
      others = {'': image_NHWC, **_baselines(given_NHWC[rows], real_NHWC, mean_HWC)}
      for who, made_NHWC in others.items():
        for name, function in functions.items():
          _add(totals, f'{name}{who}', function(made_NHWC, real_NHWC))
        if who in ('', '_of_copy'):
          judged.add(totals, who, made_NHWC, rows)
      judged.add(totals, f'_of_{COUNTERPARTS}', real_NHWC, rows)
      first += len(image_NHWC)
    return {name: total / count for name, total in totals.items()}

  return (Metric(NAME, compute, card, lambda: (check(), _Judged(config, options, data, card))),)


def _functions(config: Config, options: Options, shape: tuple[int, int, int],
               card: dict[str, Any]) -> dict[str, Callable[..., np.ndarray]]:
  """Name -> (pictures, their counterparts) -> values N."""
  found: dict[str, Callable[..., np.ndarray]] = {}
  for name in options.measures:
    if name == 'l1':
      found[name] = lambda a, b: np.abs(a.astype(np.float64) - b).mean(axis=(1, 2, 3)) / 255.0
    elif name == 'psnr':
      found[name] = pictures.psnr
    elif name == 'ssim':
      pictures.check_side(shape)
      found[name] = pictures.ssim
    elif name == 'lpips':
      extractor = extracting.open(config, options.perceptual, 'perceptual', 'perceptual')
      if extractor.functions.measure != 'lpips':
        raise UserError('lpips is measured by the published networks, and config.evaluation.parts.'
                        f'{options.perceptual} is a {extractor.functions.name}; name a folder of vgg16_lpips or '
                        'alexnet_lpips')
      prepare = extracting.fits(extractor, shape, 'pictures of this run')
      distance, card['extractor'] = extractor.apply(extractor.functions.distance), extractor.card
      found[name] = lambda a, b: distance(prepare(a), prepare(b))
  return found


class _Judged:
  """Attributes of pictures, if they are measured."""

  def __init__(self, config: Config, options: Options, data: translation_data.Data, card: dict[str, Any]):
    self._options, self._asked = options, 'attributes' in options.measures
    if not self._asked:
      return
    if data.pairs != 'columns' or not (options.keeps or options.becomes):
      raise UserError("the measure 'attributes' needs a data set with columns (config.data.pairs=columns), and "
                      'config.evaluation.keeps or becomes, which name attributes')
    extractor = extracting.open(config, options.judge, 'attributes', 'judge')
    known = extractor.functions.classes
    for name in (*options.keeps, *options.values):
      config_lib.choose(known, name, 'config.evaluation.keeps and becomes')
    self._prepare = extracting.fits(extractor, data.shape, 'pictures of this run')
    self._predict, card['judge'] = extractor.apply(extractor.functions.predict), extractor.card
    self._label = sources.open_tfds(data.name, data.heldout, options.keeps, *imported.folders(config.data)).get(
      np.arange(len(translation_data.open_pairs(config, data.heldout)))) if options.keeps else {}

  def add(self, totals: dict[str, float], who: str, image_NHWC: np.ndarray, rows: slice) -> None:
    """Adds how many pictures have the attributes."""
    if not self._asked:
      return
    logits = self._predict(self._prepare(image_NHWC))
    for name, value in self._options.values.items():
      _add(totals, f'becomes_{name}{who}', logits[name].argmax(-1) == value)
    for name in self._options.keeps:
      _add(totals, f'keeps_{name}{who}', logits[name].argmax(-1) == self._label[name][rows])


def _baselines(source_NHWC: np.ndarray, real_NHWC: np.ndarray, mean_HWC: np.ndarray) -> dict[str, np.ndarray]:
  """What costs nothing, by the end of its name."""
  count, height, _, channels = real_NHWC.shape
  factor = height // source_NHWC.shape[1]
  if source_NHWC.shape[3] != channels:
    source_NHWC = source_NHWC.repeat(channels, axis=3) if channels > 1 else np.round(
      source_NHWC.mean(axis=3, keepdims=True)).astype(np.uint8)
  found = {'_of_copy': source_NHWC.repeat(factor, axis=1).repeat(factor, axis=2) if factor > 1 else source_NHWC,
           '_of_mean': np.broadcast_to(mean_HWC, (count, *mean_HWC.shape))}
  return {**found, '_of_bicubic': pairs.enlarged(source_NHWC, factor)} if factor > 1 else found


def _mean(config: Config, data: translation_data.Data, column: str) -> np.ndarray:
  """The mean of training pictures."""
  source = translation_data.open_pairs(config, data.train)
  count = min(MEAN_OF, len(source))
  total = sum(columns[column].sum(axis=0, dtype=np.float64) for columns in _rows(source, count))
  return np.round(total / count).astype(np.uint8)


def _rows(source: Any, count: int) -> Iterator[Columns]:
  for start in range(0, count, drawing.PART):
    yield source.get(np.arange(start, min(start + drawing.PART, count)))


def _add(totals: dict[str, float], name: str, value_N: np.ndarray) -> None:
  totals[name] = totals.get(name, 0.0) + float(np.sum(value_N, dtype=np.float64))
