"""Names that tensors have in the original files of latent diffusion, and those that `diffusers` gives them.

A row of a table has a module of the original and the modules that hold its rows in `diffusers`: one, or several where
the original has fused them. '#' stands for a number. '*' stands for the rest of a name.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import functools
import re
from typing import Any, NamedTuple

SWAPPED = 'swapped'  # shift before scale, and scale before shift in `diffusers`
SQUEEZED = 'squeezed'  # a convolution of size 1, and a matrix in `diffusers`
TRANSPOSED = 'transposed'  # multiplied from the other side
_LEAVES = ('weight', 'bias', 'scale')
_WILD = {'#': r'(\d+)', '*': r'(.+)'}


class Row(NamedTuple):
  """A module of the original, and its modules in `diffusers`.

  theirs: template of the name. ours: templates of the names in `diffusers`. shares: relative sizes of their rows; ()
  for equal ones. form: '', `SWAPPED`, `SQUEEZED` or `TRANSPOSED`.
  """

  theirs: str
  ours: tuple[str, ...]
  shares: tuple[int, ...] = ()
  form: str = ''


class Found(NamedTuple):
  """A module in `diffusers`. start, stop, whole: its rows in the original are from start / whole to stop / whole."""

  name: str
  start: int
  stop: int
  whole: int
  form: str

  def rows(self, count: int) -> slice:
    """Which of the `count` rows of the original it has."""
    return slice(self.start * count // self.whole, self.stop * count // self.whole)


@dataclasses.dataclass(frozen=True)
class Names:
  """A table. rows: the rows; the first that matches counts."""

  rows: tuple[Row, ...]

  def modules(self, theirs: str) -> tuple[Found, ...]:
    """The modules in `diffusers` of one in the original; () if no row has it."""
    for pattern, row in self._theirs:
      if match := pattern.fullmatch(theirs):
        return tuple(found._replace(name=_filled(found.name, match.groups())) for found in _parts(row))
    return ()

  def originals(self, ours: str) -> tuple[tuple[str, Found], ...]:
    """The modules of the original that hold one of `diffusers`, and where they do."""
    names = []
    for pattern, row, part in self._ours:
      if match := pattern.fullmatch(ours):
        names.append((_filled(row.theirs, match.groups()), part._replace(name=ours)))
    return tuple(names)

  def tensors(self, theirs: str) -> tuple[Found, ...]:
    """The tensors in `diffusers` of one in the original; () if no row has it."""
    module, _, leaf = theirs.rpartition('.')
    if leaf not in _LEAVES:  # a parameter that has no module of its own
      return self.modules(theirs)
    leaf = 'weight' if leaf == 'scale' else leaf
    return tuple(found._replace(name=f'{found.name}.{leaf}') for found in self.modules(module))

  @functools.cached_property
  def _theirs(self) -> list[tuple[re.Pattern[str], Row]]:
    return [(_pattern(row.theirs), row) for row in self.rows]

  @functools.cached_property
  def _ours(self) -> list[tuple[re.Pattern[str], Row, Found]]:
    return [(_pattern(part.name), row, part) for row in self.rows for part in _parts(row)]


def _parts(row: Row) -> list[Found]:
  shares = row.shares or (1,) * len(row.ours)
  stops = [sum(shares[:number + 1]) for number in range(len(shares))]
  return [Found(name, stop - share, stop, stops[-1], row.form) for name, share, stop in zip(row.ours, shares, stops)]


def _pattern(template: str) -> re.Pattern[str]:
  return re.compile(''.join(_WILD.get(part, re.escape(part)) for part in re.split('([#*])', template)))


def _filled(template: str, values: Iterable[str]) -> str:
  """The template with values in the places of its wild cards, in order."""
  given = iter(values)
  return re.sub('[#*]', lambda match: next(given), template)


def _same(names: Mapping[str, str], theirs: str = '', ours: str = '', **options: Any) -> list[Row]:
  """Rows of modules that are held whole."""
  return [Row(theirs + name, (ours + public,), **options) for name, public in names.items()]


def _residual(theirs: str, ours: str, names: Mapping[str, str]) -> list[Row]:
  return _same(names, f'{theirs}.', f'{ours}.')


_UNET_RESIDUAL = {'in_layers.0': 'norm1', 'in_layers.2': 'conv1', 'emb_layers.1': 'time_emb_proj',
                  'out_layers.0': 'norm2', 'out_layers.3': 'conv2', 'skip_connection': 'conv_shortcut'}
_UNET_SHARED = {
  'time_embed.0': 'time_embedding.linear_1', 'time_embed.2': 'time_embedding.linear_2',
  'time_embed.cond_proj': 'time_embedding.cond_proj', 'label_emb.0.0': 'add_embedding.linear_1',
  'label_emb.0.2': 'add_embedding.linear_2', 'label_emb': 'class_embedding', 'input_blocks.0.0': 'conv_in',
  'out.0': 'conv_norm_out', 'out.2': 'conv_out'}


def unet(attends: Sequence[bool], blocks: int) -> Names:
  """The U-Net of latent diffusion (openaimodel.py).

  Args:
    attends: of each level, whether it has transformers.
    blocks: residual blocks of a level on the way down.
  """
  levels = len(attends)
  rows = _same(_UNET_SHARED)
  for way, theirs, first, count, sampler in (('down', 'input_blocks', 1, blocks, 'op'), ('up', 'output_blocks', 0,
                                                                                        blocks + 1, 'conv')):
    for level in range(levels):
      ours = f'{way}_blocks.{level}'
      place = first + level * (blocks + 1)
      for index in range(count):
        block = f'{theirs}.{place + index}'
        rows += _residual(f'{block}.0', f'{ours}.resnets.{index}', _UNET_RESIDUAL)
      if way == 'down':
        rows.append(Row(f'{theirs}.{place + blocks}.0.{sampler}', (f'{ours}.downsamplers.0.conv',)))
      else:  # behind the transformer of the last block, or in its place
        slot = 2 if attends[levels - 1 - level] else 1
        rows.append(Row(f'{theirs}.{place + blocks}.{slot}.conv', (f'{ours}.upsamplers.0.conv',)))
      rows += [Row(f'{theirs}.{place + index}.1.*', (f'{ours}.attentions.{index}.*',)) for index in range(count)]
  for slot, number in ((0, 0), (2, 1)):
    rows += _residual(f'middle_block.{slot}', f'mid_block.resnets.{number}', _UNET_RESIDUAL)
  return Names((*rows, Row('middle_block.1.*', ('mid_block.attentions.0.*',))))


_VAE_RESIDUAL = {name: name for name in ('norm1', 'conv1', 'norm2', 'conv2')} | {'nin_shortcut': 'conv_shortcut'}


def _vae_attention(theirs: str, ours: str) -> list[Row]:
  names = {'q': 'to_q', 'k': 'to_k', 'v': 'to_v', 'proj_out': 'to_out.0'}
  return [Row(f'{theirs}.norm', (f'{ours}.group_norm',)), *_same(names, f'{theirs}.', f'{ours}.', form=SQUEEZED)]


def autoencoder(levels: int) -> Names:
  """The autoencoder of latent diffusion (model.py); the original numbers the levels of the decoder by resolution."""
  rows = _same({name: name for name in ('quant_conv', 'post_quant_conv')})
  for side, way, sampler in (('encoder', 'down', 'downsample'), ('decoder', 'up', 'upsample')):
    rows += _same({'conv_in': 'conv_in', 'norm_out': 'conv_norm_out', 'conv_out': 'conv_out'}, f'{side}.', f'{side}.')
    for level in range(levels):
      place = level if way == 'down' else levels - 1 - level
      theirs, ours = f'{side}.{way}.{place}', f'{side}.{way}_blocks.{level}'
      rows += [*_residual(f'{theirs}.block.#', f'{ours}.resnets.#', _VAE_RESIDUAL),
               *_vae_attention(f'{theirs}.attn.#', f'{ours}.attentions.#'),
               Row(f'{theirs}.{sampler}.conv', (f'{ours}.{sampler}rs.0.conv',))]
    for number in (1, 2):
      rows += _residual(f'{side}.mid.block_{number}', f'{side}.mid_block.resnets.{number - 1}', _VAE_RESIDUAL)
    rows += _vae_attention(f'{side}.mid.attn_1', f'{side}.mid_block.attentions.0')
  return Names(tuple(rows))


UNCHANGED = Names((Row('*', ('*',)),))

_LAYER = 'text_model.encoder.layers.#'
OPEN_CLIP = Names((
  Row('positional_embedding', ('text_model.embeddings.position_embedding.weight',)),
  Row('token_embedding', ('text_model.embeddings.token_embedding',)),
  Row('ln_final', ('text_model.final_layer_norm',)),
  Row('text_projection', ('text_projection.weight',), form=TRANSPOSED),
  *(Row(f'transformer.resblocks.#.attn.in_proj_{leaf}', tuple(f'{_LAYER}.self_attn.{part}_proj.{leaf}'
                                                               for part in 'qkv')) for leaf in ('weight', 'bias')),
  *_same({'attn.out_proj': 'self_attn.out_proj', 'ln_1': 'layer_norm1', 'ln_2': 'layer_norm2', 'mlp.c_fc': 'mlp.fc1',
          'mlp.c_proj': 'mlp.fc2'}, 'transformer.resblocks.#.', f'{_LAYER}.')))


def _heads(theirs: str, ours: str, names: tuple[str, ...]) -> Row:
  return Row(theirs, tuple(f'{ours}.{name}' for name in names))


_QKV, _ADDED = ('to_q', 'to_k', 'to_v'), ('add_q_proj', 'add_k_proj', 'add_v_proj')


def stable_diffusion_3(layers: int) -> Names:
  """The MM-DiT of Stable Diffusion 3 (mmditx.py). The last block only scales and shifts its text."""
  rows = _same({
    'x_embedder.proj': 'pos_embed.proj', 'context_embedder': 'context_embedder', 'final_layer.linear': 'proj_out',
    **{f'{theirs}.mlp.{place}': f'time_text_embed.{ours}.linear_{number}' for theirs, ours in (
      ('t_embedder', 'timestep_embedder'), ('y_embedder', 'text_embedder')) for number, place in ((1, 0), (2, 2))}})
  last = f'joint_blocks.{layers - 1}.context_block.adaLN_modulation.1'
  rows += [Row('pos_embed', ('pos_embed.pos_embed',)),
           Row('final_layer.adaLN_modulation.1', ('norm_out.linear',), form=SWAPPED),
           Row(last, (f'transformer_blocks.{layers - 1}.norm1_context.linear',), form=SWAPPED)]
  block = 'transformer_blocks.#'
  for stream, names, letter, out, norm, mlp in (
      ('x_block', _QKV, '', 'to_out.0', 'norm1', 'ff'),
      ('context_block', _ADDED, 'added_', 'to_add_out', 'norm1_context', 'ff_context')):
    theirs = f'joint_blocks.#.{stream}'
    for attention in ('attn', 'attn2'):
      rows += [_heads(f'{theirs}.{attention}.qkv', f'{block}.{attention}', names),
               *_same({'ln_q': f'norm_{letter}q', 'ln_k': f'norm_{letter}k', 'proj': out}, f'{theirs}.{attention}.',
                      f'{block}.{attention}.')]
    rows += _same({'adaLN_modulation.1': f'{norm}.linear', 'mlp.fc1': f'{mlp}.net.0.proj', 'mlp.fc2': f'{mlp}.net.2'},
                  f'{theirs}.', f'{block}.')
  return Names(tuple(rows))


def _flux() -> Names:
  rows = _same({
    'img_in': 'x_embedder', 'txt_in': 'context_embedder', 'final_layer.linear': 'proj_out',
    **{f'{theirs}.{place}_layer': f'time_text_embed.{ours}.linear_{number}' for theirs, ours in (
      ('time_in', 'timestep_embedder'), ('vector_in', 'text_embedder'), ('guidance_in', 'guidance_embedder'))
      for number, place in ((1, 'in'), (2, 'out'))}})
  rows.append(Row('final_layer.adaLN_modulation.1', ('norm_out.linear',), form=SWAPPED))
  block = 'transformer_blocks.#'
  for stream, names, letter, out, norm, mlp in (
      ('img', _QKV, '', 'to_out.0', 'norm1', 'ff'), ('txt', _ADDED, 'added_', 'to_add_out', 'norm1_context',
                                                     'ff_context')):
    theirs = f'double_blocks.#.{stream}'
    rows += [_heads(f'{theirs}_attn.qkv', f'{block}.attn', names), *_same({
      'attn.norm.query_norm': f'attn.norm_{letter}q', 'attn.norm.key_norm': f'attn.norm_{letter}k',
      'attn.proj': f'attn.{out}', 'mod.lin': f'{norm}.linear', 'mlp.0': f'{mlp}.net.0.proj',
      'mlp.2': f'{mlp}.net.2'}, f'{theirs}_', f'{block}.')]
  theirs, block = 'single_blocks.#', 'single_transformer_blocks.#'
  return Names((*rows, *_same({
    'norm.query_norm': 'attn.norm_q', 'norm.key_norm': 'attn.norm_k', 'modulation.lin': 'norm.linear',
    'linear2': 'proj_out'}, f'{theirs}.', f'{block}.'), Row(f'{theirs}.linear1', (
      *(f'{block}.attn.{name}' for name in _QKV), f'{block}.proj_mlp'), shares=(1, 1, 1, 4))))


FLUX = _flux()
