"""Builder of small CLIPs, which learn from pictures with captions, and judge pictures and texts of other runs."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from genjax import checks, sharding
from genjax import config as config_lib
from genjax.config import Config
from genjax.experiments import condition_texts, conditions, encoders, extractors, images, sections
from genjax.experiments.condition_interface import Made, Scope
from genjax.metrics import retrieval
from genjax.models.features import resizing
from genjax.models.transformers import clip
from genjax.nn.functional import Network
from genjax.objectives.contrastive import Contrastive
from genjax.objectives.kinds import Features, Joint, TextEncoder
from genjax.objectives.pixels import centred
from genjax.options import Section
from genjax.training.experiment import Experiment, Metric
from genjax.training.optimization import optimizers
from genjax.training.run import Run
from genjax.types import Array, Tree, UserError, expanded

NAME = 'a CLIP of genjax'
FILTER = 'bicubic'  # for pictures of other sizes, where config.data names none


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """config.evaluation.

  Attributes:
    recall_at: numbers k of the recall at k, over all held-out pairs.

  Raises:
    UserError: a number is below 1.
  """

  recall_at: tuple[int, ...] = (1, 5, 10)

  def __post_init__(self):
    checks.whole(self, 1, 'recall_at')


def build(config: Config) -> Experiment:
  """A CLIP that is trained from scratch. config.data: see `genjax.experiments.images.Data`; pictures with captions.

  config.model: name 'clip', width of the common space, and in text and image the options of
  `genjax.models.transformers.clip.ClipText` and `ClipImage`. config.conditions: one of kind 'text' with a vocabulary of
  its own, see `genjax.experiments.condition_texts.Text`. config.objective: options of `Contrastive`.

  Raises:
    UserError: an unknown option, data that is no pixels, no text or one of a part, or a batch that is split, so that
      pictures would not be compared with all texts of it.
  """
  images.check(config.data)
  if images.content(config) != 'pixels':
    raise UserError("pictures are compared with texts as pixels; set config.data.content to 'pixels'")
  if config.microbatches != 1:
    raise UserError(f'config.microbatches={config.microbatches}: a picture is compared with all texts of a batch, and '
                    'parts of it would be compared among themselves; set it to 1, and split the batch over devices')
  name = _text_name(config)
  told = conditions.of(config, tuple(config.data.shape), functools.partial(images.open_data, config))
  net = _network(config, told.network)
  objective = config_lib.build(Contrastive, config.objective, 'config.objective', net=net, read=centred,
                               ids=f'{name}_ids', mask=f'{name}_ids_mask')
  chosen = config_lib.build(Evaluation, config.evaluation, 'config.evaluation')
  experiment = Experiment(
    objective=objective, train=images.batches(config, config.data.train, more=told.reads),
    heldout=images.batches(config, config.data.heldout, shuffle=False, more=told.reads),
    optimizers=optimizers.from_config(config.optimizers, config.steps), example=images.example(config),
    ema=config_lib.plain(config.ema), axes={'net': clip.AXES}, metrics=(_retrieval(chosen),))
  return dataclasses.replace(told.complete(experiment), conditions={})


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  made = {'vocab': 'config.conditions', 'context': 'config.conditions', 'end': 'config.conditions'}
  return {
    'data': images.DATA,
    'model': Section((clip.ClipConfig,), {'text': '', 'image': ''}, names=('clip',)),
    'model.text': Section((clip.ClipText,), made), 'model.image': Section((clip.ClipImage,), {'shape': sections.MADE[
      'shape']}),
    'objective': Section((Contrastive,), dict.fromkeys(('net', 'read', 'ids', 'mask'), '')),
    'evaluation': Section((Evaluation,)),
    **conditions.options(config),
    **sections.training(config)}


def joint(config: Config, experiment: Experiment) -> Joint:
  """Images and texts in one space, of unit length; see `genjax.experiments.parts`."""
  objective, shape, resize = _of(experiment), tuple(config.data.shape), _resize(config)
  read = extractors.reader(extractors.ExtractorData(NAME, resize, bool(config.data.get('crop'))), shape)
  vectors = dataclasses.replace(objective, read=read)
  width, length, tokenize = _texts(config)
  return Joint(shape, config.model.width, length, tokenize,
               image=lambda group, image: vectors.image(group['params']['net'], image),
               text=lambda group, ids, mask: objective.text(group['params']['net'], ids, mask),
               scale=lambda group: objective.scale(group['params']['net']), name=NAME,
               resize=resizing.resize_name(resize, *shape[:2], bool(config.data.get('crop'))),
               reads=('params/net/.*',))


def text_encoder(config: Config, experiment: Experiment) -> TextEncoder:
  """The hidden states of the text tower, and its output; see `genjax.experiments.parts`."""
  objective = _of(experiment)
  width, length, tokenize = _texts(config)

  def encode(group: Tree, ids_BL: Array, mask_BL: Array) -> dict[str, Array]:
    found, _ = objective.net.apply(group['params']['net'], {}, ids_BT=ids_BL, mask_BT=mask_BL)
    return {**encoders.outputs(found['hidden'], mask_BL), 'pooled': found['text']}

  return TextEncoder(width, length, tokenize, encode, pooled_width=config.model.width, reads=('params/net/text/.*',))


def features(config: Config, experiment: Experiment) -> Features:
  """The outputs of the image tower, not scaled; see `genjax.experiments.parts`."""
  objective, both = _of(experiment), joint(config, experiment)
  read = extractors.reader(extractors.ExtractorData(NAME, _resize(config), bool(config.data.get('crop'))), both.shape)
  return Features(
    both.shape, both.width, 0, extract=lambda group, image: objective.net.apply(
      group['params']['net'], {}, read(image))[0]['image'], predict=extractors.no_classes(NAME), name=NAME,
    resize=both.resize, reads=('params/net/image/.*',))


def _resize(config: Config) -> str:
  """The filter for pictures of other sizes than those of training."""
  return config.data.get('resize') or FILTER


def _of(experiment: Experiment) -> Contrastive:
  objective = experiment.objective
  assert isinstance(objective, Contrastive)
  return objective


def _text_name(config: Config) -> str:
  """The condition that is the caption.

  Raises:
    UserError: there is none, or another one, or it is encoded by a part.
  """
  given = config_lib.plain(config.get('conditions') or {})
  if len(given) != 1 or any(not isinstance(one, dict) or one.get('kind') != 'text' for one in given.values()):
    raise UserError('config.conditions must have one condition of kind text, the caption of a picture, got '
                    f'{list(given) or "none"}')
  ((name, text),) = given.items()
  if text.get('part'):
    raise UserError(f"config.conditions.{name}.part={text['part']!r}: the text tower learns its own encoder; leave "
                    "part out, and set vocabulary to 'byte', 'bpe', 'wordpiece' or a tokenizer")
  return name


def _network(config: Config, told: Mapping[str, int]) -> Network:
  """The network for a vocabulary. The token behind the vocabulary ends a text."""
  text = config_lib.build(clip.ClipText, config.model.text, 'config.model.text', vocab=told['vocabulary'],
                          context=told['text_length'], end=told['vocabulary'] - 1)
  image = config_lib.build(clip.ClipImage, config.model.image, 'config.model.image', shape=tuple(config.data.shape))
  return clip.encoder(clip.ClipConfig(text, image, config.model.width))


def _made(config: Config, truncate: bool) -> Made:
  """The condition of the caption, as the run keeps it."""
  name = _text_name(config)
  kept = config_lib.plain(config.assets)
  folder = kept.get('folder')
  scope = Scope(name, config, tuple(config.data.shape), functools.partial(images.open_data, config),
                kept.get('conditions', {}).get(name, {}), expanded(folder) if folder else None)
  chosen = config_lib.build(condition_texts.Text, config.conditions[name], scope.where)
  return condition_texts.text(scope, dataclasses.replace(chosen, truncate=truncate))


def _texts(config: Config) -> tuple[int, int, Callable[..., tuple[np.ndarray, np.ndarray]]]:
  """Width of the text tower, most tokens, and the tokenizer, as other runs use them."""
  made = {truncate: _made(config, truncate) for truncate in (False, True)}

  def tokenize(texts: Sequence[str], truncate: bool) -> tuple[np.ndarray, np.ndarray]:
    ids_BL, mask_BL = made[truncate].encode(np.asarray(texts, np.str_)).values()
    return ids_BL, mask_BL

  return config.model.text.width, made[True].network['text_length'], tokenize


def _retrieval(options: Evaluation) -> Metric:
  """Recall at k over all held-out pairs, in both directions; pairs with equal texts count as one."""
  card = {'pairs': 'the held-out split', 'recall_at': list(options.recall_at)}
  compute: Any = lambda draw, seed: _recall(draw.run, draw.averaged, options.recall_at)
  return Metric('retrieval', compute, card, _check_processes)


def _check_processes() -> None:
  if jax.process_count() > 1:
    raise UserError('recall compares held-out pairs in one process; evaluate in one, or with --no-samples')


def _recall(run: Run, averaged: bool | str, at: tuple[int, ...]) -> dict[str, float]:
  objective, params, data = _of(run.experiment), run.params(averaged), run.experiment.heldout
  vectors = jax.jit(run.program.on_mesh(lambda net, batch: (
    objective.image(net, batch['image']), objective.text(net, batch[objective.ids], batch[objective.mask]))))
  rows: tuple[list[np.ndarray], ...] = ([], [], [])
  for columns in data.epoch(run.rows(data.batch_size)):
    real = columns['mask'] > 0
    found = jax.device_get(vectors(params['net'], sharding.put_batch(columns, run.mesh)))
    words = np.where(columns[objective.mask] > 0, columns[objective.ids], -1)
    for kept, values in zip(rows, (*found, words)):
      kept.append(np.asarray(values)[real])
    run.clock.beat()
  image_ND, text_ND, words_NL = map(np.concatenate, rows)
  group_N = np.unique(words_NL, axis=0, return_inverse=True)[1].reshape(-1)
  sides = {'text_of_image': (image_ND, text_ND), 'image_of_text': (text_ND, image_ND)}
  return {f'{name}_{k}': value for name, (query, target) in sides.items()
          for k, value in retrieval.recall(query, target, at, group_N).items()}
