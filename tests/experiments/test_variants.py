"""Published networks by name: the numbers of the page, and the command that prints them."""

import json
import math
import pathlib
import re

import pytest

from genjax.cli.main import main
from genjax.experiments import gan_variants, variants
from genjax.models.autoencoders import kl
from genjax.models.denoisers import latent_unet, unet

PAGE = (pathlib.Path(__file__).parent.parent.parent / 'docs' / 'public.md').read_text()
ROWS = [(re.findall(r'`(\w+)`', names), int(number.replace(',', '')))
        for names, number in re.findall(r'^\| (`\w+`(?:, `\w+`)*) \|[^|]*\| ([\d,]+) \|$', PAGE, re.MULTILINE)]
# These take seconds each
SLOW = {*latent_unet.VARIANTS, *unet.VARIANTS, *kl.VARIANTS, 'vq_f8', 'vq_f8_256', 'vq_f16', 'dc_ae_f32c32_sana',
        'esrgan_x4', *gan_variants.ROWS}


def test_the_page_has_every_variant_once():
  named = [name for names, _ in ROWS for name in names]
  assert sorted(named) == sorted(variants.VARIANTS)


def marks(names):
  return () if {'ddpm_cifar10', 'sd_vae'} & set(names) or not SLOW & set(names) else pytest.mark.slow


@pytest.mark.parametrize('names, parameters', [pytest.param(*row, marks=marks(row[0]), id=row[0][0]) for row in ROWS])
def test_parameters_are_those_of_the_page(names, parameters):
  """The names of a row share their number; where their options differ in the shape alone, one is counted."""
  counted = {}
  for name in names:
    variant = variants.VARIANTS[name]
    own = re.sub(r'shape=\([^)]*\)', '', repr(variant.options()))
    if own not in counted:
      counted[own] = sum(math.prod(leaf.shape) for leaf in variant.shapes().values())
  assert set(counted.values()) == {parameters}


def test_one_is_printed(capsys):
  assert main(['inspect', '--variant=taesd']) == 0
  text = capsys.readouterr().out
  assert 'encoder/down/3/2/convs/0/kernel' in text and '3 x 3 x 64 x 64' in text
  assert 'public layout: AutoencoderTiny' in text and 'parameters in total: 2,445,063 in 134 tensors' in text
  assert '9,780,252 bytes as float32' in text
  assert main(['inspect', '--variant', 'taesd3', '--json']) == 0
  found = json.loads(capsys.readouterr().out)
  assert found['parameters'] == sum(row['count'] for row in found['rows']) == 2_458_899


def test_all_are_listed(capsys, monkeypatch):
  few = {name: variants.VARIANTS[name] for name in ('clip_l_text', 'taesd', 't5_base_encoder')}
  monkeypatch.setattr(variants, 'VARIANTS', few)
  assert main(['inspect', '--variant=all']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert len(lines) == 4 and lines[1].split()[:4] == ['clip_l_text', '123,060,480', '20', 'clip_text_model']


@pytest.mark.parametrize('flags, message', [
  (['--variant=sdxk'], "Did you mean 'sdxl'"), (['--variant=sdxl', '--mesh=fsdp:8'], 'takes no flag but --json'),
  (['--variant=sdxl', 'more'], 'unexpected arguments')])
def test_bad_input(flags, message, capsys):
  assert main(['inspect', *flags]) == 2
  assert message in capsys.readouterr().err
