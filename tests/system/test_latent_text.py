"""The worked example of docs/latent_text.md: a text-conditional flow over the latents of a run, read by another run."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
from PIL import Image, ImageDraw
import pytest

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
from saved import arrays  # noqa: E402

ROOT = HERE.parent.parent
COLOURS = {'red': (220, 30, 30), 'green': (30, 180, 60), 'blue': (40, 60, 220)}
SMALL = ('--config.parts.autoencoder=runs/kl', '--config.parts.text=runs/bert', '--config.steps=20',
         '--config.batch_size=8', '--config.checkpoint.every=10', '--config.optimizers.net.warmup=1',
         '--config.log_every=1', '--config.model.width=16', '--config.model.depth=2', '--config.sampler.steps=3')
CONFIG = '--config=captions.py:data=pictures,pixels=16'


def genjax(*argv, cwd, code=0, devices=1, **environment):
  path = os.pathsep.join([str(HERE), str(cwd), str(ROOT), os.environ.get('PYTHONPATH', '')])
  flags = os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={devices}'
  done = subprocess.run([sys.executable, '-m', 'genjax.cli.main', *argv], cwd=cwd, capture_output=True, text=True,
                        timeout=900, env={**os.environ, 'PYTHONPATH': path, 'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': flags,
                                          **environment})
  assert done.returncode == code, done.stderr[-3000:]
  return done


def losses(workdir):
  lines = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return {line['step']: line['diffusion/loss'] for line in lines if 'diffusion/loss' in line}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """The three files, a folder of captioned pictures, an autoencoder and a text encoder trained on them."""
  folder = tmp_path_factory.mktemp('latent_text')
  files = re.findall(r'```python\n# (\w+\.py)\n(.*?)```', (ROOT / 'docs' / 'latent_text.md').read_text(), re.S)
  assert [name for name, _ in files] == ['text_conv.py', 'text_latents.py', 'captions.py']
  for name, text in files:
    (folder / name).write_text(text)
  (folder / 'pictures').mkdir()
  captions = []
  for number in range(60):
    colour, form = list(COLOURS)[number % 3], ('square', 'circle')[number // 3 % 2]
    picture = Image.new('RGB', (24, 20), 'white')
    draw = ImageDraw.Draw(picture)
    (draw.rectangle if form == 'square' else draw.ellipse)((4, 4, 14, 14), fill=COLOURS[colour])
    picture.save(folder / 'pictures' / f'{number:02}.png')
    captions.append(f'a {colour} {form}')
  (folder / 'pictures' / 'metadata.jsonl').write_text(''.join(
    json.dumps({'file_name': f'{number:02}.png', 'text': text}) + '\n' for number, text in enumerate(captions)))
  (folder / 'captions.txt').write_text('\n'.join(captions) + '\n')
  genjax('train', f'--config={ROOT}/configs/autoencoders/kl.py:smoke', '--workdir=runs/kl',
         '--config.data.name=pictures', '--config.data.train=train[:90%]',
         '--config.data.heldout=train[90%:]', '--config.data.shape=(16,16,3)',
         '--config.data.resize=bicubic', '--config.data.crop=True', cwd=folder)
  genjax('train', f'--config={ROOT}/configs/language/bert.py:smoke', '--workdir=runs/bert',
         '--config.data.name=./captions.txt', '--config.data.field=text', '--config.data.train=train[:90%]',
         '--config.data.heldout=train[90%:]', cwd=folder)
  genjax('train', CONFIG, '--workdir=runs/flow', *SMALL, cwd=folder)
  return folder


@pytest.mark.slow
def test_prompts_and_negative_prompts_decide_samples(folder):
  def drawn(name, *argv):
    genjax('sample', '--workdir=runs/flow', '--num=2', f'--out={name}.npz', '--seed=1', *argv, cwd=folder)
    return np.load(folder / f'{name}.npz')['image']

  red, blue = drawn('red', '--prompt=a red square'), drawn('blue', '--prompt=a blue circle')
  away = drawn('away', '--prompt=a red square', '--negative=a blue circle')
  assert red.shape == (2, 16, 16, 3) and red.dtype == np.uint8
  assert (red != blue).any() and (red != away).any()
  np.testing.assert_array_equal(drawn('again', '--prompt=a red square'), red)


@pytest.mark.slow
def test_killed_and_resumed_equals_undisturbed(folder):
  argv = ('train', CONFIG, '--workdir=runs/killed', *SMALL, '--config.experiment=interrupted')
  wrapped = dict(INTERRUPTED_EXPERIMENT='text_latents')
  genjax(*argv, cwd=folder, code=-signal.SIGKILL, INTERRUPTED_AT='14', INTERRUPTED_AFTER='10',
         INTERRUPTED_WORKDIR=str(folder / 'runs' / 'killed'), **wrapped)
  assert 'at step 10 of 20' in genjax(*argv, cwd=folder, **wrapped).stderr
  expected, actual = (arrays(folder / 'runs' / name) for name in ('flow', 'killed'))
  assert set(expected) == set(actual) and len(expected) > 40
  assert not [name for name in expected if expected[name].tobytes() != actual[name].tobytes()]
  assert not any('autoencoder' in name or 'bert' in name for name in expected), 'checkpoints hold frozen parameters'


@pytest.mark.slow
def test_a_mesh_changes_no_loss(folder):
  genjax('train', CONFIG, '--workdir=runs/mesh', *SMALL, '--config.mesh.data=2', '--config.mesh.fsdp=4', cwd=folder,
         devices=8)
  one, several = losses(folder / 'runs' / 'flow'), losses(folder / 'runs' / 'mesh')
  assert set(one) == set(several) and len(one) == 20
  assert max(abs(one[step] - several[step]) / one[step] for step in one) < 1e-5


@pytest.mark.slow
def test_stored_latents_and_embeddings_train_as_encoders_in_the_loop(folder):
  genjax('data', 'encode', '--workdir=runs/kl', CONFIG, '--config.parts.autoencoder=', '--config.parts.text=',
         '--text=runs/bert', '--out=encoded', cwd=folder)
  encoded = ('--config.data.name=encoded', '--config.data.content=latents', '--config.data.train=train',
             '--config.data.heldout=heldout', '--config.steps=6', '--config.conditions.text.dropout=0.4')
  genjax('train', CONFIG, '--workdir=runs/loop', *SMALL, *encoded, cwd=folder)
  genjax('train', CONFIG, '--workdir=runs/stored', *SMALL, *encoded, '--config.conditions.text.stored=True', cwd=folder)
  loop, stored = losses(folder / 'runs' / 'loop'), losses(folder / 'runs' / 'stored')
  assert set(loop) == set(stored) and len(loop) == 6
  assert max(abs(loop[step] - stored[step]) / loop[step] for step in loop) < 1e-5
  genjax('sample', '--workdir=runs/stored', '--num=1', '--prompt=a red square', '--out=stored.png', cwd=folder)


@pytest.mark.slow
def test_it_takes_adapters_and_is_planned(folder):
  genjax('train', CONFIG, '--workdir=runs/adapted', *SMALL, '--config.init_from=runs/flow', '--config.lora.rank=2',
         "--config.lora.paths=('.*attention/.*kernel',)", cwd=folder)
  genjax('sample', '--workdir=runs/adapted', '--num=1', '--prompt=a red square', '--out=x.png', cwd=folder)
  planned = json.loads(genjax('plan', CONFIG, *SMALL, '--topology=cpu:8', '--mesh=data:2,fsdp:4', '--json',
                              cwd=folder, devices=8).stdout)
  assert planned


@pytest.mark.slow
def test_it_is_planned_for_a_slice(folder):
  pytest.importorskip('libtpu', reason='libtpu is absent: nothing compiles for TPUs')
  done = genjax('plan', CONFIG, *SMALL, '--config.batch_size=64', '--topology=v5e:4x4', '--mesh=fsdp:16', '--json',
                cwd=folder, TPU_SKIP_MDS_QUERY='1')
  assert json.loads(done.stdout)
