"""Imported models stop where `generate` of transformers stops: by generation_config.json, and without that file by
config.json."""

import json

import jax
import numpy as np
import pytest

from genjax.configs.language import shakespeare_bpe
from genjax.data.text import tokenizers
from genjax.experiments import language, public, seq2seq
from genjax.models.transformers import decoder
from genjax.objectives.base import Context
from genjax.types import UserError

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
PROMPT, LENGTH = [3, 1, 4], 16
ABSENT = 'absent'


@pytest.fixture(scope='module')
def small_decoder(tmp_path_factory):
  """A GPT-2 whose greedy text has many tokens, its folder, and that text."""
  torch.manual_seed(1)
  sizes = dict(vocab_size=61, n_positions=32, n_embd=16, n_layer=1, n_head=2, initializer_range=0.7)
  theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, bos_token_id=None, eos_token_id=None)).eval()
  folder = tmp_path_factory.mktemp('stops') / 'public'
  theirs.save_pretrained(folder)
  return folder, generated(folder)


def generated(folder):
  """What transformers generates greedily."""
  theirs = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
  return theirs.generate(torch.tensor([PROMPT]), do_sample=False, max_new_tokens=LENGTH, pad_token_id=60)[0].tolist()


def told(folder, name, value):
  """Sets eos_token_id in a file; None writes null, `ABSENT` leaves it out, and of generation_config.json '' the whole
  file."""
  path = folder / name
  if value == '':
    path.unlink(missing_ok=True)
    return
  entries = json.loads(path.read_text()) if path.is_file() else {}
  entries.pop('eos_token_id', None)
  path.write_text(json.dumps({**entries, **({} if value == ABSENT else {'eos_token_id': value})}))


# What generation_config.json and config.json say: places in the greedy text whose tokens end it.
@pytest.mark.parametrize(('generation', 'config'), [(5, ABSENT), ([9, 6], ABSENT), (8, 4), ('', 4), ('', [7, 5]),
                                                    (ABSENT, 4), (None, 4), ('', ABSENT), ('', None)], ids=str)
def test_decoders_stop_where_generate_does(small_decoder, generation, config):
  folder, free = small_decoder
  token = lambda place: free[place] if isinstance(place, int) else [free[one] for one in place] if isinstance(
    place, list) else place
  told(folder, 'generation_config.json', token(generation))
  told(folder, 'config.json', token(config))
  expected = generated(folder)
  made = public.read(folder, None)
  with made.config.unlocked():
    made.config.sampler.update(temperature=0.0, top_p=1.0, length=LENGTH)
  objective = language.build(made.config).objective
  rows = objective.sample(made.params, Context(step=0, mutable={}, ema={}, frozen={}),
                          jax.random.split(jax.random.key(0), 1),
                          {'prompt': np.asarray([PROMPT], np.int32)})['tokens'][0].tolist()
  assert [one for one in rows if one >= 0] == expected


def test_a_stop_that_is_no_token_is_refused(small_decoder):
  folder, _ = small_decoder
  told(folder, 'generation_config.json', [1, 'end'])
  with pytest.raises(UserError, match=r"generation_config\.json: eos_token_id must be a token.*'end'"):
    public.read(folder, None)


def test_several_stops_of_an_encoder_decoder(tmp_path):
  """The first is the token that stops a target, the others end a text as well; text after any of them is not shown."""
  torch.manual_seed(0)
  config = transformers.T5Config(vocab_size=300, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, pad_token_id=0,
                                 eos_token_id=1, decoder_start_token_id=0)
  transformers.T5ForConditionalGeneration(config).save_pretrained(tmp_path)
  for name, data in tokenizers.train('bpe', ['some text to learn from'], 280).files().items():
    (tmp_path / name).write_bytes(data)
  told(tmp_path, 'generation_config.json', [7, 1, 9])
  made = public.read(tmp_path, None)
  assert made.config.data.tokens.to_dict() == {'start': 0, 'stop': 7, 'padding': 0
                                              } and made.config.sampler.stop == (1, 9)
  experiment = seq2seq.build(made.config)
  assert experiment.objective.sampler.vocabulary == 273
  shown = experiment.render({'tokens': np.asarray([[30, 9, 31, 31], [30, 7, 31, 31], [30, 0, 0,
                                                                                      0]])})['samples'].split('\n')
  assert shown[0] == shown[1] == shown[2]


def test_export_says_where_a_run_stops(tmp_path):
  """A run that was never public has it in its sampler only."""
  config = shakespeare_bpe.get_config('smoke')
  config.model.bias = True
  config.sampler.stop = (5, 9)
  options = language.model_options(config, 300)
  params = {'net': decoder.transformer(options).init(jax.random.key(0))[0]}
  public.write(tmp_path / 'out', config.lock(), params, {}, None)
  assert transformers.GPT2LMHeadModel.from_pretrained(tmp_path / 'out').generation_config.eos_token_id == [5, 9]
  assert public.read(tmp_path / 'out', None).config.sampler.stop == (5, 9)
