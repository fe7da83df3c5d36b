"""Rows of low-rank adapters."""

from genjax.studies.baselines import Metric, Row

TITLE = 'Adapters'
_LORA = 'Hu et al. 2021 (LoRA), sections 4.1 and 4.2'
_KERNELS = r'blocks/.*/kernel'

ROWS = (
  Row('lora_names', 'configs/language/shakespeare_char.py', seeds=(1337, 1338, 1339), minutes=1.5,
      data=('tiny_shakespeare', 'names'), uses={'init_from': 'shakespeare_char'},
      overrides={'data.name': 'names', 'data.heldout': 'test', 'data.separator': '\n', 'steps': 600, 'lora.rank': 8,
                 'lora.paths': (_KERNELS,), 'lora.measures': True, 'sample_every': 0}, metrics=(
        Metric('adapters/initial_difference', (0.0, 0.0), '0', _LORA, each=True,
               label='difference to the base before the first step'),
        Metric('adapters/merge_error', (None, 1e-5), '0', _LORA, each=True, label='relative error of merged kernels'),
        Metric('adapters/trainable', (73_728, 73_728), label='trained numbers'),
        Metric('heldout/loss', (None, 2.4), label='test loss on names, nats per character')),
      note='Adapters of rank 8 on all kernels of the blocks of the row `shakespeare_char`, trained on names: '
           '8 (d_in + d_out) numbers for each kernel.'),
)
