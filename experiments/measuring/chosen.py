"""The measures that config.evaluation.measures names, for models of pictures, of clips, and for autoencoders."""

from collections.abc import Callable, Mapping, Sequence
import copy
import functools
from typing import Any

from genjax import config as config_lib
from genjax.config import Config
from genjax.data.pipeline import Source
from genjax.experiments import clips, images
from genjax.experiments.measuring import accuracy, attributes, features, neighbours, pairs, samples, texts
from genjax.experiments.measuring.options import ATTRIBUTES, FEATURES, LABELS, NEIGHBOURS, OWN, PAIRS, TEXTS, Options
from genjax.training.experiment import Metric
from genjax.types import UserError


def of_images(config: Config, options: Options, judge: Config | None, real: Callable[[], float]) -> tuple[Metric, ...]:
  """Measures of generated pictures.

  Args:
    config: of the experiment, with `genjax.experiments.images.Data`.
    options: config.evaluation.
    judge, real: see `accuracy.Accuracy`.

  Raises:
    UserError: a measure is unknown, or not one of pictures.
  """
  if LABELS[0] in options.measures and not config.data.num_classes:
    raise UserError(f'{LABELS[0]} needs labels, and config.data.num_classes is 0; leave it out')
  own = OWN if judge is not None else ()
  groups = {FEATURES: features.Features, TEXTS: texts.Texts, ATTRIBUTES: attributes.Attributes,
            NEIGHBOURS: neighbours.Neighbours,
            LABELS: functools.partial(accuracy.Accuracy, judge=judge, real=real)}
  return samples.metrics(_pictures(config, options), options, groups, own)


def of_clips(config: Config) -> tuple[Metric, ...]:
  """Measures of generated clips, by an extractor that reads clips.

  Args:
    config: of the experiment, with `genjax.experiments.clips.Data`.

  Raises:
    UserError: an unknown option or measure, or one that is not of clips.
  """
  options = config_lib.build(Options, config.get('evaluation') or {}, 'config.evaluation')
  data = clips.read(config)
  named = _named(config, options)
  card = {'shape': list(clips.shape(config)), 'rate': data.rate, 'stride': data.stride, 'start': data.heldout_start,
          'resize': data.resize, 'crop': data.crop}
  subject = samples.Subject('clip', clips.shape(config), lambda split: clips.open_source(named, split), card, config)
  return samples.metrics(subject, options, {FEATURES: features.Features})


def of_autoencoder(config: Config, reconstruct: pairs.Reconstruct, generates: bool = False,
                   kind: type[Options] = Options, more: Sequence[str] = ()) -> tuple[Metric, ...]:
  """Measures of reconstructions of the held-out pictures.

  Args:
    config: of the experiment, with `genjax.experiments.images.Data`.
    reconstruct: (parameters, context, pictures) -> pictures.
    generates: whether measures by features are of samples, not of reconstructions.
    kind: class of config.evaluation.
    more: further columns of a batch that `reconstruct` reads, in this order after the pictures.

  Raises:
    UserError: an unknown option or measure, or one that is not of autoencoders.
  """
  options = config_lib.build(kind, config.get('evaluation') or {}, 'config.evaluation')
  pictures = _pictures(config, options)

  @functools.cache
  def count() -> int:
    return len(images.open_data(config, config.data.heldout))

  rebuilt = samples.Subject(
    'image', pictures.shape, pictures.source, pictures.card, config,
    lambda sample, num: pairs.reconstructions(sample, reconstruct, more), lambda num: count(), pairs.RECONSTRUCTIONS)
  if not generates:
    return samples.metrics(rebuilt, options, {FEATURES: features.Features, PAIRS: pairs.Pairs})
  return (*samples.metrics(pictures, options, {FEATURES: features.Features}, PAIRS),
          *samples.metrics(rebuilt, options, {PAIRS: pairs.Pairs}, FEATURES))


def _pictures(config: Config, options: Options) -> samples.Subject:
  """Generated pictures, and real ones of the same data."""
  named = _named(config, options)
  card = {'shape': list(config.data.shape), 'resize': config.data.get('resize', ''),
          'crop': config.data.get('crop', False)}

  def source(split: str) -> Source:
    if named.data.get('buckets'):
      raise UserError('measures compare pictures of one shape, and config.data.buckets gives several; evaluate with '
                      'pictures of one: --set data.buckets="()" data.resize=bilinear data.crop=True')
    if images.content(named) == 'latents':
      raise UserError('samples are compared with real pictures, and config.data holds latents; name the pictures: '
                      '--set evaluation.reference_data=NAME')
    return images.open_data(named, split)

  return samples.Subject('image', tuple(config.data.shape), source, card, config, of=named)


def _named(config: Config, options: Options) -> Config:
  """The config whose data is the reference."""
  if not options.reference_data:
    return config
  found = copy.deepcopy(config)
  changed: Mapping[str, Any] = {'name': options.reference_data, 'content': 'pixels', 'num_classes': 0}
  with found.unlocked():
    if 'mixture' in found.data:  # it would go before the name
      del found.data['mixture']
    for key, value in changed.items():
      if key in found.data or key != 'content':
        found.data[key] = value
  return found
