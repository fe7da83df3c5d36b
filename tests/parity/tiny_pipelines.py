"""Whole pipelines of random weights, made with `diffusers`, small enough for tests."""

import json
import pathlib

import diffusers
import torch
import transformers

WORDS = ('a', 'red', 'circle', 'blue', 'square', 'photo', 'of', 'small')
CROSS, PLAIN = ('CrossAttnDownBlock2D', 'CrossAttnUpBlock2D'), ('DownBlock2D', 'UpBlock2D')
SCALED = dict(beta_start=0.00085, beta_end=0.012, beta_schedule='scaled_linear')
# a U-Net that is quickly compiled
ONE_LEVEL = dict(block_out_channels=(16,), down_block_types=CROSS[:1], up_block_types=CROSS[1:])
# scheduler_config.json of the published pipelines
PNDM = ('PNDMScheduler', dict(SCALED, skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1))
DDIM_V = ('DDIMScheduler', dict(SCALED, clip_sample=False, set_alpha_to_one=False, steps_offset=1,
                                prediction_type='v_prediction'))
EULER = ('EulerDiscreteScheduler', dict(SCALED, steps_offset=1, timestep_spacing='leading'))


def randomised(model, scale=0.5):
  """The model with random parameters of a scale at which activations stay near 1."""
  with torch.no_grad():
    for name, parameter in model.named_parameters():
      noise = torch.randn_like(parameter)
      if 'embedding' in name and parameter.ndim == 2 and 'proj' not in name and 'linear' not in name:
        parameter.copy_(0.5 * noise)
      else:
        fan = max(1, parameter[0].numel()) if parameter.ndim else 1
        parameter.copy_(scale * noise / fan ** 0.5 if noise.ndim > 1 else 0.3 + 0.2 * noise)
  return model.eval()


def tokenizer(folder: pathlib.Path, padding: str = '<|endoftext|>', length: int = 77):
  """A CLIP tokenizer of a few words and letters; its vocabulary fits 200 tokens."""
  letters = [chr(code) for code in range(33, 127)]
  vocabulary = {text: index for index, text in enumerate([*letters, *(f'{letter}</w>' for letter in letters)])}
  merges = []
  for word in WORDS[1:4]:
    pieces = [*word[:-1], f'{word[-1]}</w>']
    while len(pieces) > 1:
      merges.append(f'{pieces[0]} {pieces[1]}')
      pieces = [pieces[0] + pieces[1], *pieces[2:]]
      vocabulary.setdefault(pieces[0], len(vocabulary))
  for text in ('<|startoftext|>', '<|endoftext|>'):
    vocabulary[text] = len(vocabulary)
  folder.mkdir(parents=True)
  (folder / 'vocab.json').write_text(json.dumps(vocabulary))
  (folder / 'merges.txt').write_text('\n'.join(['#version: 0.2', *merges]) + '\n')
  return transformers.CLIPTokenizer.from_pretrained(folder, pad_token=padding, model_max_length=length)


def text_encoder(width, *, projection=0, layers=3, vocab=220, activation='quick_gelu', eos=2):
  """A CLIP text encoder, with a projection of that many channels."""
  config = transformers.CLIPTextConfig(
    vocab_size=vocab, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers, num_attention_heads=2,
    max_position_embeddings=77, hidden_act=activation, bos_token_id=0, eos_token_id=eos, pad_token_id=1,
    projection_dim=projection or width)
  kind = transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel
  return randomised(kind(config))


def autoencoder(**more):
  """An autoencoder of factor 2; the deviation of its posterior is next to nothing, so that nothing is drawn."""
  model = randomised(diffusers.AutoencoderKL(**dict(dict(
    block_out_channels=(8, 16), layers_per_block=1, latent_channels=4, norm_num_groups=4, sample_size=32,
    down_block_types=('DownEncoderBlock2D',) * 2, up_block_types=('UpDecoderBlock2D',) * 2), **more)))
  if model.quant_conv is not None:
    with torch.no_grad():
      model.quant_conv.weight[4:] = 0
      model.quant_conv.bias[4:] = -60.0
  return model


def unet(**more):
  """A U-Net for latents of 16 x 16."""
  return randomised(diffusers.UNet2DConditionModel(**dict(dict(
    sample_size=16, block_out_channels=(16, 32), layers_per_block=1, norm_num_groups=4, attention_head_dim=2,
    cross_attention_dim=20, down_block_types=(CROSS[0], PLAIN[0]), up_block_types=(PLAIN[1], CROSS[1])), **more)))


def scheduler(made):
  """The scheduler of a class and its options."""
  name, options = made
  return getattr(diffusers, name)(**options)


def stable_diffusion(folder, made=PNDM, kind='StableDiffusionPipeline', in_channels=4, **more):
  """Stable Diffusion 1 or 2, or a kin with other channels; saved in `folder`."""
  torch.manual_seed(0)
  pipeline = getattr(diffusers, kind)(
    vae=autoencoder(), text_encoder=text_encoder(20), tokenizer=tokenizer(folder.with_name(f'{folder.name}_tokens')),
    unet=unet(in_channels=in_channels, **more), scheduler=scheduler(made), safety_checker=None, feature_extractor=None,
    requires_safety_checker=False)
  return saved(pipeline, folder)


def xl(folder, made=EULER, refiner=False, force_zeros=True):
  """SDXL, or its refiner."""
  torch.manual_seed(0)
  first, second = text_encoder(12), text_encoder(20, projection=24, activation='gelu')
  one = None if refiner else tokenizer(folder.with_name(f'{folder.name}_one'))
  two = tokenizer(folder.with_name(f'{folder.name}_two'), padding='!')
  numbers, width = (5, 20) if refiner else (6, 32)
  network = unet(cross_attention_dim=width, addition_embed_type='text_time', addition_time_embed_dim=8,
                 projection_class_embeddings_input_dim=24 + 8 * numbers, use_linear_projection=True,
                 transformer_layers_per_block=(2,) if refiner else (2, 1), **(ONE_LEVEL if refiner else {}))
  kind = diffusers.StableDiffusionXLImg2ImgPipeline if refiner else diffusers.StableDiffusionXLPipeline
  more = dict(requires_aesthetics_score=True) if refiner else {}
  pipeline = kind(
    vae=autoencoder(scaling_factor=0.13025, force_upcast=True), text_encoder=None if refiner else first,
    text_encoder_2=second, tokenizer=one, tokenizer_2=two, unet=network, scheduler=scheduler(made),
    force_zeros_for_empty_prompt=force_zeros, add_watermarker=False, **more)
  return saved(pipeline, folder)


def saved(pipeline, folder):
  """The pipeline, saved, without a progress bar."""
  pipeline.set_progress_bar_config(disable=True)
  pipeline.save_pretrained(folder)
  return pipeline
