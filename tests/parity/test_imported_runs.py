"""Models that `transformers` wrote become runs, which train, sample and evaluate, and go back with the logits that they
had."""

import io
import json
import math
import re

import numpy as np
import pytest
import sentencepiece

from genjax.cli.main import main
from genjax.data import sources
from genjax.data.text import tokenizers

torch = pytest.importorskip('torch', reason='parity tests need the extra [parity]')
transformers = pytest.importorskip('transformers', reason='parity tests need the extra [parity]')
torch.set_num_threads(1)  # its threads wait for each other on busy machines
pytestmark = pytest.mark.slow

LINES = {'de': ['null eins', 'zwei drei', 'vier', 'fünf sechs sieben', 'acht neun'] * 8,
         'en': ['zero one', 'two three', 'four', 'five six seven', 'eight nine'] * 8}


def write_lines(folder):
  """A folder of parallel text."""
  folder.mkdir()
  for language, lines in LINES.items():
    for split, part in (('train', lines), ('test', lines[:6])):
      (folder / f'{split}.{language}').write_text(''.join(f'{line}\n' for line in part))
  return folder


def write_sst(folder):
  """A folder of SST-2 with few words."""
  folder.mkdir()
  for part in ('train', 'dev', 'test'):
    (folder / f'stsa.binary.{part}').write_text('\n'.join(
      ['1 a good film', '0 a bad film , very bad', '1 good', '0 bad'] * 6))
  return folder


def spm(texts, size, **options):
  """A SentencePiece model, as bytes."""
  sink = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=sink, vocab_size=size,
                                           model_type='unigram', hard_vocab_limit=False, minloglevel=2, **options)
  return sink.getvalue()


def random(model):
  """The model with parameters that are not at their initial zeros and ones, for inference."""
  torch.manual_seed(0)
  with torch.no_grad():
    for parameter in filter(lambda parameter: parameter.requires_grad, model.parameters()):  # not fixed positions
      parameter.add_(0.1 * torch.randn_like(parameter))
  return model.eval()


def there_and_back(theirs, public, tmp_path, tuning, data, draw, logits, capsys):
  """Import, export, training of two steps, evaluation, samples, export; returns what was printed and the model that was
  tuned.

  tuning, data: overrides of config, and those under --set, too. draw: flags of sample, or None. logits: model -> a
    tensor.
  """
  run, tuned = tmp_path / 'run', tmp_path / 'tuned'
  assert main(['import', f'--from={public}', f'--workdir={run}']) == 0
  assert main(['export', f'--workdir={run}', f'--to={tmp_path / "copy"}']) == 0
  assert (tmp_path / 'copy' / 'model.safetensors').read_bytes() == (public / 'model.safetensors').read_bytes()
  copy, report = type(theirs).from_pretrained(tmp_path / 'copy', output_loading_info=True)
  assert not any(report[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  assert torch.equal(logits(copy.eval()), logits(theirs))
  public.rename(tmp_path / 'moved')  # a run needs nothing but itself
  capsys.readouterr()
  assert main(['evaluate', f'--workdir={run}']) == 2
  assert 'this run has no data' in capsys.readouterr().err
  assert main([
    'train', f'--config={run}/config.json', f'--config.init_from={run}', f'--workdir={tuned}', '--config.steps=2',
    '--config.log_every=1', '--config.optimizers.net.lr=0.1', *(f'--config.{item}' for item in (*tuning, *data))
  ]) == 0
  texts = {}
  for folder, flags in ((run, ['--set', *data]), (tuned, [])):
    capsys.readouterr()
    assert main(['evaluate', f'--workdir={folder}', *flags]) == 0
    loss = json.loads((folder / 'evaluation.json').read_text())['metrics']['heldout/loss']
    assert math.isfinite(loss)
    capsys.readouterr()
    if draw:
      assert main(['sample', f'--workdir={folder}', '--num=1', *draw]) == 0
      texts[folder.name] = capsys.readouterr().out
  assert main(['export', f'--workdir={tuned}', f'--to={tmp_path / "out"}']) == 0
  after, report = type(theirs).from_pretrained(tmp_path / 'out', output_loading_info=True)
  assert not any(report[kind] for kind in ('missing_keys', 'unexpected_keys', 'mismatched_keys'))
  assert not torch.equal(logits(after.eval()), logits(theirs))
  kept = {path.name for path in (tmp_path / 'moved').iterdir()}
  assert kept <= {path.name for path in (tmp_path / 'out').iterdir()}
  for name in kept - {'config.json', 'model.safetensors'}:
    assert (tmp_path / 'out' / name).read_bytes() == (tmp_path / 'moved' / name).read_bytes()
  return texts, after


BERT = dict(vocab_size=90, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
            max_position_embeddings=24)
PIECES = ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]', 'a', 'good', 'bad', 'film', ',', 'very']


def bert_logits(model):
  with torch.no_grad():
    outputs = model(torch.tensor([[2, 5, 4, 8, 3], [2, 7, 9, 7, 3]]))
  return outputs.prediction_logits if 'prediction_logits' in outputs else outputs.logits


@pytest.mark.parametrize('kind', ['BertForMaskedLM', 'BertForPreTraining', 'BertForSequenceClassification'])
def test_bert(tmp_path, capsys, kind):
  theirs = random(getattr(transformers, kind)(transformers.BertConfig(**BERT, num_labels=2)))
  public = tmp_path / 'public'
  theirs.save_pretrained(public)
  if kind == 'BertForMaskedLM':  # as the first public files
    (public / 'vocab.txt').write_text('\n'.join(PIECES) + '\n')
    (public / 'tokenizer_config.json').write_text('{"do_lower_case": true}')
  else:
    for name, data in tokenizers.train('bert', ['a good film , a very bad film'], 80).files().items():
      (public / name).write_bytes(data)
  classifies = kind == 'BertForSequenceClassification'
  data = [
    'data.name=sst2', 'data.field=sentence', 'data.heldout=validation', f'data.originals={write_sst(tmp_path / "sst")}',
    f'data.data_dir={tmp_path / "tfds"}'
  ]
  draw = None if classifies else ['--prompt=a [MASK] film']
  texts, _ = there_and_back(theirs, public, tmp_path, ['data.context=12'], data, draw, bert_logits, capsys)
  assert classifies or texts['run'].endswith('film\n') and '[MASK]' not in texts['run']
  if kind == 'BertForMaskedLM':
    again = transformers.AutoTokenizer.from_pretrained(tmp_path / 'out')
    assert again('A good, bad fühl')['input_ids'] == [2, 5, 6, 9, 7, 1, 3] and again.mask_token_id == 4


def test_bert_is_tuned_as_a_classifier(tmp_path, capsys):
  """The encoder stays, the head for tokens goes, pooler and classifier begin anew; the run is exported as a
  classifier."""
  theirs, public = random(transformers.BertForMaskedLM(transformers.BertConfig(**BERT))), tmp_path / 'public'
  theirs.save_pretrained(public)
  (public / 'vocab.txt').write_text('\n'.join(PIECES) + '\n')
  run, tuned = tmp_path / 'run', tmp_path / 'tuned'
  assert main(['import', f'--from={public}', f'--workdir={run}']) == 0
  assert main([
    'train', f'--config={run}/config.json', f'--config.init_from={run}', '--config.init.strict=False',
    f'--workdir={tuned}', '--config.steps=2', '--config.objective.name=classification', '--config.data.name=sst2',
    '--config.data.field=sentence', '--config.data.context=12',
    f'--config.data.originals={write_sst(tmp_path / "sst")}', f'--config.data.data_dir={tmp_path / "tfds"}',
    '--config.optimizers.net.lr=1e-6'
  ]) == 0
  assert 'dropped 5; kept initial 4' in ''.join(capsys.readouterr())
  assert main(['export', f'--workdir={tuned}', f'--to={tmp_path / "out"}']) == 0
  after = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / 'out')
  assert after.config.num_labels == 2
  for name, value in theirs.bert.state_dict().items():
    assert torch.allclose(after.bert.state_dict()[name], value, atol=1e-4)


def seq2seq_logits(model):
  with torch.no_grad():
    return model(input_ids=torch.tensor([[5, 9, 8, 1]]), decoder_input_ids=torch.tensor([[0, 4, 6]])).logits


T5 = dict(vocab_size=70, d_model=16, d_kv=6, d_ff=24, num_layers=2, num_decoder_layers=1, num_heads=2,
          decoder_start_token_id=0)
PAIRS = ['data.source=de', 'data.target=en', 'data.heldout=test', 'data.context=20', 'sampler.length=6']


@pytest.mark.parametrize(('options', 'library'),
                         [({}, False), ({'feed_forward_proj': 'gated-gelu', 'tie_word_embeddings': False}, True)])
def test_t5(tmp_path, capsys, options, library):
  theirs, public = random(transformers.T5ForConditionalGeneration(
    transformers.T5Config(**{**T5, **options}))), tmp_path / 'public'
  theirs.save_pretrained(public)
  model = spm(LINES['de'] + LINES['en'], 64, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
  (public / 'spiece.model').write_bytes(model)
  if library:
    own = transformers.T5Tokenizer.from_pretrained(public, extra_ids=0)
    (public / 'spiece.model').unlink()
    own.save_pretrained(public)
  data = [*PAIRS, f'data.name={write_lines(tmp_path / "lines")}', 'data.prefix=zwei ']
  texts, after = there_and_back(theirs, public, tmp_path, [], data, ['--prompt=null eins'], seq2seq_logits, capsys)
  assert texts['tuned'].startswith('zwei null eins\n')
  # What is drawn is what transformers draws of the exported folder.
  processor = sentencepiece.SentencePieceProcessor(model_proto=model)
  source = torch.tensor([[*processor.encode('zwei null eins'), 1]])
  expected = after.generate(input_ids=source, max_new_tokens=6, do_sample=False, suppress_tokens=[0])[0, 1:].tolist()
  expected = expected[:expected.index(1)] if 1 in expected else expected
  found = texts['tuned'].splitlines()[1].strip()
  assert found == processor.decode([token for token in expected if token < processor.get_piece_size()]).strip()


def test_marian(tmp_path, capsys):
  sides = [spm(LINES[language], 40, bos_id=-1) for language in ('de', 'en')]
  processors = [sentencepiece.SentencePieceProcessor(model_proto=side) for side in sides]
  pieces = {processor.id_to_piece(index) for processor in processors for index in range(processor.get_piece_size())}
  names = ['</s>', '<unk>', *sorted(pieces - {'</s>', '<unk>', '<s>'}), '>>en<<', '<pad>']
  vocabulary = {piece: token for token, piece in enumerate(names)}
  pad = vocabulary['<pad>']
  theirs = random(
    transformers.MarianMTModel(
      transformers.MarianConfig(
        vocab_size=len(names), d_model=16, encoder_layers=2, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=24, decoder_ffn_dim=24, max_position_embeddings=32, pad_token_id=pad,
        decoder_start_token_id=pad, eos_token_id=0, forced_eos_token_id=None, bos_token_id=None)))
  public = tmp_path / 'public'
  theirs.save_pretrained(public)
  for name, data in zip(('source.spm', 'target.spm', 'vocab.json', 'tokenizer_config.json'),
                        (*sides, json.dumps(vocabulary).encode(), b'{"source_lang": "de", "target_lang": "en"}')):
    (public / name).write_bytes(data)
  prompt = '>>en<< null fünf x'
  data = [*PAIRS, f'data.name={write_lines(tmp_path / "lines")}']
  texts, after = there_and_back(theirs, public, tmp_path, [], data, [f'--prompt={prompt}'], seq2seq_logits, capsys)
  with pytest.warns(UserWarning, match='sacremoses'):
    tokenizer = transformers.MarianTokenizer.from_pretrained(tmp_path / 'out')
  from genjax.data.text.marian import Marian
  ours = Marian(tmp_path / 'tuned')
  assert [*ours.encode(prompt), 0] == tokenizer(prompt)['input_ids']
  assert [*ours.encode('five six', side=1), 0] == tokenizer(text_target='five six')['input_ids']
  expected = after.generate(**tokenizer(prompt, return_tensors='pt'), max_new_tokens=6, do_sample=False, num_beams=1,
                            suppress_tokens=[pad])
  assert texts['tuned'].splitlines()[1].strip() == tokenizer.decode(expected[0], skip_special_tokens=True)


def test_whisper(tmp_path, capsys, shared_data):
  public, recordings = tmp_path / 'public', shared_data / 'fsdd'
  public.mkdir()
  marks = ['<|startoftranscript|>', '<|en|>', '<|transcribe|>', '<|notimestamps|>']
  made = json.loads(
    tokenizers.train('bpe', ['zero one two three four five six seven eight nine'] * 3, 290).files()['tokenizer.json'])
  size = max(made['model']['vocab'].values()) + 1
  made['added_tokens'] += [
    {**made['added_tokens'][0], 'id': size + place, 'content': mark} for place, mark in enumerate(marks)
  ]
  theirs = random(
    transformers.WhisperForConditionalGeneration(
      transformers.WhisperConfig(vocab_size=size + 6, d_model=16, encoder_layers=1, decoder_layers=2,
                                 encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=24,
                                 decoder_ffn_dim=24, max_source_positions=50, max_target_positions=24, num_mel_bins=10,
                                 decoder_start_token_id=size, eos_token_id=0, pad_token_id=0, bos_token_id=0,
                                 begin_suppress_tokens=None, suppress_tokens=[9])))
  theirs.save_pretrained(public)
  generation = json.loads((public / 'generation_config.json').read_text())
  (public / 'generation_config.json').write_text(json.dumps({
    **generation, 'is_multilingual': True, 'suppress_tokens': [9], 'begin_suppress_tokens': list(range(0, size, 2))}))
  (public / 'tokenizer.json').write_text(json.dumps(made))
  (public
   / 'tokenizer_config.json').write_text('{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}')
  transformers.WhisperFeatureExtractor(feature_size=10).save_pretrained(public)

  frames = torch.tensor(np.random.default_rng(0).normal(size=(1, 10, 100)), dtype=torch.float32)

  def logits(model):
    with torch.no_grad():
      return model(frames, decoder_input_ids=torch.tensor([[size, size + 1, 40]])).logits

  data = [
    'data.name=free_spoken_digits', 'data.train=train[:40]', 'data.heldout=test[:4]', f'data.originals={recordings}',
    'sampler.length=5'
  ]
  _, after = there_and_back(theirs, public, tmp_path, [], data, ['--out', str(tmp_path / 'drawn.npz'), *(
    ['--set', *data])], logits, capsys)
  config = json.loads((tmp_path / 'tuned' / 'config.json').read_text())
  assert config['data']['begin'] == '<|en|><|transcribe|><|notimestamps|>' and config['data']['seconds'] == 1.0
  assert config['sampler']['suppress'] == [9] and config['sampler']['begin_suppress'] == list(range(0, size, 2))
  from genjax import config as config_lib
  from genjax.experiments import speech
  drawn = np.load(tmp_path / 'drawn.npz')
  sound = torch.tensor(drawn['source']).transpose(1, 2)
  before = [size, size + 1, size + 2, size + 3]
  expected = transformers.GenerationMixin.generate(after, input_features=sound, decoder_input_ids=torch.tensor(
    [before]), max_new_tokens=5, do_sample=False, num_beams=1, suppress_tokens=[9, size],
                                                   begin_suppress_tokens=list(range(0, size, 2)))[0].tolist()
  expected = expected[expected.index(size + 3) + 1:] if size + 3 in expected else expected
  assert drawn['tokens'][0].tolist()[:len(expected)] == expected
  # The loss of a target counts its own tokens alone, after the marks.
  columns = next(
    speech.build(
      config_lib.from_plain(
        {**config, 'assets': {'vocabulary': config['data']['vocabulary'],
                              'folder': str(tmp_path / 'tuned')}})).heldout.epoch())
  target = torch.tensor(columns['target'][:4], dtype=torch.long)
  read = torch.cat([torch.tensor([before] * 4), target[:, :-1]], dim=1)
  with torch.no_grad():
    scores = after(torch.tensor(columns['source'][:4]).transpose(1, 2), decoder_input_ids=read).logits[:, 3:]
  loss = torch.nn.functional.cross_entropy(scores.flatten(0, 1), target.flatten(), ignore_index=size).item()
  metrics = json.loads((tmp_path / 'tuned' / 'evaluation.json').read_text())['metrics']
  # Above 1 with words too many
  assert metrics['heldout/loss'] == pytest.approx(loss, abs=1e-4) and metrics['recognition/wer'] >= 0


@pytest.mark.parametrize(('size', 'channels', 'resample'), [(8, 1, None), (12, 3, 3)])
def test_vit(tmp_path, capsys, size, channels, resample):
  """On images of 8 x 8 grey pixels, which the second case resizes; what is measured is the loss of the published
  preprocessing."""
  theirs = random(transformers.ViTForImageClassification(transformers.ViTConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, image_size=size, patch_size=4,
    num_channels=channels, num_labels=10)))
  public = tmp_path / 'public'
  theirs.save_pretrained(public)
  processor = transformers.models.vit.image_processing_pil_vit.ViTImageProcessorPil(
    size={'height': size, 'width': size}, **({} if resample is None else {'resample': resample}))
  if resample is not None:
    processor.save_pretrained(public)
  image = torch.tensor(np.random.default_rng(0).normal(size=(2, channels, size, size)), dtype=torch.float32)

  def logits(model):
    with torch.no_grad():
      return model(image).logits

  data = ['data.name=digits', 'data.train=train', 'data.heldout=test']
  _, after = there_and_back(theirs, public, tmp_path, [], data, None, logits, capsys)
  columns = sources.open_tfds('digits', 'test').columns
  if channels == 1:
    pixels = torch.tensor(columns['image'].transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32)
  else:
    pixels = processor(list(np.repeat(columns['image'], 3, axis=-1)), return_tensors='pt')['pixel_values']
  with torch.no_grad():
    loss = torch.nn.functional.cross_entropy(after(pixels).logits, torch.tensor(columns['label']).long()).item()
  metrics = json.loads((tmp_path / 'tuned' / 'evaluation.json').read_text())['metrics']
  assert metrics['heldout/loss'] == pytest.approx(loss, rel=1e-4)


@pytest.mark.parametrize(
  ('entries', 'message'),
  [({'size': {'height': 9, 'width': 8}}, 'images are resized to .* but the model needs 8 by 8 pixels'),
   ({'resample': 7}, "resample must be one of .*'bilinear'.* got 7"),
   ({'do_center_crop': True}, 'do_center_crop is True'), ({'image_mean': [0.4] * 3}, 'image_mean is')])
def test_preprocessing_that_genjax_lacks(entries, message, tmp_path, capsys):
  transformers.ViTForImageClassification(
    transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8, image_size=8,
                           patch_size=4)).save_pretrained(tmp_path)
  (tmp_path / 'preprocessor_config.json').write_text(json.dumps({'size': 8, **entries}))
  assert main(['import', f'--from={tmp_path}', f'--workdir={tmp_path / "run"}']) == 2
  assert re.search(message, capsys.readouterr().err) and not (tmp_path / 'run').exists()
