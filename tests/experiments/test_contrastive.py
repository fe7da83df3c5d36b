"""Small CLIPs: what their builder refuses, the kinds that they offer, and retrieval on held-out pairs."""

import importlib
import json
import shutil

import jax
import numpy as np
import pytest

from genjax.cli.main import main
from genjax.experiments import contrastive
from genjax.runs import builders
from genjax.types import UserError


def config_of(**changes):
  config = importlib.import_module('genjax.configs.contrastive.clip').get_config('smoke')
  for path, value in changes.items():
    section, _, key = path.partition('__')
    if key:
      config[section][key] = value
    else:
      config[section] = value
  return config.lock()


@pytest.mark.parametrize('changes, message', [
  (dict(microbatches=2), 'set it to 1'), (dict(conditions={}), 'one condition of kind text'),
  (dict(conditions=dict(text=dict(kind='text', part='encoder'))), 'learns its own encoder'),
  (dict(evaluation=dict(recall_at=(0,))), 'recall_at'), (dict(data__content='latents'), 'as pixels')])
def test_bad_options(changes, message):
  with pytest.raises(UserError, match=message):
    builders.build(config_of(**changes))


def test_kinds():
  config = config_of(conditions=dict(text=dict(kind='text', length=12, vocabulary='byte')))
  experiment = builders.build(config)
  both = contrastive.joint(config, experiment)
  ids_BL, mask_BL = both.tokenize(['a red circle', 'a'], True)
  assert ids_BL.shape == (2, 12) and mask_BL.sum(axis=1).tolist() == [12, 2]
  with pytest.raises(UserError, match='13 tokens'):
    both.tokenize(['a red circle'], False)

  def apply(key, image, ids, mask):
    group = {'params': experiment.objective.init(key, {}).params}
    encoder, features = (kind(config, experiment) for kind in (contrastive.text_encoder, contrastive.features))
    return (both.image(group, image), both.text(group, ids, mask), both.scale(group),
            encoder.encode(group, ids, mask), features.extract(group, image))

  image = np.random.default_rng(0).integers(0, 256, (2, 20, 10, 3)).astype(np.uint8)  # of another size
  images, texts, scale, tokens, extracted = jax.jit(apply)(jax.random.key(0), image, ids_BL, mask_BL)
  for side in (images, texts):
    assert side.shape == (2, 64)
    np.testing.assert_allclose(np.linalg.norm(side, axis=1), 1, rtol=1e-5)
  np.testing.assert_allclose(scale, 1 / 0.07, rtol=1e-5)
  assert tokens['tokens'].shape == (2, 12, 16) and tokens['pooled'].shape == extracted.shape == (2, 64)


@pytest.mark.slow
def test_retrieval_of_its_own_pairs_and_as_a_judge(smoke_run, tmp_path):
  """Evaluated over all held-out pairs, and taken as a part by the measures of another run."""
  folder = shutil.copytree(smoke_run('contrastive/clip'), tmp_path / 'clip')
  assert main(['evaluate', f'--workdir={folder}']) == 0
  found = json.loads((folder / 'evaluation.json').read_text())['metrics']
  assert {'retrieval/text_of_image_1', 'retrieval/image_of_text_10', 'heldout/loss'} <= set(found)
  assert all(0 <= found[name] <= 1 for name in found if name.startswith('retrieval/'))
  flow = shutil.copytree(smoke_run('diffusion/captioned_flow'), tmp_path / 'flow')
  assert main(['evaluate', f'--workdir={flow}', '--set', f'evaluation.parts.clip={folder}',
               "evaluation.measures=('clip_score','retrieval')", 'evaluation.num_samples=16',
               'evaluation.recall_at=(1, 5)']) == 0
  judged = json.loads((flow / 'evaluation.json').read_text())
  assert {'clip_score/mean', 'retrieval/text_of_image_5'} <= set(judged['metrics'])
  assert judged['card']['measures']['clip_score']['extractor']['name'] == contrastive.NAME
