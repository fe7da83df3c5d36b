"""Codes of autoencoders: ways between two, attributes, and the command that shows them."""

import numpy as np
from PIL import Image
import pytest

import genjax
from genjax.cli.main import main
from genjax.runs import codes
from genjax.types import UserError


def test_line_and_sphere():
  random = np.random.default_rng(0)
  first, last = random.normal(size=(2, 3, 40)).astype(np.float32)
  share = np.linspace(0, 1, 5)
  for path in codes.PATHS.values():
    ways = path(first, last, share)
    assert ways.shape == (3, 5, 40)
    np.testing.assert_allclose(ways[:, 0], first, atol=1e-6)
    np.testing.assert_allclose(ways[:, -1], last, atol=1e-6)
  np.testing.assert_allclose(codes.line(first, last, share)[:, 2], (first + last) / 2, atol=1e-6)


def test_the_sphere_keeps_length_and_angle():
  random = np.random.default_rng(1)
  first, last = random.normal(size=(2, 4, 2, 3, 5))
  first, last = (code / np.sqrt((code ** 2).sum((1, 2, 3), keepdims=True)) for code in (first, last))
  ways = codes.sphere(first, last, np.linspace(0, 1, 7)).reshape(4, 7, -1)
  np.testing.assert_allclose(np.linalg.norm(ways, axis=-1), 1, atol=1e-6)
  steps = np.arccos(np.clip((ways[:, 1:] * ways[:, :-1]).sum(-1), -1, 1))
  np.testing.assert_allclose(steps, np.broadcast_to(steps[:, :1], steps.shape), atol=1e-4)


def test_parallel_codes_and_zeros_go_along_the_line():
  first, last = np.float32([[1, 0], [0, 0], [1, 0]]), np.float32([[3, 0], [2, 2], [-1, 0]])
  np.testing.assert_allclose(codes.sphere(first, last, np.array([0.25]))[:, 0], [[1.5, 0], [0.5, 0.5], [0.5, 0]],
                             atol=1e-6)


def test_direction_of_an_attribute():
  code = np.float32([[1, 0], [3, 0], [0, 5], [0, 7]])
  found = codes.attribute(code, [True, True, False, False])
  np.testing.assert_allclose(found.direction, [2, -6])
  assert (found.with_it, found.without) == (2, 2)
  with pytest.raises(UserError, match='got 4 and 0'):
    codes.attribute(code, [True] * 4)


def test_a_run_of_a_vae(smoke_run, tmp_path):
  folder = smoke_run('autoencoders/mnist_vae')
  made = genjax.open(folder).codes(chunk=4)
  images, _ = made.examples(6)
  code = made.encode(images)
  assert code.shape == (6, 3) and made.latent == (3,)
  np.testing.assert_allclose(code[4:], made.encode(images[4:]), rtol=1e-5)
  ways = made.interpolate(images[:2], images[2:4], points=3, path='sphere')
  assert ways.shape == (2, 3, 8, 8, 1) and ways.dtype == np.uint8
  np.testing.assert_array_equal(ways[:, 0], made.decode(code[:2]))
  moved = made.along(images[:1], np.ones(3), np.array([-1.0, 0.0]))
  np.testing.assert_array_equal(moved[0], made.decode(code[:1] + np.float32([[-1], [0]])))
  with pytest.raises(UserError, match="no column 'label'.*num_classes=10"):
    made.examples(3, 'label')
  out = tmp_path / 'threes.png'
  assert main(['interpolate', f'--workdir={folder}', '--attribute=label=3', '--against=label=5', '--rows=2',
               '--points=4', f'--out={out}', '--set', 'data.num_classes=10']) == 0
  with Image.open(out) as picture:
    assert picture.size == (32, 16)
  for wrong in (['--points=1'], ['--against=label=3'], ['--attribute=label'], ['--pictures', 'a.png']):
    assert main(['interpolate', f'--workdir={folder}', f'--out={tmp_path / "x.png"}', *wrong]) == 2
