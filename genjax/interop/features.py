"""Public feature networks as options of `genjax.models.features`: Inception v3 of FID, VGG16 and AlexNet of LPIPS."""

from collections.abc import Mapping
from typing import Any

from genjax.interop.entries import Entries
from genjax.interop.mapping import Architecture, Tensor, both, refuse
from genjax.models.features import inception, lpips
from genjax.models.features.inception import InceptionConfig
from genjax.models.features.lpips import TRUNKS, LpipsConfig


def _read_inception(entries: Entries, stored: Mapping[str, Any]) -> InceptionConfig:
  told = stored['fc.weight'].shape[0] if 'fc.weight' in stored else 1008
  return InceptionConfig(entries.integer('num_labels', told), entries.integer('divisor', 1))


def _inception_tensors(config: InceptionConfig) -> tuple[Tensor, ...]:
  found = [(unit.name, f'stem/units/{unit.name}') for unit in inception.units(inception.STEM)]
  found += [(f'{block}.{unit.name}', f'blocks/{block}/{index}/units/{unit.name}')
            for block, branches in inception.BLOCKS.items()
            for index, branch in enumerate(branches) for unit in inception.units(branch)]
  names = (('weight', 'scale'), ('bias', 'bias'), ('running_mean', 'mean'), ('running_var', 'variance'))
  return (*(row for theirs, ours in found
            for row in (Tensor(f'{theirs}.conv.weight', (f'{ours}/conv/kernel',), image_kernel=True),
                        *(Tensor(f'{theirs}.bn.{name}', (f'{ours}/bn/{own}',)) for name, own in names))),
          *both('fc', 'fc'))


# pytorch-fid and torch-fidelity name the layers like this, and so does torchvision, whose auxiliary classifier no
# feature needs
INCEPTION = Architecture(
  'inception_fid', InceptionConfig, inception.network, _inception_tensors, prefix='',
  ignored=(r'.*\.num_batches_tracked', r'AuxLogits\..*'), aliases={}, read=_read_inception,
  write=lambda config: {'num_labels': config.classes, 'divisor': config.divisor}, defaults={}, spellings={})


def _lpips_tensors(config: LpipsConfig) -> tuple[Tensor, ...]:
  rows = []
  for layer in TRUNKS[config.trunk].layers:
    ours, theirs = f'features/conv{layer.number}', f'features.{layer.number}'
    rows += [Tensor(f'{theirs}.weight', (f'{ours}/kernel',), image_kernel=True),
             Tensor(f'{theirs}.bias', (f'{ours}/bias',))]
  heads = range(len(config.channels))
  return (*rows, *(Tensor(f'lin{index}.model.1.weight', (f'heads/lin{index}/kernel',), image_kernel=True)
                   for index in heads))


def _lpips(trunk: str) -> Architecture:
  def write(config: LpipsConfig) -> dict[str, Any]:
    refuse(name, config, trunk=(trunk,))
    return {'divisor': config.divisor}

  name = f'{trunk}_lpips'
  # the package lpips stores a trunk in slices, its heads twice, and its constants; torchvision stores a classifier
  return Architecture(
    name, LpipsConfig, lpips.network, _lpips_tensors, prefix='',
    ignored=(r'lins\..*', r'scaling_layer\..*', r'classifier\..*'), aliases={},
    read=lambda entries, stored: LpipsConfig(trunk, entries.integer('divisor', 1)), write=write, defaults={},
    spellings={}, renamed={r'^net\.slice\d\.': 'features.'})


ARCHITECTURES = {architecture.name: architecture for architecture in (INCEPTION, *map(_lpips, TRUNKS))}
