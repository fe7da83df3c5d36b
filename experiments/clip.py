"""Builder of public CLIPs as parts: images and texts in one space, text encoders, and features of images.

They are read from a folder of public weights, see docs/extractors.md. Nothing trains them.
"""

from collections.abc import Callable
import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from genjax import config as config_lib
from genjax.config import Config
from genjax.data.text.clip_tokens import open_clip_tokenizer
from genjax.experiments import encoders, extractors
from genjax.models.transformers import clip
from genjax.nn.functional import Network
from genjax.objectives.kinds import Features, Joint, TextEncoder
from genjax.options import Section
from genjax.training.experiment import Experiment
from genjax.types import Array, Tree, UserError


@dataclasses.dataclass(frozen=True)
class ClipData(extractors.ExtractorData):
  """config.data.

  Attributes:
    weights: name of the weights in cards of metrics.
    resize: filter by which images come to the size that the image tower reads; '' for none.
    crop: whether the middle of an image with another aspect ratio is cut out.
    mean, deviation: of the channels of pixels in [0, 1], which are taken off and divided by.
    vocabulary: folder with the tokenizer; '' without a text tower.
    skip: the last blocks that the tokens of a text encoder leave out ("clip skip").
    norm: whether the final norm is applied to these tokens.
    padding: whether padding counts as tokens, as in Stable Diffusion.
  """

  vocabulary: str = ''
  skip: int = 0
  norm: bool = True
  padding: bool = True


def build(config: Config) -> Experiment:
  """The experiment of a config, which can be a part, and nothing else.

  config.model: name 'clip', width, and the options of `genjax.models.transformers.clip.ClipText` in text and of
  `ClipImage` in image; either may be empty. config.data: see `ClipData`.

  Raises:
    UserError: an unknown option.
  """
  _data(config)
  return extractors.frozen(clip.encoder(_options(config)))


def options(config: Config) -> dict[str, Section]:
  """What the sections of the config take."""
  towers = {f'model.{name}': Section((kind,)) for name, kind in (('text', clip.ClipText), ('image', clip.ClipImage))
            if config.model.get(name)}
  return {'data': Section((ClipData,)), 'model': Section((clip.ClipConfig,)), **towers}


def _data(config: Config) -> ClipData:
  return config_lib.build(ClipData, config.data, 'config.data')


def _options(config: Config) -> clip.ClipConfig:
  def tower(kind: Any, name: str) -> Any:
    given = config.model.get(name)
    return config_lib.build(kind, given, f'config.model.{name}') if given else None

  return clip.ClipConfig(tower(clip.ClipText, 'text'), tower(clip.ClipImage, 'image'), config.model.width)


def joint(config: Config, experiment: Experiment) -> Joint:
  """Images and texts in one space, of unit length; see `genjax.experiments.parts`.

  Raises:
    UserError: one of the towers is missing.
  """
  chosen, net = _both(config, 'text', 'image')
  read = extractors.reader(_data(config), chosen.image.shape)

  def image(group: Tree, image_BHWC: Array) -> Array:
    return _unit(net.apply(group['params']['net'], {}, read(image_BHWC))[0]['image'])

  def text(group: Tree, ids_BL: Array, mask_BL: Array) -> Array:
    return _unit(net.apply(group['params']['net'], {}, ids_BT=ids_BL, mask_BT=mask_BL)[0]['text'])

  return Joint(chosen.image.shape, chosen.width, chosen.text.context, _tokenize(config, chosen.text), image, text,
               scale=lambda group: jnp.exp(group['params']['net']['scale'].astype(jnp.float32)),
               name=config.data.weights, resize=extractors.resize_name(config, chosen.image.shape),
               reads=('params/net/.*',))


def text_encoder(config: Config, experiment: Experiment) -> TextEncoder:
  """The hidden states of the text tower; see `genjax.experiments.parts`.

  config.data says which block they come from, and whether padding counts. pooled is the output of the tower: the last
  token of a text, with the final norm, and projected if the model has a projection.

  Raises:
    UserError: there is no text tower, or it has too few blocks.
  """
  chosen, net = _both(config, 'text')
  data = _data(config)
  if not 0 <= data.skip < chosen.text.layers:
    raise UserError(f'config.data.skip must be from 0 to {chosen.text.layers - 1}, the blocks of this text tower less '
                    f'one, got {data.skip}')

  def encode(group: Tree, ids_BL: Array, mask_BL: Array) -> dict[str, Array]:
    found, _ = net.apply(group['params']['net'], {}, ids_BT=ids_BL, skip=data.skip,
                         mask_BT=None if data.padding else mask_BL)
    mask_BL = jnp.ones_like(mask_BL) if data.padding else mask_BL
    tokens = encoders.outputs(found['hidden' if data.norm else 'raw'], mask_BL)
    return {**tokens, 'pooled': found['text']}

  return TextEncoder(chosen.text.width, chosen.text.context, _tokenize(config, chosen.text), encode,
                     pooled_width=chosen.width, reads=('params/net/text/.*',))


def features(config: Config, experiment: Experiment) -> Features:
  """The outputs of the image tower, not scaled; see `genjax.experiments.parts`.

  Raises:
    UserError: there is no image tower.
  """
  chosen, net = _both(config, 'image')
  read = extractors.reader(_data(config), chosen.image.shape)

  def extract(group: Tree, image_BHWC: Array) -> Array:
    return net.apply(group['params']['net'], {}, read(image_BHWC))[0]['image']

  return Features(chosen.image.shape, chosen.width or chosen.image.width, 0, extract,
                  extractors.no_classes(config.data.weights), name=config.data.weights,
                  resize=extractors.resize_name(config, chosen.image.shape), reads=('params/net/image/.*',))


def _both(config: Config, *needed: str) -> tuple[Any, Network]:
  """The options, with the towers that a kind needs, and the network."""
  chosen = _options(config)
  if lacking := [name for name in needed if getattr(chosen, name) is None]:
    raise UserError(f'{config.data.weights} has no {lacking[0]} tower, which this kind of part needs; name the folder '
                    'of a whole CLIP')
  return chosen, clip.encoder(chosen)


def _tokenize(config: Config, text: clip.ClipText) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
  found, start, end, padding = open_clip_tokenizer(config.data.vocabulary)
  if found.size > text.vocab:
    raise UserError(f'{config.data.vocabulary}: the tokenizer has {found.size} tokens and the model {text.vocab}; take '
                    'the tokenizer that belongs to the model')
  if text.end != clip.LEGACY_END and text.end != end:
    raise UserError(f'{config.data.vocabulary}: config.json pools texts at token {text.end} (eos_token_id), and the '
                    f'tokenizer ends them with {end}; take the tokenizer that belongs to the model')
  return encoders.tokenizer(lambda given: np.asarray([start, *found.encode(given), end]), text.context, padding)


def _unit(x_BD: Array) -> Array:
  return x_BD / jnp.linalg.norm(x_BD, axis=-1, keepdims=True)
