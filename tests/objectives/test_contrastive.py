"""The contrastive objective: its losses by hand, equal texts, padding, and the global batch on a mesh."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from genjax.nn.functional import Network
from genjax.objectives.base import Context
from genjax.objectives.contrastive import Contrastive
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
ROWS, WORDS = 16, 5


def towers():
  """Two matrices in the place of two towers."""

  def init(key):
    image, text = jax.random.normal(key, (2, 4, 3))
    return {'image': image, 'text': jnp.concatenate([text, text[::-1]])[:WORDS], 'scale': jnp.asarray(0.7)}, {}

  def apply(params, mutable, image_BHWC=None, ids_BT=None, mask_BT=None):
    found = {}
    if image_BHWC is not None:
      found['image'] = image_BHWC.reshape(len(image_BHWC), -1) @ params['image']
    if ids_BT is not None:
      found['text'] = jnp.sum(params['text'][ids_BT] * (mask_BT > 0)[..., None], axis=1)
    return found, mutable

  return Network(init, apply)


def objective(**options):
  return Contrastive(towers(), lambda image: image.astype(jnp.float32) / 255, 'ids', 'words', **options)


def batch(rows=ROWS, seed=0):
  rng = np.random.default_rng(seed)
  ids = rng.integers(0, WORDS, (rows, 3))
  ids[1], ids[5] = ids[0], ids[0]  # equal texts
  return {'image': rng.integers(0, 256, (rows, 2, 2, 1)).astype(np.uint8), 'ids': ids.astype(np.int32),
          'words': np.ones((rows, 3), bool)}


def context():
  return Context(step=jnp.int32(0), mutable={}, ema={}, frozen={})


def by_hand(params, columns, sigmoid, same):
  """The losses of all pairs in float64."""
  net = {name: np.asarray(value, np.float64) for name, value in params['net'].items()}
  image = (columns['image'].reshape(len(columns['image']), -1) / 255) @ net['image']
  text = net['text'][columns['ids']].sum(axis=1)
  image, text = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (image, text))
  z = np.exp(net['scale']) * image @ text.T + net.get('bias', 0.0)
  equal = (columns['ids'][:, None] == columns['ids'][None]).all(axis=-1)
  own = np.eye(len(z), dtype=bool)
  compared = np.ones_like(own) if same else own | ~equal
  if sigmoid:
    return (np.log1p(np.exp(-np.where(own, z, -z))) * compared).sum(axis=1)
  weight = np.exp(z) * compared
  return -0.5 * (np.log(np.exp(z).diagonal() / weight.sum(axis=1)) + np.log(np.exp(z).diagonal() / weight.sum(axis=0)))


@pytest.mark.parametrize('loss', ['softmax', 'sigmoid'])
@pytest.mark.parametrize('same', [False, True])
def test_losses_by_hand(loss, same):
  goal = objective(loss=loss, same=same)
  params, columns = goal.init(jax.random.key(0), {}).params, batch()
  wanted = by_hand(params, columns, loss == 'sigmoid', same)
  found = jax.jit(goal.evaluate)(params, context(), columns, jax.random.key(0))
  np.testing.assert_allclose(found['loss'], wanted, rtol=1e-4)
  step = jax.jit(goal.step)(params, context(), columns, jax.random.key(0))
  np.testing.assert_allclose(step.loss, wanted.mean(), rtol=1e-4)
  np.testing.assert_allclose(step.metrics['text_of_image'], np.mean(found['text_of_image']))
  # padding of a held-out batch is nobody's neighbour
  padded = {**{name: np.concatenate([array, array[:4]]) for name, array in columns.items()},
            'mask': np.repeat([1.0, 0.0], [ROWS, 4]).astype(np.float32)}
  again = jax.jit(goal.evaluate)(params, context(), padded, jax.random.key(0))
  for name, values in found.items():
    np.testing.assert_allclose(again[name][:ROWS], values, rtol=1e-5)


MESHED = """
import jax, numpy as np
from genjax import sharding
from test_contrastive import batch, context, objective

for loss in ('softmax', 'sigmoid'):
  goal, columns = objective(loss=loss), batch()
  params = goal.init(jax.random.key(0), {}).params

  def slopes(params, columns):
    return jax.value_and_grad(lambda params: goal.step(params, context(), columns, jax.random.key(0)).loss)(params)

  wanted = jax.jit(slopes)(params, columns)
  mesh = sharding.make_mesh({'data': 8})
  split = sharding.put_batch(columns, mesh)
  assert len(split['image'].sharding.device_set) == 8
  found = jax.jit(sharding.under(mesh, {}, slopes))(params, split)
  jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6), found, wanted)
  # and not the mean of the devices' own losses
  own = jax.jit(jax.vmap(lambda part: slopes(params, part)[0]))(
    {name: array.reshape(8, 2, *array.shape[1:]) for name, array in columns.items()})
  assert loss == 'sigmoid' or abs(np.mean(own) - wanted[0]) > 0.1
print('equal')
"""


def test_the_global_batch_on_a_mesh_gives_the_gradient_of_one_device():
  environment = {**os.environ, 'JAX_PLATFORMS': 'cpu',
                 'XLA_FLAGS': os.environ.get('XLA_FLAGS', '') + ' --xla_force_host_platform_device_count=8',
                 'PYTHONPATH': f'{ROOT}{os.pathsep}{pathlib.Path(__file__).parent}'}
  done = subprocess.run([sys.executable, '-c', MESHED], env=environment, capture_output=True, text=True, timeout=300)
  assert done.returncode == 0 and 'equal' in done.stdout, done.stderr[-3000:]


def test_what_it_refuses():
  with pytest.raises(UserError, match='config.objective.loss must be one of'):
    objective(loss='hinge')
  with pytest.raises(UserError, match='genjax evaluate'):
    objective().sample({}, context(), None, {})
