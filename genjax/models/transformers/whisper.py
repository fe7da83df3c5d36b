"""Whisper (Radford et al. 2022) as options of `genjax.models.transformers.seq2seq`, by published size."""

from typing import Any

from genjax.models.transformers.seq2seq import Seq2SeqConfig

# Layers of the encoder and of the decoder, heads, width, mel bands and tokens: table 1 of Radford et al. 2022, and as
# published since with the weights. Those with .en know English alone.
SIZES = {
  'tiny': (4, 4, 6, 384, 80, 51865), 'tiny.en': (4, 4, 6, 384, 80, 51864), 'base': (6, 6, 8, 512, 80, 51865),
  'base.en': (6, 6, 8, 512, 80, 51864), 'small': (12, 12, 12, 768, 80, 51865), 'small.en': (12, 12, 12, 768, 80, 51864),
  'medium': (24, 24, 16, 1024, 80, 51865), 'medium.en': (24, 24, 16, 1024, 80, 51864), 'large': (
    32, 32, 20, 1280, 80, 51865), 'large-v2': (32, 32, 20, 1280, 80, 51865), 'large-v3': (32, 32, 20, 1280, 128, 51866),
  'large-v3-turbo': (32, 4, 20, 1280, 128, 51866)
}

SOURCE_CONTEXT = 1500  # 30 seconds, 100 frames each, halved
CONTEXT = 448
# Of all sizes
OPTIONS = {'positions': 'learned', 'pre_norm': True, 'activation': 'gelu', 'key_bias': False, 'embedding_scale': False}


def whisper(size: str, **options: Any) -> Seq2SeqConfig:
  """A published size by name, see `SIZES`: log-mel frames (`genjax.data.audio.mel`) to tokens.

  Raises:
    ValueError: an unknown size.
  """
  if size not in SIZES:
    raise ValueError(f'size must be one of {tuple(SIZES)}, got {size!r}')
  layers, decoder_layers, heads, width, bands, vocab = SIZES[size]
  return Seq2SeqConfig(
    **{
      'vocab': vocab, 'context': CONTEXT, 'layers': layers, 'decoder_layers': decoder_layers, 'heads': heads,
      'width': width, 'frames': bands, 'source_context': SOURCE_CONTEXT, 'init': 'normal', **OPTIONS, **options
    })
