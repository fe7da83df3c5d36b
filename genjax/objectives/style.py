"""Style-based generators (Karras et al. 2019, 2020b): mixed styles, path lengths and truncation, on top of `Gan`.

The generator has the parts 'map' and 'synthesize', see `genjax.models.adversarial.stylegan2`. Its mean style is updated
in the generator phase alone, once a step. Of several microbatches each updates it, and the moving average of path
lengths, in turn; each has the penalty of its own average. So does the published code, whose averages are moreover those
of one device.
"""

from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.gan import Gan
from genjax.types import Array, Batch, Key, Params, Tree, UserError

PATH = 'path_length'  # entry of the mutable tree: the moving average of path lengths


@dataclasses.dataclass(frozen=True)
class StyleGan(Gan):
  """A GAN with a style-based generator. It has the options of `Gan`, and

  Attributes:
    layers: number L of styles that an image has.
    style: width W of a style.
    group: examples over which the discriminator takes a deviation; an example's logit depends on its group.
    averaged: whether the generator keeps its mean style.
    mixing: probability that the layers of an image have two styles: from a layer on, drawn for each image, another one.
    path_weight: weight of the path length penalty; 0 for none.
    path_every: the penalty runs on every n-th step, multiplied by n.
    path_decay: share of the path lengths of a step, or of one of its microbatches, in their moving average.
    path_shrink: the penalty is computed on so many times fewer images than the batch has.
    truncation: samples have the style w_mean + truncation (w - w_mean); 1 leaves it as it is.
    truncation_layers: how many layers, from the first, are truncated; 0 for all.

  Raises:
    UserError: an option out of range or without effect, or truncation of a generator without a mean style.
  """

  of_model: ClassVar[Mapping[str, str]] = {
    **Gan.of_model, 'layers': 'config.data.shape', 'style': 'config.model.style', 'group': 'config.model.group',
    'averaged': 'config.model.average'}
  styled: ClassVar[bool] = True

  layers: int = dataclasses.field(kw_only=True)
  style: int = dataclasses.field(kw_only=True)
  group: int = 1
  averaged: bool = True
  mixing: float = 0.9
  path_weight: float = 2.0
  path_every: int = 4
  path_decay: float = 0.01
  path_shrink: int = 2
  truncation: float = 1.0
  truncation_layers: int = 0

  def __post_init__(self):
    super().__post_init__()
    checks.whole(self, 1, 'layers', 'style', 'group', 'path_every', 'path_shrink')
    checks.whole(self, 0, 'truncation_layers')
    checks.between(self, ('mixing', 'path_decay'), at_least=0, at_most=1)
    checks.between(self, ('path_weight',), at_least=0)
    checks.between(self, ('truncation',))
    if not self.path_weight:
      checks.idle(self, ('path_every', 'path_decay', 'path_shrink'), 'with path_weight=0; set path_weight above 0')
    if self.truncation == 1:
      checks.idle(self, ('truncation_layers',), 'with truncation=1; set another truncation, such as 0.7')
    if self.kind != 'image':
      raise UserError(f'style-based generators make images, got config.objective.kind={self.kind!r}')
    if self.truncation != 1 and not self.averaged:
      raise UserError(f'config.objective.truncation={self.truncation} moves styles towards their mean, and this '
                      'generator keeps none (config.model.average=0); train one with config.model.average=0.995')
    if self.truncation_layers > self.layers:
      raise UserError(f'config.objective.truncation_layers must be at most {self.layers}, the number of styles, got '
                      f'{self.truncation_layers}')

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables of both networks, and the average of path lengths, which begins at 0."""
    params, mutable = super().init(key, frozen)
    return Variables(params, {**mutable, **({PATH: jnp.zeros(())} if self.path_weight else {})})

  def phases(self) -> tuple[Phase, ...]:
    """Those of `Gan`, and the path length penalty if its weight is not 0."""
    path = (Phase('path', ('generator',), self._path, every=self.path_every),) if self.path_weight else ()
    return (*super().phases(), *path)

  def check_rows(self, rows: int, what: str) -> None:
    """See `Gan.check_rows`; groups and the share for path lengths divide the number, too."""
    super().check_rows(rows, what)
    if rows % self.group:
      raise UserError(f'the discriminator takes a deviation over config.model.group={self.group} examples, so that '
                      f'{what} need a multiple of that, got {rows}; change config.batch_size or the group')
    if self.path_weight and rows % self.path_shrink:
      raise UserError(f'path lengths are taken on a share of 1 / {self.path_shrink} of the {what}, which have {rows} '
                      'examples; change config.objective.path_shrink or config.batch_size')

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """See `Gan.evaluate`; 'weight' is 0 in groups of the discriminator that contain padding."""
    values = super().evaluate(params, context, batch, key)
    together = jnp.min(values['weight'].reshape(self.group, -1), axis=0)  # row i is in group i mod N / group
    return {**values, 'weight': jnp.tile(together, self.group)}

  @property
  def code(self) -> tuple[int, ...]:
    """Shape of a code: one style W for all layers, or where only some layers are truncated one for each, L W."""
    return (self.layers, self.style) if self._partly else (self.style,)

  @property
  def _partly(self) -> bool:
    return self.truncation != 1 and 0 < self.truncation_layers < self.layers

  def codes(self, generator: Tree, mutable: Tree, keys: Key, label: Array | None) -> Array:
    """Styles N and `code`, truncated as the options say."""
    return self.truncated(mutable, self.styles(generator, mutable, super().codes(generator, mutable, keys, label),
                                               label))

  def drawn(self, generator: Tree, mutable: Tree, code: Array, label: Array | None) -> Array:
    """The images of styles N W or N L W, as they are."""
    return self.images(generator, mutable, code if code.ndim == 3 else self.everywhere(code))

  def styles(self, generator: Tree, mutable: Tree, latent_BZ: Array, label_B: Array | None) -> Array:
    """Latents -> styles B W, in inference mode."""
    return self.generator.apply(generator, mutable, latent_BZ, label_B, part='map')[0]

  def everywhere(self, style_BW: Array) -> Array:
    """Styles B W -> the same for all layers, B L W."""
    return jnp.broadcast_to(style_BW[:, None], (len(style_BW), self.layers, style_BW.shape[-1]))

  def truncated(self, mutable: Tree, style_BW: Array) -> Array:
    """Styles B W -> truncated styles B and `code` (Karras et al. 2019, appendix B)."""
    if self.truncation == 1:
      return style_BW
    mean_W = mutable['average']
    moved_BW = mean_W + self.truncation * (style_BW - mean_W)
    if not self._partly:
      return moved_BW
    first_L1 = jnp.arange(self.layers)[:, None] < self.truncation_layers
    return jnp.where(first_L1, moved_BW[:, None], style_BW[:, None])

  def images(self, generator: Tree, mutable: Tree, style_BLW: Array) -> Array:
    """Styles of all layers -> images B H W C around [-1, 1], in inference mode."""
    return self.generator.apply(generator, mutable, style_BLW, part='synthesize')[0]

  def _fake(self, params: Params, context: Context, key: Key, label: Array | None, mode: Key | None, count: int):
    if mode is None:
      return super()._fake(params, context, key, label, mode, count)
    style_BLW, mutable = self._mixed(params, context, key, label, mode, count)
    return self.generator.apply(params['generator'], mutable, style_BLW, key=mode, part='synthesize')

  def _mixed(self, params: Params, context: Context, key: Key, label: Array | None, mode: Key, count: int):
    """(styles B L W of new latents, some of them mixed, the generator's new mutable tree)."""
    generator, mutable = params['generator'], context.mutable['generator']
    keys = jax.random.split(key, 4)
    style_BW, mutable = self.generator.apply(generator, mutable, self._latent(keys[0], (count,)), label, key=mode,
                                             part='map')
    style_BLW = self.everywhere(style_BW)
    if not self.mixing:
      return style_BLW, mutable
    other_BW = self.styles(generator, mutable, self._latent(keys[1], (count,)), label)
    border_B = jax.random.randint(keys[2], (count,), 1, self.layers)
    border_B = jnp.where(jax.random.uniform(keys[3], (count,)) < self.mixing, border_B, self.layers)
    first_BL = jnp.arange(self.layers) < border_B[:, None]
    return jnp.where(first_BL[..., None], style_BLW, other_BW[:, None]), mutable

  def _path(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """The path length penalty (Karras et al. 2020b, section 3.2), as in NVlabs/stylegan2-ada-pytorch: its gradient goes
    through the moving average, too."""
    count, label = len(batch[self.kind]) // self.path_shrink, self._label(batch)
    latent_key, fake_key, noise_key = jax.random.split(key, 3)
    label = None if label is None else label[:count]
    style_BLW, mutable = self._mixed(params, context, latent_key, label, fake_key, count)
    # The mean style that the mapping updated is left out: the generator phase has updated it in this step.
    image = lambda style_BLW: self.generator.apply(params['generator'], mutable, style_BLW, key=fake_key,
                                                   part='synthesize')[0]
    length_B = path_lengths(image, style_BLW, noise_key)
    mean = context.mutable[PATH] + self.path_decay * (jnp.mean(length_B) - context.mutable[PATH])
    penalty = jnp.mean(jnp.square(length_B - mean))
    return Output(self.path_weight * self.path_every * penalty, {'penalty': penalty, 'mean': mean},
                  {**context.mutable, PATH: jax.lax.stop_gradient(mean)}, count)


def path_lengths(image, style_BLW: Array, key: Key) -> Array:
  """Lengths of J^T y, where J is the derivative of an image by its styles and y a random picture: float32 B.

  y ~ N(0, I) / sqrt(H W). The length is the root of the mean over layers of squared norms.

  Args:
    image: styles B L W -> images B H W C.
    style_BLW: styles.
    key: of the random pictures.
  """

  def along(style_BLW: Array) -> Array:
    image_BHWC = image(style_BLW)
    return jnp.sum(image_BHWC * random_pictures(key, image_BHWC.shape))

  slope_BLW = jax.grad(along)(style_BLW)
  return jnp.sqrt(jnp.mean(jnp.sum(jnp.square(slope_BLW), axis=2), axis=1) + 1e-12)


def random_pictures(key: Key, shape: tuple[int, ...]) -> Array:
  """The y of `path_lengths`."""
  return jax.random.normal(key, shape) / (shape[1] * shape[2])**0.5

