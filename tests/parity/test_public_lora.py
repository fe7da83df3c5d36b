"""Adapters of image models against `diffusers` and PEFT: outputs of small random networks, in and out."""

import jax
import numpy as np
import pytest

from genjax import interop
from genjax.interop import lora_files
from genjax.nn import lora
from genjax.types import named_leaves

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
diffusers = pytest.importorskip('diffusers', reason='parity tests need the extra [parity]')
peft = pytest.importorskip('peft', reason='parity tests need the extra [parity]')
from tests.parity.random_networks import normal  # noqa: E402  # needs torch

torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

UNET = dict(sample_size=8, block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=24, norm_num_groups=8,
            attention_head_dim=8, down_block_types=('CrossAttnDownBlock2D', 'DownBlock2D'),
            up_block_types=('UpBlock2D', 'CrossAttnUpBlock2D'))
SDXL = UNET | dict(
  transformer_layers_per_block=(1, 2), attention_head_dim=(2, 4), use_linear_projection=True,
  addition_embed_type='text_time', addition_time_embed_dim=8, projection_class_embeddings_input_dim=80,
  down_block_types=('DownBlock2D', 'CrossAttnDownBlock2D'), up_block_types=('CrossAttnUpBlock2D', 'UpBlock2D'))
TARGETS = {'unet': ['to_q', 'to_k', 'to_v', 'to_out.0', 'ff.net.0.proj', 'proj_in', 'conv1', 'time_emb_proj'],
           'flux': ['attn.to_q', 'attn.to_k', 'attn.to_v', 'add_k_proj', 'proj_mlp', 'norm_out.linear']}


class Case:
  """A random network of diffusers, as genjax reads it, and its outputs in both."""

  def __init__(self, name, folder):
    torch.manual_seed(0)
    if name == 'flux':
      self.model = diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=2, num_single_layers=2, attention_head_dim=12, num_attention_heads=2,
        joint_attention_dim=20, pooled_projection_dim=10, axes_dims_rope=(4, 4, 4))
    else:
      self.model = diffusers.UNet2DConditionModel(**(SDXL if name == 'sdxl' else UNET))
    self.name, self.kind = name, 'flux' if name == 'flux' else 'unet'
    self.prefix = 'transformer' if name == 'flux' else 'unet'
    self.model.eval().save_pretrained(folder)
    self.ours = interop.load(folder)

  def wanted(self):
    """What diffusers computes."""
    with torch.no_grad():
      if self.kind == 'flux':
        pipeline = diffusers.FluxPipeline
        out = self.model(
          hidden_states=pipeline._pack_latents(torch.tensor(normal(0, 2, 4, 8, 8)), 2, 4, 8, 8),
          encoder_hidden_states=torch.tensor(normal(1, 2, 5, 20)), pooled_projections=torch.tensor(normal(2, 2, 10)),
          timestep=torch.tensor([0.0035, 0.87]), txt_ids=torch.zeros(5, 3),
          img_ids=pipeline._prepare_latent_image_ids(2, 4, 4, 'cpu', torch.float32)).sample
        return pipeline._unpack_latents(out, 64, 64, 8).numpy().transpose(0, 2, 3, 1)
      more = {'added_cond_kwargs': {'text_embeds': torch.tensor(normal(2, 2, 32)), 'time_ids': torch.tensor(
        20 * np.abs(normal(3, 2, 6)))}} if self.name == 'sdxl' else {}
      return self.model(torch.tensor(normal(0, 2, 4, 8, 8)), torch.tensor([7, 801]), torch.tensor(normal(1, 2, 5, 24)),
                        **more).sample.numpy().transpose(0, 2, 3, 1)

  def got(self, found):
    """What genjax computes with adapters merged."""
    x_BHWC, given = normal(0, 2, 4, 8, 8).transpose(0, 2, 3, 1), {'tokens': normal(1, 2, 5, 24)}
    time_B = np.array([7, 801])
    if self.kind == 'flux':
      given, time_B = {'tokens': normal(1, 2, 5, 20), 'vector': normal(2, 2, 10)}, np.array([3.5, 870.0], np.float32)
    if self.name == 'sdxl':
      given |= {'vector': normal(2, 2, 32), 'numbers': 20 * np.abs(normal(3, 2, 6))}

    @jax.jit
    def outputs(params, adapters):
      merged = lora.merge(params, adapters, found.options.scale)
      return self.ours.network.apply(merged, {}, x_BHWC, time_B, given)[0]

    return np.asarray(outputs(self.ours.params, found.params))


def close(got, wanted, plain):
  np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())
  assert np.abs(wanted - plain).max() > 0.01 * np.abs(wanted).max()  # the adapters do something


@pytest.mark.parametrize('name', ['sd', 'flux'])
def test_files_of_diffusers_and_back(name, tmp_path):
  case = Case(name, tmp_path / 'base')
  plain = case.wanted()
  case.model.add_adapter(peft.LoraConfig(
    r=4, lora_alpha=6, target_modules=TARGETS[case.kind], init_lora_weights='gaussian', rank_pattern={'to_q': 2},
    alpha_pattern={'to_k': 1}))
  with torch.no_grad():
    for parameter_name, parameter in case.model.named_parameters():
      if 'lora_' in parameter_name:
        parameter.copy_(0.3 * torch.randn_like(parameter))
  case.model.save_lora_adapter(tmp_path / 'theirs', weight_name=lora_files.WEIGHTS)
  found = lora_files.load(tmp_path / 'theirs', case.ours)
  wanted = case.wanted()
  close(case.got(found), wanted, plain)
  assert (found.options.rank, found.options.scale) == (4, 1.5)
  lora_files.save(tmp_path / 'ours', case.ours, found)
  case.model.delete_adapters('default')
  np.testing.assert_array_equal(case.wanted(), plain)
  case.model.load_lora_adapter(tmp_path / 'ours', weight_name=lora_files.WEIGHTS, prefix=case.prefix)
  close(case.wanted(), wanted, plain)


@pytest.mark.parametrize('name', ['sdxl', 'flux'])
def test_files_of_kohya_are_read_by_diffusers(name, tmp_path):
  case = Case(name, tmp_path / 'base')
  plain = case.wanted()
  # their function knows the single blocks of Flux by its own width only
  paths = ('[^/]*/?(image|text)/(heads/(query|key|value)|out|up)/kernel',) if name == 'flux' else (
    '.*/(query|key|value|out|project|conv_in|up|gate)/kernel',)
  options = lora.Options(3, 2.0, paths)
  kernels = lora.targets(options, {'net': case.ours.params})['net']
  shapes = jax.eval_shape(lambda key: lora.init(key, kernels, 3), jax.random.key(0))
  given = lora_files.Adapter(options, jax.tree.map(lambda leaf: 0.3 * normal(leaf.size, *leaf.shape), shapes))
  lora_files.save(tmp_path / 'ours', case.ours, given, 'kohya')
  path = tmp_path / 'ours' / lora_files.WEIGHTS
  if name == 'flux':
    state, alphas = diffusers.FluxPipeline.lora_state_dict(path, return_alphas=True)
  else:
    state, alphas = diffusers.StableDiffusionXLPipeline.lora_state_dict(path, unet_config=case.model.config)
  case.model.load_lora_adapter(state, network_alphas=alphas, prefix=case.prefix)
  wanted = case.wanted()
  close(case.got(given), wanted, plain)
  again = lora_files.load(path, case.ours)
  close(case.got(again), wanted, plain)
  assert named_leaves(again.params).keys() == named_leaves(given.params).keys()
