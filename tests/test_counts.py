"""Exact parameter counts of the published architectures, from shapes alone.

Counts of GPT-3 shapes follow from its table 2.1: 12 d^2 + 13 d a layer, tied embeddings of 50,257 tokens and 2,048
positions. Counts of GPT-2, LLaMA, Mistral, Mixtral and DiT are those of the published code with the published configs.
The paper of DDPM rounds its 256-pixel model to 114 million.
"""

import importlib
import math

import jax
import pytest

from genjax.runs import builders

COUNTS = {
  'gpt2': {'model=124M': 124_439_808, 'model=355M': 354_823_168, 'model=774M': 774_030_080,
           'model=1.5B': 1_557_611_200},
  'gpt3': {'model=125M': 125_226_240, 'model=350M': 355_871_744, 'model=760M': 760_300_032, 'model=1.3B': 1_315_723_264,
           'model=2.7B': 2_651_553_280, 'model=6.7B': 6_658_404_352, 'model=13B': 12_952_938_780,
           'model=175B': 174_604_259_328},
  'llama': {'model=7B': 6_738_415_616, 'model=13B': 13_015_864_320, 'model=33B': 32_528_943_616,
            'model=65B': 65_285_660_672,
            'model=llama2-7B': 6_738_415_616, 'model=llama2-13B': 13_015_864_320, 'model=llama2-70B': 68_976_648_192,
            'model=llama3-8B': 8_030_261_248, 'model=llama3-70B': 70_553_706_496, 'model=llama3-405B': 405_853_388_800,
            'model=llama3.2-1B': 1_235_814_400, 'model=llama3.2-3B': 3_212_749_824,
            'model=tinyllama-1.1B': 1_100_048_384,
            'model=mistral-7B': 7_241_732_096},
  'mixtral': {'': 46_702_792_704},
}
# Patches of 8, 4 and 2, with the paper's 2 x 4 output channels: means and variances.
DIT = {'S': (33_142_016, 32_920_448, 32_865_056), 'B': (130_869_248, 130_426_496, 130_315_808),
       'L': (458_578_432, 457_988_224, 457_840_672), 'XL': (675_664_640, 675_000_704, 674_834_720)}
DDPM_256 = 113_673_219


def count(name: str, arguments: str, originals: str = '', **model) -> int:
  config = importlib.import_module(f'genjax.configs.{name}').get_config(arguments)
  if originals:
    config.data.originals = originals
  config.model.update(model)
  objective = builders.build(config).objective
  return sum(
    math.prod(leaf.shape) for leaf in jax.tree.leaves(jax.eval_shape(objective.init, jax.random.key(0), {}).params))


@pytest.mark.parametrize('name, arguments', [(name, arguments) for name in COUNTS for arguments in COUNTS[name]])
def test_language_models(name, arguments):
  assert count(f'language.{name}', arguments) == COUNTS[name][arguments]


@pytest.mark.parametrize('name', ['gpt2', 'gpt3', 'llama'])
def test_every_named_size_is_counted(name):
  assert {f'model={size}' for size in importlib.import_module(f'genjax.configs.language.{name}').SIZES} == set(
    COUNTS[name])


@pytest.mark.parametrize('size', DIT)
def test_dit(size):
  assert tuple(
    count('diffusion.dit_imagenet', f'model={size},patch={patch},learn_sigma') for patch in (8, 4, 2)) == DIT[size]
  assert count('diffusion.dit_imagenet', f'model={size},pixels=512,learn_sigma') == DIT[size][2]


def test_makemore_counts_all_but_the_output_layer(shared_data):
  assert count('language.names', '', originals=str(shared_data / 'names')) == 202_816 + 27 * 64


def test_the_unet_of_ddpm_at_256_pixels():
  assert count('diffusion.ddpm_256', '') == DDPM_256
