"""T5 (Raffel et al. 2020) as options of `genjax.models.transformers.seq2seq`, by published size."""

from typing import Any

from genjax.models.transformers.seq2seq import Seq2SeqConfig

# Layers per side, heads, width, hidden units and channels of a head, as published with the weights.
SIZES = {'small': (6, 8, 512, 2048, 64), 'base': (12, 12, 768, 3072, 64), 'large': (24, 16, 1024, 4096, 64),
         '3b': (24, 32, 1024, 16384, 128), '11b': (24, 128, 1024, 65536, 128)}
SIZES_1_1 = {'small': (8, 6, 512, 1024, 64), 'base': (12, 12, 768, 2048, 64), 'large': (24, 16, 1024, 2816, 64),
             'xl': (24, 32, 2048, 5120, 64), 'xxl': (24, 64, 4096, 10240, 64)}

VOCAB = 32128  # 32,000 pieces and 100 sentinels, padded to a multiple of 128
CONTEXT = 512  # of pre-training; relative positions have no limit


def t5(size: str, **options: Any) -> Seq2SeqConfig:
  """T5 1.0: pre-norm, no biases, ReLU, one embedding for source, target and output (with input / sqrt(D))."""
  return _t5(SIZES, size, **{'tied': True, 'output_scale': True, **options})


def t5_1_1(size: str, **options: Any) -> Seq2SeqConfig:
  """T5 1.1: gated GELU (Shazeer 2020) and an untied output layer."""
  return _t5(SIZES_1_1, size, **{'activation': 'gelu_tanh', 'gated': True, 'tied': False, **options})


def _t5(sizes: dict[str, tuple[int, int, int, int, int]], size: str, **options: Any) -> Seq2SeqConfig:
  if size not in sizes:
    raise ValueError(f'size must be one of {tuple(sizes)}, got {size!r}')
  layers, heads, width, mlp_width, head_dim = sizes[size]
  return Seq2SeqConfig(
    **{
      'vocab': VOCAB, 'context': CONTEXT, 'layers': layers, 'heads': heads, 'width': width, 'mlp_width': mlp_width,
      'head_dim': head_dim, 'positions': 'relative', 'norm': 'rms', 'norm_eps': 1e-6, 'pre_norm': True, 'bias': False,
      'scaled': False, 'embedding_scale': False, 'init': 'fan_in', **options
    })
