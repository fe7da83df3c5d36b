"""Ring attention on four fake devices against the formula on one; prints a JSON line of the largest errors, and of
memory."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np

from genjax import sharding
from genjax.nn.attention import ring_attention


def formula(query, key, value, causal, window, segments):
  groups = query.shape[2] // key.shape[2]
  key, value = (jnp.repeat(x, groups, axis=2) for x in (key, value))
  scores = jnp.einsum('bthd,bshd->bhts', query, key) / query.shape[-1] ** 0.5
  back = jnp.arange(query.shape[1])[:, None] - jnp.arange(key.shape[1])
  visible = jnp.ones(scores.shape, bool)
  if causal:
    visible &= back >= 0
  if window:
    visible &= back < window
  if segments:
    visible &= (segments[0][:, :, None] == segments[1][:, None, :])[:, None]
  return jnp.einsum('bhts,bshd->bthd', jax.nn.softmax(scores, where=visible, axis=-1), value)


def errors(shape, heads, kv_heads, length, keys, causal, window, packed):
  """Largest absolute differences of output and gradients, and of derivatives in forward mode, of packed texts."""
  generator = np.random.default_rng(length)
  draw = lambda *sizes: jnp.asarray(generator.normal(size=sizes), jnp.float32)
  query, key, value, weight = draw(4, length, heads, 8), draw(4, keys, kv_heads, 8), draw(4, keys, kv_heads,
                                                                                          8), draw(4, length, heads, 8)
  segments = None
  if packed:
    ids = jnp.asarray(np.sort(generator.integers(0, 3, (4, length)), axis=1))
    segments = (ids, ids)
  mesh = sharding.make_mesh(shape)

  def ring(query, key, value):
    return ring_attention.ring_attend(query, key, value, causal=causal, window=window, segments=segments)

  def run(function):
    loss = lambda *arrays: jnp.sum(function(*arrays) * weight)
    forward = lambda *arrays: jax.jvp(function, arrays, tuple(jnp.cos(x) for x in arrays))[1] if packed else ()
    return jax.jit(lambda *arrays: (function(*arrays), jax.grad(loss, argnums=(0, 1, 2))(*arrays), forward(*arrays)))(
      query, key, value)

  actual = run(sharding.under(mesh, {}, ring))
  expected = run(lambda *arrays: formula(*arrays, causal, window, segments))
  return max(float(jnp.max(jnp.abs(a - b))) for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected)))


def memory(context, length):
  """Bytes of temporaries on one device of a gradient."""
  mesh = sharding.make_mesh({'context': context}, jax.devices()[:context])
  place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, 'context'))
  array = jax.ShapeDtypeStruct((1, length, 2, 32), jnp.float32, sharding=place)
  loss = lambda query, key, value: jnp.sum(ring_attention.ring_attend(query, key, value, causal=True) ** 2)
  gradient = jax.jit(sharding.under(mesh, {}, jax.grad(loss, argnums=(0, 1, 2))))
  return gradient.lower(array, array, array).compile().memory_analysis().temp_size_in_bytes


if __name__ == '__main__':
  found = {}
  masks = tuple(itertools.product(((False, None), (True, None), (True, 5)), (False, True)))
  shapes = ({'context': 4}, {'data': 2, 'context': 2}, {'tensor': 2, 'context': 2})
  heads_of = ((4, 2), (2, 2), (4, 1))
  for number, ((causal, window), packed) in enumerate(masks):
    for offset, shape in enumerate(shapes):  # every mask on every mesh, every mesh with all kinds of groups
      heads, kv_heads = heads_of[(number + offset) % 3]
      name = f'{shape} heads={heads}/{kv_heads} causal={causal} window={window} packed={packed}'
      found[name] = errors(shape, heads, kv_heads, 16, 16, causal, window, packed)
  found['cross'] = errors({'context': 4}, 2, 2, 8, 16, False, None, False)
  ring_attention.CHUNK = 8  # several chunks of queries on each device
  for causal, window, packed in ((False, None, True), (True, None, False), (True, 11, True)):
    found[f'chunks causal={causal} window={window} packed={packed}'] = errors({'context': 4}, 4, 2, 64, 64, causal,
                                                                              window, packed)
  ring_attention.CHUNK = 512
  print(json.dumps({'errors': found, 'memory': {context: memory(context, 4096) for context in (2, 4)}}))
