"""Whole pipelines as runs: their texts, what stands for none, files that are read and refused, and what is written."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

import genjax
from genjax import interop
from genjax.cli.main import main
from genjax.experiments import pipelines, public
from genjax.interop import files
from genjax.interop import pipelines as index
from genjax.models.autoencoders import kl
from genjax.models.denoisers import latent_unet
from genjax.models.transformers import clip
from genjax.runs import assets, bases, builders, importing
from genjax.types import UserError, named_leaves

VAE = kl.Kl(shape=(8, 8, 3), latent=4, base=8, multipliers=(1, 2), blocks=1, groups=4)
UNET = dict(shape=(4, 4, 4), channels=(8,), depths=(1,), middle_depth=1, heads=(1,), blocks=1, groups=4)
SD = {'unet': ['diffusers', 'UNet2DConditionModel'], 'vae': ['diffusers', 'AutoencoderKL'],
      'text_encoder': ['transformers', 'CLIPTextModel'], 'tokenizer': ['transformers', 'CLIPTokenizer'],
      'scheduler': ['diffusers', 'DDIMScheduler'], 'safety_checker': ['stable_diffusion', 'Checker'],
      'feature_extractor': [None, None]}
DDIM = dict(_class_name='DDIMScheduler', beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear',
            clip_sample=False, set_alpha_to_one=False, steps_offset=1)


def encoder(width, projection=0):
  text = clip.ClipText(layers=2, heads=1, width=width, vocab=200, context=8, end=clip.LEGACY_END)
  return clip.ClipConfig(text, None, projection)


def save(folder, config, network, **more):
  """A component with random parameters."""
  shapes, rng = jax.eval_shape(network.init, jax.random.key(0))[0], np.random.default_rng(0)
  interop.save(folder, config, jax.tree.map(lambda leaf: 0.1 * rng.normal(size=leaf.shape).astype(np.float32), shapes),
               **more)


def tokenizer(folder, padding):
  letters = [chr(code) for code in range(33, 127)]
  vocabulary = [*letters, *(f'{letter}</w>' for letter in letters), '<|startoftext|>', '<|endoftext|>']
  folder.mkdir()
  (folder / 'vocab.json').write_text(json.dumps({text: place for place, text in enumerate(vocabulary)}))
  (folder / 'merges.txt').write_text('#version: 0.2\n')
  (folder / 'tokenizer_config.json').write_text(json.dumps(dict(pad_token=padding, tokenizer_class='CLIPTokenizer')))


def made(folder, xl=False):
  """A pipeline in a folder."""
  folder.mkdir()
  save(folder / 'vae', VAE, kl.autoencoder(VAE), mutable={'moments': {
    'mean': np.zeros(4, np.float32), 'square': np.full(4, 4.0, np.float32)}})
  encoders = {'text_encoder': encoder(8), **({'text_encoder_2': encoder(12, 10)} if xl else {})}
  for name, config in encoders.items():
    save(folder / name, config, clip.encoder(config))
    tokenizer(folder / name.replace('text_encoder', 'tokenizer'), '!' if name.endswith('2') else '<|endoftext|>')
  more = dict(token_width=20, vector_width=10, numbers=6, number_features=4) if xl else dict(token_width=8)
  unet = latent_unet.LatentUNet(**UNET, **more)
  save(folder / 'unet', unet, latent_unet.network_of(unet))
  components = {**SD, **({name: ['transformers', 'CLIPTextModelWithProjection'] for name in ('text_encoder_2',)} | {
    'tokenizer_2': ['transformers', 'CLIPTokenizer']} if xl else {})}
  kind = 'StableDiffusionXLPipeline' if xl else 'StableDiffusionPipeline'
  index.write_index(folder, kind, components, {}, DDIM)
  return folder


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  return made(tmp_path_factory.mktemp('pipeline') / 'sd')


@pytest.fixture(scope='module')
def workdir(folder, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('runs') / 'run'
  assert main(['import', f'--from={folder}', f'--workdir={workdir}']) == 0
  return workdir


@pytest.mark.slow
def test_samples_of_prompts(workdir, capsys):
  """Prompts of several lengths at once are those one by one; one that is too long is cut off, and that is said; what is
  not finite is an error, and so is noise of another shape."""
  run = genjax.open(workdir, sampler=dict(steps=2))
  prompts, noise = ['a b', 'a red circle of many letters'], np.random.default_rng(0).normal(size=(2, 4, 4, 4))
  both = run.sample(2, prompt=prompts, negative='b', noise=noise, exact=True, chunk=1)
  assert 'is cut off' in capsys.readouterr().err
  assert both['image'].shape == (2, 8, 8, 3) and both['image'].dtype == np.float32 and 'noise' not in both
  alone = run.sample(1, prompt=prompts[1], negative='b', noise=noise[1:], exact=True, chunk=1)
  np.testing.assert_array_equal(alone['image'][0], both['image'][1])
  with pytest.raises(UserError, match='noise must be finite, of shape'):
    run.sample(1, prompt='a', noise=noise)
  params = run.state.params
  params['net']['last']['conv']['bias'] = params['net']['last']['conv']['bias'].at[0].set(np.nan)
  with pytest.raises(UserError, match='samples 0 of this draw hold NaN'):
    run.sample(2, prompt=prompts, negative='b', noise=noise, exact=True, chunk=1)


def test_what_is_not_read_is_said(folder, capsys):
  pipelines.say_skipped(pipelines.open_folder(folder)[0])
  said = capsys.readouterr().err
  assert 'safety_checker is not read' in said and 'feature_extractor' not in said


def test_config_of_a_run(folder, workdir):
  """Scale, sampler and prompts come from the folder; what stands for no prompt is kept."""
  config = assets.read_config(workdir)
  assert config.data.shape == (8, 8, 3) and config.sampler.guidance == 7.5 and config.sampler.name == 'ddim'
  assert config.objective.process.name == 'vp_scaled_linear'
  experiment = builders.build(config)
  with np.load(workdir / 'conditions.npz') as kept:
    ids = kept['text_text_encoder_ids']
  start, end = 188, 189
  np.testing.assert_array_equal(ids, [start] + [end] * 7)
  np.testing.assert_array_equal(experiment.objective.conditioners['text'].null['text_text_encoder_ids'], ids)
  moments = interop.load(folder / 'vae').mutable['moments']  # the scale belongs to the autoencoder
  assert moments['square'][0] == pytest.approx(4.0) and experiment.objective.shape == (4, 4, 4)


def test_nothing_is_zeros_and_an_empty_text_is_not(tmp_path):
  """Of SDXL: no negative prompt is zeros, and an empty one what the encoders make of it."""
  folder = made(tmp_path / 'xl', xl=True)
  config = pipelines.configured(*pipelines.open_folder(folder))
  experiment = bases.attach(config, builders.build(config))
  text, accepted = experiment.objective.conditioners['text'], experiment.conditions['text']
  assert experiment.conditions['size'].default(0).tolist() == [8, 8, 0, 0, 8, 8]
  empty = accepted.encode(np.asarray(['', 'a b']))
  none = {column: np.stack([row, row]) for column, row in text.null.items()}
  told, nothing = (jax.jit(text.encode)(experiment.frozen, columns) for columns in (empty, none))
  assert told['tokens'].shape == (2, 8, 20) and told['vector'].shape == (2, 10)
  assert np.abs(told['tokens'][0]).max() > 0 and not np.asarray(nothing['tokens']).any()
  assert np.abs(told['vector'][0]).max() > 0 and not np.asarray(nothing['vector']).any()
  # the second tokenizer pads with its own token
  assert {int(empty[f'text_text_encoder{end}_ids'][0, -1]) for end in ('', '_2')} == {0, 189}


def test_parts_are_read_one_by_one(folder):
  """An import knows the digests of the parts and holds none of them."""
  config = pipelines.configured(*pipelines.open_folder(folder))
  experiment = builders.build(config)
  known, held = bases.identified(config, experiment), bases.attach(config, experiment)
  assert known.assets == held.assets and set(known.assets['parts']) == {'autoencoder', 'text_encoder'}
  assert all(isinstance(leaf, jax.ShapeDtypeStruct) for part in known.frozen.values()
             for leaf in jax.tree.leaves(part['params']))
  assert callable(public.read(folder, 'float32').params)


def copied(folder, to):
  shutil.copytree(folder, to)
  return to


def test_files_that_are_read(folder, tmp_path):
  """Halves by name, in the components that have them, and shards."""
  both = copied(folder, tmp_path / 'both')
  model = interop.load(both / 'vae')
  interop.save(tmp_path / 'half', model, dtype='float16')
  (tmp_path / 'half' / 'diffusion_pytorch_model.safetensors').rename(
    both / 'vae' / 'diffusion_pytorch_model.fp16.safetensors')
  config = pipelines.configured(*pipelines.open_folder(both, 'fp16'))
  assert config.parts.autoencoder.variant == 'fp16' and config.parts.text_encoder == str(both / 'text_encoder')
  for variant, kind in (('', 'float32'), ('fp16', 'float16')):
    assert {leaf.dtype for leaf in files.open_folder(both / 'vae', variant).values()} == {np.dtype(kind)}
  with pytest.raises(UserError, match="no component has files of the variant 'bf16'"):
    pipelines.open_folder(both, 'bf16')
  interop.save(tmp_path / 'shards', model, shard_bytes=10_000)
  assert len(list((tmp_path / 'shards').glob('*.safetensors'))) > 1
  again = named_leaves(interop.load(tmp_path / 'shards').params)
  assert all(np.array_equal(leaf, again[name]) for name, leaf in named_leaves(model.params).items())


def test_folders_that_are_refused(folder, tmp_path):
  broken = copied(folder, tmp_path / 'broken')
  weights = broken / 'text_encoder' / 'model.safetensors'
  weights.rename(weights.with_name('pytorch_model.bin'))
  with pytest.raises(UserError, match='pickle files'):
    importing.import_model(broken, tmp_path / 'run')
  shutil.rmtree(broken / 'text_encoder')
  with pytest.raises(UserError, match='copy the whole pipeline'):
    importing.import_model(broken, tmp_path / 'run')
  told = json.loads((broken / index.INDEX).read_text())
  (broken / index.INDEX).write_text(json.dumps({**told, '_class_name': 'StableDiffusionUpscaleX'}))
  with pytest.raises(UserError, match='StableDiffusionUpscaleX'):
    importing.import_model(broken, tmp_path / 'run')
  with pytest.raises(UserError, match='one component of the pipeline'):
    importing.import_model(folder / 'unet', tmp_path / 'run')
  assert not (tmp_path / 'run').exists()


def test_written_again(folder, workdir, tmp_path):
  """Every file of weights comes back to the last byte, with the scheduler; the checker is left out by name."""
  assert main(['export', f'--workdir={workdir}', f'--to={tmp_path}/again', '--format=diffusers']) == 0
  for path in ('unet/diffusion_pytorch_model.safetensors', 'vae/diffusion_pytorch_model.safetensors',
               'text_encoder/model.safetensors', 'vae/config.json', 'tokenizer/vocab.json'):
    assert (tmp_path / 'again' / path).read_bytes() == (folder / path).read_bytes(), path
  told = json.loads((tmp_path / 'again' / index.INDEX).read_text())
  assert told['safety_checker'] == [None, None] and told['unet'] == SD['unet'] and told['scheduler'] == SD['scheduler']
  assert json.loads((tmp_path / 'again' / index.SCHEDULER).read_text()) == DDIM


@pytest.mark.slow
def test_trained_and_adapted(workdir, tmp_path):
  """A run goes on from an imported one, in whole and by adapters, with the parts that it stands on."""
  more = [f'--config={workdir}/config.json', f'--config.init_from={workdir}', '--config.steps=1',
          '--config.batch_size=2', '--config.data.name=captioned_shapes', '--config.data.heldout=heldout',
          '--config.evaluate_batches=1', '--config.optimizers.net.lr=0.1']
  assert main(['train', *more, f'--workdir={tmp_path}/tuned']) == 0
  assert main(['export', f'--workdir={tmp_path}/tuned', f'--to={tmp_path}/written']) == 0
  before, after = (named_leaves(interop.load(path / 'unet').params) for path in (
    source_of(workdir), tmp_path / 'written'))
  assert any(not np.array_equal(before[name], after[name]) for name in before)
  adapted = [*more, '--config.lora.rank=2', "--config.lora.paths=('.*(query|value)/kernel',)"]
  assert main(['train', *adapted, f'--workdir={tmp_path}/adapted']) == 0


def source_of(workdir):
  """The pipeline that a run was imported from."""
  return pathlib.Path(assets.read_config(workdir).parts.autoencoder).parent


@pytest.mark.slow
def test_a_denoiser_alone(folder, tmp_path):
  """It generates latents from vectors in files."""
  copied(folder / 'unet', tmp_path / 'unet')
  importing.import_model(tmp_path / 'unet', tmp_path / 'run')
  run = genjax.open(tmp_path / 'run', sampler=dict(steps=2))
  samples = run.sample(1, text=np.ones((77, 8), np.float32))
  assert samples['image'].shape == (1, 4, 4, 4) and np.isfinite(samples['image']).all()
  with pytest.raises(UserError, match='takes finite numbers of shape'):
    run.sample(1, text=np.ones((5, 8), np.float32))


@pytest.mark.parametrize('value', ['CLIPTextModel', [1, 2], ['transformers']])
def test_component_described_otherwise_is_refused(value, tmp_path):
  (tmp_path / index.INDEX).write_text(json.dumps({'_class_name': 'StableDiffusionPipeline', 'text_encoder': value}))
  with pytest.raises(UserError, match='a component is a library and a class, got text_encoder='):
    index.open_folder(tmp_path, ('text_encoder',))
