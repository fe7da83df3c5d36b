"""Whole pipelines with a transformer against `diffusers`: random small ones, from a prompt to pixels, in and out."""

import json
from unittest import mock

import jax
import numpy as np
from PIL import Image
import pytest

import genjax
from genjax.diffusion import conditioning
from genjax.experiments import condition_prompts
from genjax.runs import assets, bases, builders, encoding, importing
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
from tests.parity import tiny_transformers as tiny  # noqa: E402  # needs both
from tests.parity.test_public_pipelines import check_written, near, noise, torch_of  # noqa: E402

torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')]
PROMPTS, NEGATIVE, STEPS = ('A red circle ', 'blue square, a small photo of a red circle'), 'blue', 4


def opened(folder, workdir, **changes):
  importing.import_model(folder, workdir)
  return genjax.open(workdir, **{'sampler': dict(steps=STEPS), **changes})


def check(run, theirs, tmp_path, ask, told=None, **missing):
  """Two prompts of different lengths at once, and the second one alone, with the same starting noise."""
  told = dict(negative=NEGATIVE) if told is None else told
  start = torch_of(noise())
  if isinstance(theirs, diffusers.FluxPipeline):
    start = theirs._pack_latents(start, 2, 4, 16, 16)
  wanted = theirs(list(PROMPTS), latents=start, num_inference_steps=STEPS, output_type='np', **ask).images
  both = run.sample(2, prompt=list(PROMPTS), noise=noise(), exact=True, **told)['image']
  near(both, wanted)
  alone = run.sample(1, prompt=PROMPTS[1], noise=noise()[1:], exact=True, **told)['image']
  np.testing.assert_allclose(alone, both[1:], rtol=0, atol=1e-5)
  # Read again, since its files hold null for a number of its scheduler that is infinite
  check_written(run, type(theirs).from_pretrained(tmp_path / 'theirs', **missing), tmp_path / 'ours', **missing)


@pytest.mark.parametrize('kind, tokens, more', [
  ('PixArtAlphaPipeline', 120, {}), ('PixArtSigmaPipeline', 300, dict(out_channels=4, interpolation_scale=2))])
def test_pixart(kind, tokens, more, tmp_path):
  theirs = tiny.pixart(tmp_path / 'theirs', kind, **more)
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  assert run.config.conditions.text.lengths == (tokens,) and run.config.sampler.guidance == 4.5
  check(run, theirs, tmp_path, dict(negative_prompt=[NEGATIVE] * 2, height=32, width=32, use_resolution_binning=False,
                                    clean_caption=False))


@pytest.mark.parametrize('third', [True, False])
def test_stable_diffusion_3(third, tmp_path):
  more = dict(dual_attention_layers=(0,), qk_norm='rms_norm') if third else {}
  theirs = tiny.sd3(tmp_path / 'theirs', third=third, **more)
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  missing = {} if third else dict(text_encoder_3=None, tokenizer_3=None)  # diffusers wants to be told
  check(run, theirs, tmp_path, dict(negative_prompt=[NEGATIVE] * 2), **missing)


@pytest.mark.parametrize('guided', [True, False])
def test_flux(guided, tmp_path):
  """Flux dev is told a scale of guidance, and guided by a second prompt beside; schnell is not told."""
  theirs = tiny.flux(tmp_path / 'theirs', tiny.DYNAMIC if guided else tiny.STATIC, guided)
  changes = dict(data=dict(shape=(32, 32, 3)), sampler=dict(steps=STEPS, **dict(guidance=3.0) if guided else {}))
  run = opened(tmp_path / 'theirs', tmp_path / 'run', **changes)
  ask = dict(height=32, width=32)
  told = dict(guidance=2.0, negative=NEGATIVE) if guided else {}
  ask |= dict(guidance_scale=2.0, true_cfg_scale=3.0, negative_prompt=[NEGATIVE] * 2) if guided else {}
  check(run, theirs, tmp_path, ask, told)


def test_dit(tmp_path):
  """Classes; variances that the network learned are left aside."""
  theirs = tiny.dit(tmp_path / 'theirs')
  run = opened(tmp_path / 'theirs', tmp_path / 'run')
  start = noise()
  # DiTPipeline takes no latents: it draws them
  with mock.patch('diffusers.pipelines.dit.pipeline_dit.randn_tensor', return_value=torch_of(start)):
    wanted = theirs([3, 11], num_inference_steps=STEPS, output_type='np').images
  near(run.sample(2, label=[3, 11], noise=start, exact=True)['image'], wanted)
  check_written(run, theirs, tmp_path / 'ours')


def test_captions_are_encoded_once_by_all_encoders(tmp_path):
  """Three encoders of Stable Diffusion 3: encoded captions tell the network what captions tell it."""
  tiny.sd3(tmp_path / 'theirs')
  importing.import_model(tmp_path / 'theirs', tmp_path / 'run')
  config, texts = assets.read_config(tmp_path / 'run'), ['a red circle', 'blue', 'a small photo of a square', 'red']
  (tmp_path / 'pictures').mkdir()
  for row in range(len(texts)):
    Image.fromarray(np.full((32, 32, 3), 60 * row, np.uint8)).save(tmp_path / 'pictures' / f'{row}.png')
  lines = [json.dumps({'file_name': f'{row}.png', 'text': text}) for row, text in enumerate(texts)]
  (tmp_path / 'pictures' / 'metadata.jsonl').write_text('\n'.join(lines) + '\n')
  with config.unlocked():
    config.data.update(name=str(tmp_path / 'pictures'), train='train[:3]', heldout='train[3:]')
    config.batch_size = 3
  out = str(tmp_path / 'encoded')
  encoding.encode(config, out, encoding.Options(str(tmp_path / 'theirs' / 'vae'), prompts='text', batch=2, shards=1))
  reader = condition_prompts.captions(config, 'text')
  with config.unlocked():
    config.data.update(name=out, train='train', heldout='heldout', content='latents')
    config.conditions.text.stored = True
    config.assets = {}
  experiment = bases.attach(config, builders.build(config))
  batch = experiment.train.batch(0)
  assert set(batch) == {'image_mean', 'image_log_variance', 'text_tokens', 'text_pooled'}
  known = jax.jit(reader.give)(experiment.frozen, reader.read(texts))
  order = [int(np.argmin(np.abs(known['vector'] - row).max(axis=1))) for row in batch['text_pooled']]
  assert len(set(order)) == 3  # the folder's order is its own
  wanted = {entry: value[np.asarray(order)] for entry, value in known.items()}
  given = conditioning.given(experiment.objective.conditioners, experiment.frozen, batch)
  assert given['tokens'].shape == (3, 77 + 256, 40) and given['vector'].shape == (3, 26)
  for entry in wanted:
    np.testing.assert_allclose(given[entry], wanted[entry], rtol=1e-4, atol=1e-5)
  with config.unlocked():
    config.conditions.text.lengths = (0, 0, 20)
  with pytest.raises(UserError, match='was encoded with lengths'):
    builders.build(config)
  with pytest.raises(UserError, match="must be a condition of kind 'prompt'"):
    condition_prompts.captions(config, 'label')

