"""Whisper (Radford et al. 2022) as options of `genjax.models.transformers.seq2seq`, by published size."""

from typing import Any

from genjax.models.transformers.seq2seq import Seq2SeqConfig

# Layers of encoder and decoder, heads, width, mel bands and tokens: Radford et al. 2022, table 1, and later published
# weights. Sizes with .en are English-only.
SIZES = {
  'tiny': (4, 4, 6, 384, 80, 51865), 'tiny.en': (4, 4, 6, 384, 80, 51864), 'base': (6, 6, 8, 512, 80, 51865),
  'base.en': (6, 6, 8, 512, 80, 51864), 'small': (12, 12, 12, 768, 80, 51865), 'small.en': (12, 12, 12, 768, 80, 51864),
  'medium': (24, 24, 16, 1024, 80, 51865), 'medium.en': (24, 24, 16, 1024, 80, 51864), 'large': (
    32, 32, 20, 1280, 80, 51865), 'large-v2': (32, 32, 20, 1280, 80, 51865), 'large-v3': (32, 32, 20, 1280, 128, 51866),
  'large-v3-turbo': (32, 4, 20, 1280, 128, 51866)
}

SOURCE_CONTEXT = 1500  # 30 seconds of 100 frames per second, halved by the stride
CONTEXT = 448
# common to all sizes
OPTIONS = {'positions': 'learned', 'pre_norm': True, 'activation': 'gelu', 'key_bias': False, 'embedding_scale': False}


def whisper(size: str, **options: Any) -> Seq2SeqConfig:
  """A published size from `SIZES`, from log-mel frames (`genjax.data.audio.mel`) to tokens.

  Raises:
    ValueError: the size is unknown.
  """
  if size not in SIZES:
    raise ValueError(f'size must be one of {tuple(SIZES)}, got {size!r}')
  layers, decoder_layers, heads, width, bands, vocab = SIZES[size]
  return Seq2SeqConfig(
    **{
      'vocab': vocab, 'context': CONTEXT, 'layers': layers, 'decoder_layers': decoder_layers, 'heads': heads,
      'width': width, 'frames': bands, 'source_context': SOURCE_CONTEXT, 'init': 'normal', **OPTIONS, **options
    })
