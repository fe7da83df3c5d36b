"""Whole pipelines with a transformer, of random weights, made with `diffusers`, small enough for tests."""

import diffusers
import torch
import transformers

from tests.parity.tiny_pipelines import autoencoder, randomised, saved, scheduler, text_encoder, tokenizer

LETTERS = 'abcdefghijklmnopqrstuvwxyz,'
DPM = ('DPMSolverMultistepScheduler', {})
FLOW3 = ('FlowMatchEulerDiscreteScheduler', dict(shift=3.0))
DYNAMIC = ('FlowMatchEulerDiscreteScheduler', dict(shift=3.0, use_dynamic_shifting=True, max_image_seq_len=64,
                                                   base_image_seq_len=16))
STATIC = ('FlowMatchEulerDiscreteScheduler', dict(shift=1.0, use_dynamic_shifting=False))
DDIM = ('DDIMScheduler', dict(clip_sample=False))
FAR = dict(sample_size=32, scaling_factor=0.8, shift_factor=0.1, latent_channels=4, use_quant_conv=False,
           use_post_quant_conv=False)  # as in SD3 and Flux, with 4 channels


def t5(width=20):
  """A T5 encoder; its tokens of padding differ from zeros."""
  config = transformers.T5Config(
    vocab_size=40, d_model=width, d_kv=6, d_ff=24, num_layers=2, num_heads=3, feed_forward_proj='gated-gelu',
    relative_attention_num_buckets=8, relative_attention_max_distance=20, is_encoder_decoder=False, use_cache=False)
  return randomised(transformers.T5EncoderModel(config))


def t5_tokenizer():
  """A tokenizer of letters."""
  pieces = [('<pad>', 0.0), ('</s>', 0.0), ('<unk>', 0.0), ('▁', -2.0), *((letter, -3.0) for letter in LETTERS),
            ('▁red', -1.0), ('▁a', -1.5)]
  return transformers.T5TokenizerFast(vocab=pieces, extra_ids=0)


def dit(folder, made=DDIM):
  """DiT, of 7 classes."""
  torch.manual_seed(0)
  transformer = randomised(diffusers.DiTTransformer2DModel(
    sample_size=16, patch_size=2, num_layers=2, num_attention_heads=2, attention_head_dim=8, num_embeds_ada_norm=1000,
    in_channels=4, out_channels=8))
  for block in transformer.transformer_blocks:
    block.norm1.emb.load_state_dict(transformer.transformer_blocks[0].norm1.emb.state_dict())
  return saved(diffusers.DiTPipeline(transformer, autoencoder(), scheduler(made), id2label={0: 'one', 1: 'two'}),
               folder)


def pixart(folder, kind='PixArtAlphaPipeline', made=DPM, **more):
  torch.manual_seed(0)
  transformer = randomised(diffusers.PixArtTransformer2DModel(**dict(dict(
    sample_size=16, num_layers=2, num_attention_heads=3, attention_head_dim=8, caption_channels=20,
    cross_attention_dim=24, in_channels=4, out_channels=8), **more)))
  pipeline = getattr(diffusers, kind)(
    tokenizer=t5_tokenizer(), text_encoder=t5(), vae=autoencoder(), transformer=transformer, scheduler=scheduler(made))
  return saved(pipeline, folder)


def sd3(folder, made=FLOW3, third=True, **more):
  """Stable Diffusion 3, with T5 or without."""
  torch.manual_seed(0)
  transformer = randomised(diffusers.SD3Transformer2DModel(**dict(dict(
    sample_size=16, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
    num_attention_heads=3, joint_attention_dim=40, caption_projection_dim=24, pooled_projection_dim=26,
    pos_embed_max_size=12), **more)))
  names = [folder.with_name(f'{folder.name}_{name}') for name in ('one', 'two')]
  pipeline = diffusers.StableDiffusion3Pipeline(
    transformer=transformer, scheduler=scheduler(made), vae=autoencoder(**FAR),
    text_encoder=text_encoder(12, projection=10), tokenizer=tokenizer(names[0]),
    text_encoder_2=text_encoder(20, projection=16, activation='gelu'), tokenizer_2=tokenizer(names[1], padding='!'),
    text_encoder_3=t5(40) if third else None, tokenizer_3=t5_tokenizer() if third else None)
  return saved(pipeline, folder)


def flux(folder, made=STATIC, guided=False):
  torch.manual_seed(0)
  transformer = randomised(diffusers.FluxTransformer2DModel(
    patch_size=1, in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=12, num_attention_heads=2,
    joint_attention_dim=20, pooled_projection_dim=12, guidance_embeds=guided, axes_dims_rope=(4, 4, 4)))
  pipeline = diffusers.FluxPipeline(
    scheduler=scheduler(made), vae=autoencoder(**FAR), text_encoder=text_encoder(12),
    tokenizer=tokenizer(folder.with_name(f'{folder.name}_one')), text_encoder_2=t5(), tokenizer_2=t5_tokenizer(),
    transformer=transformer)
  return saved(pipeline, folder)
