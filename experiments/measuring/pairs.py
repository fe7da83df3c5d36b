"""Measures of reconstructions against their originals, and reconstructions as samples of other measures."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from genjax import sharding
from genjax.experiments.measuring import extracting
from genjax.experiments.measuring.samples import Group, Values
from genjax.metrics import pictures
from genjax.training.experiment import Columns
from genjax.types import Array, UserError

ORIGINAL = 'original'
RECONSTRUCTIONS = 'reconstructions'
Reconstruct = Callable[[Any, Any, Array], Array]  # parameters, context, pictures -> pictures


def reconstructions(sample: Any, reconstruct: Reconstruct) -> Iterator[Columns]:
  """The held-out pictures of a run, 'original', and what the model makes of them, 'image'; a batch at a time.

  Args:
    sample: a `genjax.training.drawing.Samples`, which has the run.
    reconstruct: of the model.
  """
  run = sample.run
  data, params, context = run.experiment.heldout, run.params(sample.averaged), run.state.context(run.frozen)
  # Both come back whole in every process, which gives rows of its own alone
  both = jax.jit(run.program.on_mesh(lambda params, context, batch: (
    batch['mask'], batch['image'], reconstruct(params, context, batch['image']))),
    out_shardings=sharding.replicated(run.mesh))
  for columns in data.epoch(run.rows(data.batch_size)):
    batch = sharding.put_batch({name: columns[name] for name in ('mask', 'image')}, run.mesh)
    mask_B, original, image = jax.device_get(both(params, context, batch))
    yield {ORIGINAL: original[mask_B > 0], 'image': image[mask_B > 0]}


class Pairs(Group):
  """PSNR, SSIM and LPIPS, each the mean over the held-out pictures."""

  def check(self) -> dict[str, dict[str, Any]]:
    """See `samples.Group`."""
    subject, options = self._subject, self._options
    facts = {'of': RECONSTRUCTIONS, 'reference': {'split': subject.config.data.heldout}}
    found: dict[str, dict[str, Any]] = {name: dict(facts) for name in self._chosen}
    if 'psnr' in found:
      found['psnr'].update(peak=255, most=pictures.MOST_PSNR)
    if 'ssim' in found:
      pictures.check_side(subject.shape)
      found['ssim'].update(window='gaussian', deviation=1.5, width=pictures.LEAST_SIDE)
    if 'lpips' in found:
      extractor = extracting.open(subject.config, options.perceptual, 'perceptual', 'perceptual')
      if extractor.functions.measure != 'lpips':
        raise UserError('lpips is measured by the published networks, and config.evaluation.parts.'
                        f'{options.perceptual} is a {extractor.functions.name}; name a folder of vgg16_lpips or '
                        'alexnet_lpips')
      self._prepare = extracting.fits(extractor, subject.shape, 'pictures of this run')
      self._distance = extractor.apply(extractor.functions.distance)
      found['lpips'].update(extractor=extractor.card)
    return found

  def begin(self, seed: int) -> None:
    """See `samples.Group`."""
    del seed
    self._sums, self._count = dict.fromkeys(self._chosen, 0.0), 0

  def add(self, part: Columns) -> None:
    """See `samples.Group`."""
    sides = part[ORIGINAL], part['image']
    measures = {'psnr': lambda: pictures.psnr(*sides), 'ssim': lambda: pictures.ssim(*sides),
                'lpips': lambda: self._distance(*map(self._prepare, sides))}
    for name in self._chosen:
      self._sums[name] += float(np.sum(measures[name](), dtype=np.float64))
    self._count += len(sides[0])

  def values(self) -> Values:
    """See `samples.Group`."""
    return {name: {'mean': total / self._count} for name, total in self._sums.items()}
