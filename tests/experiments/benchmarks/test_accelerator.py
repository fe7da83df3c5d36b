"""The measurement of an accelerator: its report, its budget, batches that do not fit, and what it counts."""

import json
import math

import jax
import pytest

from genjax import sharding
from genjax.experiments.benchmarks import accelerator, accelerator_cases
from genjax.experiments.benchmarks.accelerator_cases import CASES, SIDES
from genjax.planning import topology

FIGURES = {
  'unit': str, 'units_per_step': int, 'flops': int, 'step_seconds_rounds': list, 'step_seconds': float,
  'units_per_second': float, 'flops_per_second': float, 'batch': int, 'batches_tried': list, 'attention': dict
}
OPTIONAL = {'compile_seconds': float, 'program_bytes': int, 'peak_bytes': int, 'mfu': float}  # or null


def check(report):
  """The report is what docs/accelerators.md says."""
  assert report['format'] == accelerator.FORMAT and report['seconds'] > 0
  assert {'kind', 'platform', 'count', 'memory_bytes', 'peak_flops'} == set(report['device'])
  assert {'python', 'jax', 'jaxlib', 'flax', 'torch', 'transformers'} == set(report['versions'])
  for name, row in report['cases'].items():
    assert name in CASES and row['setting'] == CASES[name].setting
    for side in set(row) - {'setting'}:
      found = row[side]
      assert side in SIDES and found['status'] in ('ok', 'failed', 'skipped', 'unavailable')
      if found['status'] != 'ok':
        assert found['reason']
        continue
      assert {'status', *FIGURES, *OPTIONAL} == set(found)
      assert all(isinstance(found[key], kind) for key, kind in FIGURES.items())
      assert all(found[key] is None or isinstance(found[key], kind) for key, kind in OPTIONAL.items())
      assert set(found['attention']) == {'asked', 'ran'} and found['batches_tried'][-1] == found['batch']


def test_dry_run_writes_the_report(tmp_path, capsys):
  out = tmp_path / 'report.json'
  assert accelerator.main(['--dry', '--cases=gpt2_train,gpt2_decode', '--sides=genjax', f'--out={out}']) == 0
  report = json.loads(out.read_text())
  check(report)
  assert report['dry'] and list(report['cases']) == ['gpt2_train', 'gpt2_decode']
  train, decode = (report['cases'][name]['genjax'] for name in report['cases'])
  assert train['status'] == decode['status'] == 'ok' and train['attention'] == {'asked': 'XLA', 'ran': 'XLA'}
  assert (train['units_per_step'], decode['units_per_step'], decode['batch']) == (2 * 32, 4, 1)
  assert train['mfu'] is None and train['program_bytes'] > 0  # a CPU has no peak in the table
  said = capsys.readouterr().out
  assert 'these are no measurements' in said and 'gpt2_decode' in said


@pytest.mark.slow
def test_dry_run_of_everything(tmp_path):
  out = tmp_path / 'report.json'
  assert accelerator.main(['--dry', f'--out={out}']) == 0
  report = json.loads(out.read_text())
  check(report)
  assert set(report['cases']) == set(CASES)
  assert all(row['genjax']['status'] == 'ok' for row in report['cases'].values())
  if report['versions']['torch'] and report['versions']['transformers']:
    assert all(row['torch']['status'] == 'ok' for row in report['cases'].values())


def fake(seconds=0.0, **special):
  """A measurement that returns at once; `special`: case -> what it returns or raises in place of figures."""
  calls = []

  def measuring(name, side, batch, left):
    calls.append((name, side, batch))
    device = {'kind': 'NVIDIA H100 80GB HBM3', 'platform': 'gpu', 'count': 1, 'memory_bytes': 1, 'peak_flops': 989e12}
    return {**special.get(f'{name}_{side}', {'status': 'ok', 'batch': 4}), 'device': device}

  return measuring, calls


def test_others_take_the_batch_that_fitted_ours_and_come_last():
  measuring, calls = fake(dit_train_genjax={'status': 'ok', 'batch': 16})
  report = accelerator.run(['gpt2_train', 'dit_train'], ['torch', 'genjax'], 1e6, measuring, False)
  assert calls == [('gpt2_train', 'genjax', 0), ('dit_train', 'genjax', 0), ('gpt2_train', 'torch', 4),
                   ('dit_train', 'torch', 16)]
  assert report['device']['kind'].startswith('NVIDIA')


def test_what_does_not_fit_the_budget_is_skipped_and_the_report_says_so():
  measuring, calls = fake()
  report = accelerator.run(['gpt2_train', 'unet_train'], ['genjax'], accelerator.START_SECONDS + 40, measuring, False)
  assert calls == [('gpt2_train', 'genjax', 0)]
  assert report['cases']['unet_train']['genjax']['status'] == 'skipped'
  assert 'would take about 70 s' in report['cases']['unet_train']['genjax']['reason']


def test_one_that_fails_stops_no_other():
  measuring, calls = fake(gpt2_train_genjax={'status': 'failed', 'reason': 'out of memory'},
                          gpt2_train_torch={'status': 'unavailable', 'reason': 'no PyTorch'})
  report = accelerator.run(['gpt2_train', 'dit_train'], ['genjax', 'torch'], 1e6, measuring, False)
  assert report['cases']['dit_train']['genjax']['status'] == 'ok'
  assert report['cases']['dit_train']['torch'] == {'status': 'skipped', 'reason': 'no PyTorch'}  # and is not tried
  assert len(calls) == 3
  assert 'failed: out of memory' in accelerator.render(
    {**report, 'cases': {'gpt2_train': report['cases']['gpt2_train']}})


@pytest.mark.parametrize(
  'message', ['RESOURCE_EXHAUSTED: Out of memory while trying to allocate 3 bytes', 'CUDA out of memory. Tried'])
def test_a_batch_that_does_not_fit_is_halved(monkeypatch, message):
  def measure(case, side, rows, dry, rounds):
    if rows > 9:
      raise RuntimeError(message)
    return {'step_seconds_rounds': [0.2, 0.1, 0.5], 'flops': 1000, 'units_per_step': rows}

  monkeypatch.setattr(accelerator_cases, 'measure', measure)
  found = accelerator.measure('gpt2_train', 'genjax')
  assert (found['batch'], found['batches_tried'], found['step_seconds']) == (8, [32, 16, 8], 0.2)
  assert found['units_per_second'] == pytest.approx(40)


def test_other_failures_and_a_batch_of_one_are_reported(monkeypatch):
  def measure(case, side, rows, dry, rounds):
    raise RuntimeError('RESOURCE_EXHAUSTED' if side == 'genjax' else 'INTERNAL: something else')

  monkeypatch.setattr(accelerator_cases, 'measure', measure)
  found = accelerator.measure('dit_sample', 'genjax')
  assert found['status'] == 'failed' and found['batches_tried'] == [8, 4, 2, 1
                                                                   ] and 'RESOURCE_EXHAUSTED' in found['reason']
  assert accelerator.measure('dit_sample', 'torch')['batches_tried'] == [8]


@pytest.mark.slow
def test_a_process_of_its_own():
  """The whole way of a measurement but for the device: PyTorch has no GPU here, or jax has none."""
  if jax.default_backend() != 'cpu':
    pytest.skip('measures where there is an accelerator')
  found = accelerator.measure_apart('gpt2_train', 'torch', 0, 300.0)
  assert found['status'] == 'unavailable' and 'PyTorch' in found['reason']
  assert 'did not end' in accelerator.measure_apart('gpt2_train', 'torch', 0, 0.1)['reason']


@pytest.mark.parametrize('flags', [['--cases=gpt3_train'], ['--sides=tensorflow'], ['--budget=0'], ['--budget=nan'],
                                   ['--cases='], ['--out=/nowhere/report.json']])
def test_bad_flags(flags, capsys):
  with pytest.raises(SystemExit) as error:
    accelerator.main(['--dry', *flags])
  assert error.value.code == 2 and flags[0].partition('=')[0] in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'published'), [
  # 6 FLOPs a weight and token beside the tables, and 12 L D T a token of attention.
  ('gpt2_train', 32 * 1024 * (6 * (12 * 12 * 768**2 + 50_257 * 768) + 12 * 12 * 768 * 1024)),
  ('dit_train', 64 * 3 * 2 * 118.64e9),  # Peebles and Xie 2023, table 4: multiply-adds of DiT-XL/2
])
def test_flops_are_the_published_ones(name, published):
  assert accelerator_cases.model_flops(CASES[name], CASES[name].batch, dry=False) == pytest.approx(published, rel=3e-3)


def test_the_kernel_of_attention_is_read_from_the_program(monkeypatch):
  """The dry steps, lowered for a GPU, which need not be there."""
  from jax._src.cudnn import fused_attention_stablehlo
  monkeypatch.setattr(fused_attention_stablehlo, 'check_cudnn_version', lambda: 91200)
  monkeypatch.setattr(sharding, 'platform', lambda: 'gpu')
  objective = CASES['gpt2_train'].make(True, 'auto')
  variables = jax.eval_shape(lambda: objective.init(jax.random.key(0), {}))

  def loss(params, tokens):
    context = accelerator_cases.base.Context(step=0, mutable=variables.mutable, ema={}, frozen={})
    return objective.loss(params, context, {'tokens': tokens}, None).loss

  traced = jax.jit(jax.grad(loss)).trace(variables.params, jax.ShapeDtypeStruct((2, 33), 'int32'))
  assert accelerator_cases.attention_of(traced.lower(lowering_platforms=('cuda',)).as_text()) == 'cudnn'
  kernel = '%c = custom-call(), custom_call_target="tpu_custom_call", op_name="splash_mha_fwd"'
  assert accelerator_cases.attention_of(kernel).startswith('splash')
  assert accelerator_cases.attention_of('custom_call_target="__cudnn$convForward"') == 'XLA'


@pytest.mark.parametrize(('kind', 'teraflops'), [('NVIDIA A100-SXM4-80GB', 312), ('NVIDIA H100 80GB HBM3', 989),
                                                 ('NVIDIA H100 PCIe', 756), ('NVIDIA H100 NVL', 835),
                                                 ('NVIDIA H200', 989), ('NVIDIA H20', 148), ('NVIDIA GH200 480GB', 989),
                                                 ('NVIDIA B200', 2250), ('NVIDIA GB200', 2500), ('NVIDIA L4', 121),
                                                 ('NVIDIA L40S', 362), ('TPU v4', 275), ('TPU v5 lite', 197),
                                                 ('TPU v5', 459), ('TPU v5p', 459), ('TPU v6 lite', 918),
                                                 ('cpu', math.nan), ('NVIDIA L40', math.nan), ('Tesla T4', math.nan)])
def test_peaks_by_the_names_of_devices(kind, teraflops):
  found = topology.hardware_of(kind)
  assert found is None if math.isnan(teraflops) else found is not None and found.flops == teraflops * 1e12
