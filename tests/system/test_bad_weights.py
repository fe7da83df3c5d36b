"""Public weights that are bad, through the command line: each ends with a message, exit code 2, and nothing that was
half written."""

import json
import shutil

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
import sentencepiece

from genjax import interop
from genjax.cli.main import main
from genjax.data.text import tokenizers
from genjax.interop import peft
from genjax.interop.weights import ARCHITECTURES
from genjax.models.transformers.bert import BertConfig
from genjax.models.transformers.decoder import TransformerConfig, llama
from genjax.models.transformers.seq2seq import Seq2SeqConfig
from genjax.models.transformers.vit import VitConfig
from genjax.models.transformers.whisper import whisper
from genjax.nn import lora

TEXT = 'To be, or not to be, that is the question:\nWhether \'tis nobler in the mind to suffer\n' * 12
SIZES = dict(vocab=272, context=24, layers=2, heads=2, width=8)
CONFIGS = {
  'gpt2': TransformerConfig(**SIZES), 'llama': llama(**SIZES, kv_heads=1, mlp_width=12),
  'bert': BertConfig(**SIZES, masked_lm=True, pooler=False),
  't5': Seq2SeqConfig(**SIZES, positions='relative', norm='rms', norm_eps=1e-6, pre_norm=True, bias=False, scaled=False,
                      embedding_scale=False, init='fan_in', output_scale=True),
  'marian': Seq2SeqConfig(**SIZES, output_bias=True),
  'whisper': whisper('tiny', **SIZES, decoder_layers=1, frames=5, source_context=9),
  'vit': VitConfig(shape=(8, 8, 1), num_classes=3, patch=4, layers=1, heads=2, width=8)}


def learn(texts, size):
  """A SentencePiece model with the special tokens of T5."""
  path = {}

  class Writer:
    write = staticmethod(lambda data: path.update(model=path.get('model', b'') + data))

  sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=Writer, vocab_size=size,
                                           model_type='unigram', hard_vocab_limit=False, minloglevel=2, pad_id=0,
                                           eos_id=1, unk_id=2, bos_id=-1)
  return path['model']


def tokenizer(name, size=270):
  """Name -> bytes of the files that a tokenizer of an architecture is."""
  if name in ('t5', 'marian'):
    model = learn(TEXT.splitlines(), 60)
    if name == 't5':
      return {'spiece.model': model}
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    pieces = [processor.id_to_piece(number) for number in range(processor.get_piece_size())]
    vocabulary = {
      piece: number
      for number, piece in enumerate([*pieces, *(f'more{number}' for number in range(size - len(pieces)))])
    }
    return {'source.spm': model, 'target.spm': model, 'vocab.json': json.dumps(vocabulary).encode()}
  return {} if name == 'vit' else tokenizers.train('bert' if name == 'bert' else 'bpe', [TEXT], size).files()


def write_public(folder, name, **options):
  """A public model with random parameters and a tokenizer."""
  params = ARCHITECTURES[name].network(CONFIGS[name]).init(jax.random.key(0))[0]
  interop.save(folder, CONFIGS[name], params, architecture=name, **options)
  for file, data in tokenizer(name).items():
    (folder / file).write_bytes(data)
  return folder


def fails(capsys, *argv):
  """Runs a command that must fail; returns what it said."""
  capsys.readouterr()
  assert main([str(arg) for arg in argv]) == 2
  said = capsys.readouterr().err
  assert 'Traceback' not in said
  return said


def contents(folder):
  """Every file below a folder, and when it was written."""
  return {path: path.stat().st_mtime_ns for path in folder.rglob('*')}


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """name -> a public model, and a run of it, made when first asked for; both are to be left as they are."""
  root, known = tmp_path_factory.mktemp('public'), {}

  def make(name):
    if name not in known:
      public, run = write_public(root / name, name), root / f'{name}_run'
      assert main(['import', f'--from={public}', f'--workdir={run}']) == 0
      known[name] = public, run
    return known[name]

  return make


def truncated(folder, name):
  path = folder / 'model.safetensors'
  path.write_bytes(path.read_bytes()[:-10])


def edited(**entries):
  def change(folder, name):
    config = json.loads((folder / 'config.json').read_text())
    (folder / 'config.json').write_text(json.dumps({**config, **entries}))

  return change


def without_config(folder, name):
  (folder / 'config.json').unlink()


def wrong_shape(folder, name):
  tensors = load_file(folder / 'model.safetensors')
  first = sorted(tensors)[0]
  tensors[first] = np.ones((*tensors[first].shape, 2), np.float32)
  save_file(tensors, folder / 'model.safetensors')


def lost_shard(folder, name):
  shutil.rmtree(folder)
  write_public(folder, name, shard_bytes=4000)
  next(folder.glob('model-00002*')).unlink()


def two_embeddings(folder, name):
  edited(share_encoder_decoder_embeddings=False, decoder_vocab_size=SIZES['vocab'])(folder, name)
  tensors = load_file(folder / 'model.safetensors')
  shared = tensors.pop('model.shared.weight')
  tensors |= {
    f'model.{side}.embed_tokens.weight': shared + number for number, side in enumerate(('encoder', 'decoder'))
  }
  save_file(tensors, folder / 'model.safetensors')


def pickled(folder, name):
  (folder / 'model.safetensors').rename(folder / 'pytorch_model.bin')


def large_tokenizer(folder, name):
  if name == 't5':
    edited(vocab_size=20)(folder, name)
    tensors = load_file(folder / 'model.safetensors')
    save_file({key: np.ascontiguousarray(value[:20]) if len(value) == 272 else value for key, value in tensors.items()},
              folder / 'model.safetensors')
    return
  if name == 'bert':
    (folder / 'tokenizer.json').unlink()
    (folder / 'vocab.txt').write_text('\n'.join(
      ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', *(f'w{number}' for number in range(268))]))
    return
  for file, data in tokenizer(name, 273).items():
    (folder / file).write_bytes(data)


def no_tokenizer(folder, name):
  for file in tokenizer(name):
    (folder / file).unlink()


def damaged_tokenizer(folder, name):
  (folder / next(iter(tokenizer(name)))).write_text('{')


def preprocessing(**entries):
  return lambda folder, name: (folder / 'preprocessor_config.json').write_text(json.dumps(entries))


def without_heads(folder, name):
  """Of BERT and ViT."""
  tensors = {key: value for key, value in load_file(folder / 'model.safetensors').items() if key.startswith(f'{name}.')}
  save_file(tensors, folder / 'model.safetensors')


MANY = ('gpt2', 'bert', 't5', 'marian', 'whisper', 'vit')
BAD = [
  *((name, truncated, 'truncated or damaged') for name in MANY),
  *((name, wrong_shape, 'of another shape') for name in MANY), *((name, lost_shard, 'lacks 1 of the') for name in MANY),
  *((name, large_tokenizer, 'tokens and the model') for name in MANY if name != 'vit'),
  *((name, no_tokenizer, 'has no tokenizer') for name in ('bert', 't5', 'whisper')),
  *((name, damaged_tokenizer, words)
    for name, words in (('gpt2', 'not a tokenizer of the library'), ('t5', 'not a SentencePiece model'),
                        ('marian', 'not a SentencePiece model'))),
  ('gpt2', edited(model_type='rwkv'), "model_type is 'rwkv'"), ('gpt2', without_config, 'config.json does not exist'),
  ('gpt2', pickled, 'pickle'), ('t5', edited(eos_token_id=400), 'config.data.tokens must be from 0 to 271, got 400'),
  ('marian', edited(pad_token_id='a'), 'pad_token_id must be a whole number'),
  ('marian', two_embeddings, 'an embedding for each side'),
  ('whisper', preprocessing(feature_size=80), 'feature_size is 80'),
  ('vit', preprocessing(image_mean=[0.48]), 'image_mean is [0.48]'),
  ('bert', without_heads, 'no head for masked tokens or for classes'),
  ('vit', without_heads, 'this vit has no classifier'),
]


@pytest.mark.parametrize(('name', 'damage', 'words'), BAD)
def test_bad_models_leave_nothing_behind(tmp_path, published, capsys, name, damage, words):
  folder = shutil.copytree(published(name)[0], tmp_path / 'bad')
  damage(folder, name)
  assert words in fails(capsys, 'import', f'--from={folder}', f'--workdir={tmp_path / "run"}')
  assert [path.name for path in tmp_path.iterdir()] == ['bad']


@pytest.mark.parametrize(('name', 'words'), [('gpt2', 'a prompt must have 1 to 23 tokens (the context is 24)'),
                                             ('bert', 'at most 22 tokens beside'), ('t5', 'has 1 to 23 tokens'),
                                             ('marian', 'has 1 to 23 tokens')])
def test_prompts_longer_than_the_context(published, capsys, name, words):
  run = published(name)[1]
  before = contents(run)
  assert words in fails(capsys, 'sample', f'--workdir={run}', '--num=1', f'--prompt={TEXT[:300]}')
  assert contents(run) == before


@pytest.mark.parametrize('name', MANY)
def test_commands_that_need_data_say_so(tmp_path, published, capsys, name):
  run = published(name)[1]
  before = contents(run)
  assert 'this run has no data' in fails(capsys, 'evaluate', f'--workdir={run}')
  said = fails(capsys, 'train', f'--config={run}/config.json', f'--config.init_from={run}',
               f'--workdir={tmp_path / "new"}')
  assert 'this run has no data' in said
  assert contents(run) == before and not (tmp_path / 'new' / 'config.json').exists()


def test_an_adapter_of_another_base(tmp_path, published, capsys):
  (public, run), other = published('gpt2'), published('llama')[1]
  model = interop.load(public)
  options = lora.Options(3, 6.0, (r'blocks/up/kernel',))
  kernels = lora.targets(options, {'net': model.params})['net']
  peft.save(tmp_path / 'adapter', model, peft.Adapter(options, lora.init(jax.random.key(0), kernels, 3)))
  before = contents(other)
  said = fails(capsys, 'import', f'--from={tmp_path / "adapter"}', f'--base={other}', f'--workdir={tmp_path / "wrong"}')
  assert 'not adapters of this base' in said and [path.name for path in tmp_path.iterdir()
                                                ] == ['adapter'] and contents(other) == before
  said = fails(capsys, 'import', f'--from={tmp_path / "adapter"}', f'--base={published("bert")[1]}',
               f'--workdir={tmp_path / "wrong"}')
  assert 'this model is a bert' in said and [path.name for path in tmp_path.iterdir()] == ['adapter']
  assert main(['import', f'--from={tmp_path / "adapter"}', f'--base={run}', f'--workdir={tmp_path / "right"}']) == 0
