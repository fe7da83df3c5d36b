"""Adversarial training (Goodfellow et al. 2014): losses by name, gradient penalties, packing, augmentation.

A subclass draws its fakes in `_fake`, reads real samples in `_real`, adds to `phases` and `sample`; everything that the
discriminator is shown passes through `_seen` and `_judge`.

How the phases update `mutable`:

- The discriminator phase draws fakes with the generator in training mode, the function that the generator phase trains.
  It discards the generator's new batch statistics; these are updated only in the generator phase, once per step.
- The discriminator's batch statistics and power iterations are updated in its own phase. Real and fake samples pass
  through it in two calls, as in DCGAN: in a joint batch, batch normalisation would mix both, and the loss would depend
  on the composition of the batch. The running averages therefore average over both kinds.
- The generator phase runs the discriminator in training mode, the function that was just trained, and discards its
  changes.
- Gradient penalties and evaluation run the discriminator in inference mode, where the output for a sample depends only
  on that sample, so its gradient is well defined. Their gradient is that with respect to samples before augmentation.
- The state of an augmentation changes in the discriminator phase; the phases after it read the new one.
"""

from collections.abc import Callable, Mapping
import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from genjax import checks
from genjax.nn.functional import Network
from genjax.objectives.augmentation import AUGMENT, Augmentation
from genjax.objectives.base import Context, Output, Phase, Variables
from genjax.objectives.gan_losses import LOSSES, RELATIVE, crowding, feature_distance, margins, same_estimates, signs
from genjax.objectives.packing import pack
from genjax.objectives.pixels import blurred
from genjax.types import Array, Batch, Key, Params, Tree, UserError

KINDS = ('image', 'point')
PENALTY = 10.0  # of 'wgan_gp', Gulrajani et al. 2017
# Folded into the key of a phase for what only some options draw, so that the others draw the same with and without
_REAL, _FAKE, _CONSISTENCY, _PENALTY = range(100, 104)
Shown = tuple[Any, Callable[[Array], Array]]  # samples, and what shows them to the discriminator


@dataclasses.dataclass(frozen=True)
class Gan:
  """A generative adversarial network; groups 'generator' and 'discriminator'.

  Attributes:
    generator: (latent B Z, label B or None) -> samples.
    discriminator: (packed samples, packed labels or None) -> logits B/p.
    latent: width Z of the latent.
    distribution: distribution of the latent, 'normal' or 'uniform' on (-1, 1).
    kind: 'image' (column `image`, uint8 B H W C, seen as [-1, 1]) or 'point' (column `point`, float32 B D).
    num_classes: number of classes of column `label`, which conditions both networks; None: unconditional.
    loss: loss of both networks, 'non_saturating', 'hinge', 'wgan_gp', 'lsgan' or 'relativistic', see
      `genjax.objectives.gan_losses`.
    penalty: weight of the gradient penalty of 'wgan_gp'; None for 10, the published one.
    r1_gamma: weight gamma of R1, the squared gradient at real samples; 0 for none.
    r2_gamma: weight gamma of R2, the squared gradient at fake samples; 0 for none.
    r1_every: R1 and R2 run as a phase on every n-th step with gamma multiplied by n (lazy regularisation, Karras et al.
      2020b); 0 makes them terms of the discriminator's loss in every step.
    gamma_end: both gammas end at this share of themselves, by a cosine over gamma_steps.
    gamma_steps: steps after which gamma_end is reached; 0 leaves both constant.
    discriminator_steps: the generator is trained on every n-th step only.
    pack: samples that the discriminator judges together.
    augment: what is done to real and fake pictures in all phases before the discriminator sees them; None for nothing.
    instance_noise: standard deviation of noise that is added to real and fake samples before the discriminator sees
      them (Sonderby et al. 2017).
    instance_noise_steps: steps over which that noise falls to 0 linearly; 0 leaves it constant.
    blur: pictures are blurred in all phases, before their augmentation: the width in pixels, see
      `genjax.objectives.pixels.blurred`.
    blur_steps: steps over which that width falls to 0 linearly, as in StyleGAN3-R; 0 leaves it constant.
    consistency: weight of the squared change of the logit of real pictures under a small random change of theirs (Zhang
      et al. 2020).
    consistency_fake: the same of fake pictures (balanced consistency, Zhao et al. 2021).
    perturb: (pictures B H W C, key) -> the changed pictures of both terms; needed where one has a weight.
    feature_matching: weight, in the generator's loss, of the distance between mean features of real and fake samples,
      for discriminators that give their features.
    one_iteration: whether real and fake samples of a step are judged with the same estimates of spectral norms, which
      are updated once; False updates them in each of the two calls.
    watch: whether a step measures how many the discriminator gets right, and the distances between fake samples
      relative to those between real ones.

  Raises:
    UserError: an unknown name, a number out of range, options that don't fit each other, or options of a penalty, of
      noise or of blur that is not there.

  For subclasses:
    of_model: options that follow from the networks -> the config key that says what they are. The options of networks
      have attributes of these names.
    styled: whether a code, see `codes`, is a style: it holds the class, and pictures can be projected into it.
  """

  of_model: ClassVar[Mapping[str, str]] = {'latent': 'config.model.latent', 'pack': 'config.model.pack'}
  styled: ClassVar[bool] = False

  generator: Network
  discriminator: Network
  latent: int
  distribution: str = 'normal'
  kind: str = 'image'
  num_classes: int | None = None
  loss: str = 'non_saturating'
  penalty: float | None = None
  r1_gamma: float = 0.0
  r2_gamma: float = 0.0
  r1_every: int = 16
  gamma_end: float = 1.0
  gamma_steps: int = 0
  discriminator_steps: int = 1
  pack: int = 1
  augment: Augmentation | None = None
  instance_noise: float = 0.0
  instance_noise_steps: int = 0
  blur: float = 0.0
  blur_steps: int = 0
  consistency: float = 0.0
  consistency_fake: float = 0.0
  perturb: Callable[[Array, Key], Array] | None = None
  feature_matching: float = 0.0
  one_iteration: bool = False
  watch: bool = False

  def __post_init__(self):
    for name, known in (('loss', sorted({**LOSSES, **RELATIVE})), ('distribution', ('normal', 'uniform')),
                        ('kind', KINDS)):
      if getattr(self, name) not in known:
        raise UserError(f'config.objective.{name} must be one of {list(known)}, got {getattr(self, name)!r}')
    if self.loss in LOSSES and self.loss in RELATIVE:
      raise UserError(f'{self.loss!r} is a loss of pairs already; add yours to `genjax.objectives.gan_losses.LOSSES` '
                      'by another name')
    checks.whole(self, 1, 'discriminator_steps', 'pack', 'latent')
    checks.whole(self, 0, 'r1_every', 'gamma_steps', 'instance_noise_steps', 'blur_steps')
    checks.between(self, ('r1_gamma', 'r2_gamma', 'penalty', 'gamma_end', 'instance_noise', 'blur', 'consistency',
                          'consistency_fake', 'feature_matching'), at_least=0)
    if self.gamma_end != 1 and not self.gamma_steps:
      raise UserError(f'config.objective.gamma_end={self.gamma_end} is reached after config.objective.gamma_steps, and '
                      'these are 0; set both, or leave gamma_end at 1')
    if not self._penalised:
      checks.idle(self, ('gamma_end', 'gamma_steps', *(('r1_every',) if self.r1_every else ())),  # 0: no phase
                  'without R1 and R2; set r1_gamma or r2_gamma above 0')
    if self.gamma_end == 1:
      checks.idle(self, ('gamma_steps',), 'with gamma_end=1; set gamma_end below 1')
    if self.loss != 'wgan_gp':
      checks.idle(self, ('penalty',), f"with loss={self.loss!r}; set loss to 'wgan_gp'")
    for name in ('instance_noise', 'blur'):
      if not getattr(self, name):
        checks.idle(self, (f'{name}_steps',), f'with {name}=0; set {name} above 0')
    if self.kind != 'image' and (self.augment is not None or self._consistent or self.blur):
      raise UserError('config.objective.augment, blur and consistency change pictures, and these samples are points; '
                      'points take instance_noise')
    if self._consistent and self.perturb is None:
      raise UserError('a consistency term needs `perturb`, the change that a logit should not follow')

  @property
  def code(self) -> tuple[int, ...]:
    """Shape of a code, see `codes`."""
    return (self.latent,)

  @property
  def _consistent(self) -> bool:
    return self.consistency > 0 or self.consistency_fake > 0

  @property
  def _penalised(self) -> bool:
    return self.r1_gamma > 0 or self.r2_gamma > 0

  def init(self, key: Key, frozen: Params) -> Variables:
    """Returns initial variables of both networks, and the state of the augmentation."""
    keys = dict(zip(('generator', 'discriminator'), jax.random.split(key)))
    pairs = {group: getattr(self, group).init(keys[group]) for group in keys}
    state = {} if self.augment is None else {AUGMENT: self.augment.init()}
    return Variables({group: pair[0] for group, pair in pairs.items()},
                     {**{group: pair[1] for group, pair in pairs.items()}, **state})

  def check_rows(self, rows: int, what: str) -> None:
    """Checks the number of examples that a phase is given at once.

    Args:
      rows: the number.
      what: what has so many, for messages: 'batches' or 'microbatches'.

    Raises:
      UserError: packs do not divide it, or nothing can be compared.
    """
    if rows % self.pack:
      raise UserError(f'a discriminator that sees config.model.pack={self.pack} samples at once needs {what} of a '
                      f'multiple of that, got {rows}; change config.batch_size')
    if self.watch and rows < 2:
      raise UserError(f'config.objective.watch compares the samples of {what} with each other, and these have {rows}; '
                      'change config.batch_size, or set watch to False')

  def phases(self) -> tuple[Phase, ...]:
    """Discriminator, R1 and R2 if they are a phase, generator."""
    lazy = self._penalised and self.r1_every > 0
    r1 = (Phase('r1', ('discriminator',), self._r1, every=self.r1_every),) if lazy else ()
    return (Phase('discriminator', ('discriminator',), self._discriminator), *r1,
            Phase('generator', ('generator',), self._generator, every=self.discriminator_steps))

  def evaluate(self, params: Params, context: Context, batch: Batch, key: Key) -> dict[str, Array]:
    """How well the discriminator separates held-out examples from as many new samples, per example.

    Both networks run in inference mode, without augmentation. Examples of one pack have equal values.

    Returns:
      logit_real, logit_fake, discriminator_loss (without penalties), accuracy (share of the two classified correctly,
      by the side of the boundary; of pairs, by their order) and weight (0 if a pack contains padding), each of shape B.
    """
    real, label = self._real(batch, context), self._label(batch)
    fake, _ = self._fake(params, context, key, label, None, len(real))
    logits = []
    for x in (real, fake):
      logit, _ = self._judge(params, context.mutable['discriminator'], x, label, None)
      logits.append(jnp.repeat(logit, self.pack))
    mask = jnp.ones(len(real)) if batch.get('mask') is None else batch['mask']
    real_margin, fake_margin = margins(self.loss, *logits)
    return {
      'logit_real': logits[0],
      'logit_fake': logits[1],
      'discriminator_loss': self._discriminator_loss(*logits),
      'accuracy': 0.5 * (real_margin > 0) + 0.5 * (fake_margin > 0),
      'weight': jnp.repeat(jnp.min(mask.reshape(-1, self.pack), axis=1), self.pack),
    }

  def sample(self, params: Params, context: Context, keys: Key, conditions: Mapping[str, Array]) -> dict[str, Array]:
    """Draws samples in inference mode: running averages normalise, so rows don't affect each other.

    Returns:
      'image' (uint8 N H W C) or 'point' (float32 N D).
    """
    generator, mutable, label = params['generator'], context.mutable['generator'], self._label(conditions)
    return self.columns(self.drawn(generator, mutable, self.codes(generator, mutable, keys, label), label))

  def codes(self, generator: Tree, mutable: Tree, keys: Key, label: Array | None) -> Array:
    """What samples are drawn from, one of each key: latents N Z."""
    del generator, mutable, label  # for subclasses whose codes a network makes
    return jax.vmap(lambda key: self._latent(key, ()))(keys)

  def drawn(self, generator: Tree, mutable: Tree, code: Array, label: Array | None) -> Array:
    """The samples of codes, in inference mode."""
    return self.generator.apply(generator, mutable, code, label)[0]

  def columns(self, x: Array) -> dict[str, Array]:
    """What a generator makes, as columns of samples."""
    if self.kind == 'point':
      return {'point': x}
    return {'image': jnp.round(127.5 * (x + 1.0)).clip(0, 255).astype(jnp.uint8)}

  def _discriminator(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    latent_key, fake_key, real_judge, fake_judge, mix_key = jax.random.split(key, 5)
    context = self._begun(context)
    real, label = self._real(batch, context), self._label(batch)
    fake, _ = self._fake(params, context, latent_key, label, fake_key, len(real))
    show_real, show_fake = self._show(context, key, _REAL), self._show(context, key, _FAKE)
    seen_real, seen_fake = show_real(real), show_fake(fake)
    before = context.mutable['discriminator']
    logit_real, between = self._judge(params, before, seen_real, label, real_judge)
    between = same_estimates(before, between) if self.one_iteration else between
    logit_fake, mutable = self._judge(params, between, seen_fake, label, fake_judge)
    loss = jnp.mean(self._discriminator_loss(logit_real, logit_fake))
    metrics = {'logit_real': jnp.mean(logit_real), 'logit_fake': jnp.mean(logit_fake)}
    if self.loss == 'wgan_gp':
      # Gulrajani et al. 2017, eq. 3: gradients at random points between real and fake samples.
      share = jax.random.uniform(mix_key, (len(real),) + (1,) * (real.ndim - 1))
      square = self._square_gradient(params, mutable, share * seen_real + (1.0 - share) * seen_fake, label)
      metrics['penalty'] = jnp.mean((jnp.sqrt(square + 1e-12) - 1.0)**2)
      loss = loss + (PENALTY if self.penalty is None else self.penalty) * metrics['penalty']
    if self._penalised and not self.r1_every:
      term, squares = self._penalties(params, context, mutable, (real, show_real), (fake, show_fake), label)
      loss, metrics = loss + term, {**metrics, **squares}
    if self._consistent:
      term, changes = self._consistency(params, between, (seen_real, logit_real), (seen_fake, logit_fake), label,
                                        (real_judge, fake_judge), jax.random.fold_in(key, _CONSISTENCY))
      loss, metrics = loss + term, {**metrics, **changes}
    sides = margins(self.loss, logit_real, logit_fake)
    if self.watch:
      metrics['accuracy'] = 0.5 * jnp.mean(sides[0] > 0) + 0.5 * jnp.mean(sides[1] > 0)
    state, logged = self._observed(context, signs(sides[0]), len(real))
    return Output(loss, {**metrics, **logged}, {**context.mutable, 'discriminator': mutable, **state}, len(real))

  def _r1(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    """The penalties R1 (Mescheder et al. 2018, eq. 9) and R2 in a phase of their own."""
    real, label = self._real(batch, context), self._label(batch)
    fake = None
    if self.r2_gamma:
      latent_key, fake_key = jax.random.split(jax.random.fold_in(key, _PENALTY))
      fake = self._fake(params, context, latent_key, label, fake_key, len(real))[0]
    shown = ((real, self._show(context, key, _REAL)), (fake, self._show(context, key, _FAKE)))
    term, squares = self._penalties(params, context, context.mutable['discriminator'], *shown, label)
    return Output(self.r1_every * term, squares, None, len(real))

  def _generator(self, params: Params, context: Context, batch: Batch, key: Key) -> Output:
    latent_key, fake_key, judge_key = jax.random.split(key, 3)
    label, count = self._label(batch), len(batch[self.kind])
    fake, mutable = self._fake(params, context, latent_key, label, fake_key, count)
    features: dict[str, Any] = {'part': 'features'} if self.feature_matching else {}

    def judged(x: Array, salt: int) -> Any:
      """Logits, or logits and features."""
      seen = self._show(context, key, salt)(x)
      return self._judge(params, context.mutable['discriminator'], seen, label, judge_key, **features)[0]

    own: Any = judged(fake, _FAKE)
    other: Any = judged(self._real(batch, context), _REAL) if self.loss in RELATIVE or features else None
    metrics, matching = {}, 0.0
    if features:
      (own, own_maps), (other, other_maps) = own, other
      metrics['features'] = feature_distance(other_maps, own_maps)
      matching = self.feature_matching * metrics['features']
    if self.watch:
      metrics.update(crowding(self._real(batch, context), fake))
    loss = RELATIVE[self.loss][1](other, own) if self.loss in RELATIVE else LOSSES[self.loss][1](own)
    return Output(jnp.mean(loss) + matching, metrics, {**context.mutable, 'generator': mutable}, count)

  def _discriminator_loss(self, real: Array, fake: Array) -> Array:
    """Of each logit, or of each pair."""
    return {**LOSSES, **RELATIVE}[self.loss][0](real, fake)

  def _begun(self, context: Context) -> Context:
    """The context of a step with its own state of the augmentation."""
    if self.augment is None:
      return context
    state = self.augment.begin(context.mutable[AUGMENT], context.step)
    return dataclasses.replace(context, mutable={**context.mutable, AUGMENT: state})

  def _observed(self, context: Context, sign: Array, images: int) -> tuple[dict[str, Tree], dict[str, Array]]:
    """The augmentation's entry of the mutable tree after real samples were judged, and what is logged of it."""
    if self.augment is None:
      return {}, {}
    state = self.augment.observe(context.mutable[AUGMENT], sign, images)
    return {AUGMENT: state}, self.augment.metrics(state)

  def _show(self, context: Context, key: Key, salt: int) -> Callable[[Array], Array]:
    """Makes of samples what the discriminator sees; `salt` tells apart what is shown in one phase."""
    return functools.partial(self._seen, context, jax.random.fold_in(key, salt))

  def _seen(self, context: Context, key: Key, x: Array) -> Array:
    """Augmented samples, blurred before and with noise."""
    left = lambda steps: jnp.maximum(1.0 - context.step / steps, 0.0) if steps else jnp.ones(())
    if self.blur:
      x = blurred(x, self.blur * left(self.blur_steps), self.blur)
    if self.augment is not None:
      x = self.augment.apply(context.mutable[AUGMENT], x, jax.random.fold_in(key, 0))
    if self.instance_noise:
      noise = jax.random.normal(jax.random.fold_in(key, 1), x.shape)
      x = x + self.instance_noise * left(self.instance_noise_steps) * noise
    return x

  def _real(self, batch: Batch, context: Context) -> Array:
    """Real samples before augmentation; images in [-1, 1]."""
    del context  # for subclasses whose real samples change with the step
    if self.kind not in batch:
      raise UserError(f'a GAN of kind {self.kind!r} needs the column {self.kind!r}, the data has {sorted(batch)}; '
                      'change config.data or config.objective.kind')
    return batch['image'] / 127.5 - 1.0 if self.kind == 'image' else batch['point'].astype(jnp.float32)

  def _label(self, columns: Mapping[str, Array]) -> Array | None:
    if self.num_classes is None:
      return None
    if 'label' not in columns:
      raise UserError(f"a conditional GAN needs 'label', got {sorted(columns)}; add it, or set num_classes to None")
    return columns['label']

  def _latent(self, key: Key, shape: tuple[int, ...]) -> Array:
    if self.distribution == 'normal':
      return jax.random.normal(key, (*shape, self.latent))
    return jax.random.uniform(key, (*shape, self.latent), minval=-1.0, maxval=1.0)

  def _fake(self, params: Params, context: Context, key: Key, label: Array | None, mode: Key | None, count: int):
    """(samples, the generator's new mutable tree); `mode` None is inference."""
    return self.generator.apply(params['generator'], context.mutable['generator'], self._latent(key, (count,)), label,
                                key=mode)

  def _judge(self, params: Params, mutable, x: Array, label: Array | None, mode: Key | None, **options: Any):
    """(logits B/p, the discriminator's new mutable tree); `mode` None is inference.

    With `part='features'` among the options, (logits, maps of features) stand in the place of the logits.
    """
    label = None if label is None else pack(label[:, None], self.pack)
    return self.discriminator.apply(params['discriminator'], mutable, pack(x, self.pack), label, key=mode, **options)

  def _penalties(self, params: Params, context: Context, mutable, real: Shown, fake: Shown,
                 label: Array | None) -> tuple[Array, dict[str, Array]]:
    """R1 at real and R2 at fake samples, each with what shows it to the discriminator; the sum, and both squares."""
    share = 1.0
    if self.gamma_steps:
      left = 0.5 + 0.5 * jnp.cos(jnp.pi * jnp.minimum(context.step / self.gamma_steps, 1.0))
      share = self.gamma_end + (1.0 - self.gamma_end) * left
    total, squares = jnp.zeros(()), {}
    for name, gamma, (x, show) in (('square_gradient', self.r1_gamma, real), ('square_gradient_fake', self.r2_gamma,
                                                                             fake)):
      if gamma:
        squares[name] = jnp.mean(self._square_gradient(params, mutable, x, label, show))
        total = total + 0.5 * gamma * share * squares[name]
    return total, squares

  def _consistency(self, params: Params, mutable, real: tuple[Array, Array], fake: tuple[Array, Array],
                   label: Array | None, modes: tuple[Key, Key], key: Key) -> tuple[Array, dict[str, Array]]:
    """Squared changes of the logits of samples, given with their logits, under `perturb`, weighted and by name."""
    assert self.perturb is not None
    total, changes = jnp.zeros(()), {}
    for index, (name, weight, (x, logit)) in enumerate((('consistency', self.consistency, real),
                                                        ('consistency_fake', self.consistency_fake, fake))):
      if weight:
        changed = self.perturb(x, jax.random.fold_in(key, index))
        other, _ = self._judge(params, mutable, changed, label, modes[index])
        changes[name] = jnp.mean((logit - other)**2)
        total = total + weight * changes[name]
    return total, changes

  def _square_gradient(self, params: Params, mutable, x: Array, label: Array | None,
                       show: Callable[[Array], Array] = lambda x: x) -> Array:
    """Squared norm of the gradient of each pack's logit with respect to that pack before it is shown, B/p."""

    def total(x: Array) -> Array:
      return jnp.sum(self._judge(params, mutable, show(x), label, None)[0])

    gradient = jax.grad(total)(x)
    return jnp.sum(gradient.reshape(len(x) // self.pack, -1)**2, axis=1)
