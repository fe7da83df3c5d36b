"""Options by flag: whatever a builder and its parts accept, spelled by the config or not, and their meanings."""

import inspect
import json
import pathlib
import re
import shlex

import pytest

from genjax import config as config_lib
from genjax import options as options_lib
from genjax.cli import configs
from genjax.cli import inspect as inspect_lib
from genjax.cli.main import main
from genjax.configs import common
from genjax.runs import builders
from genjax.types import UserError

ROOT = pathlib.Path(__file__).parent.parent.parent
FILES = [path for path in (ROOT / 'configs').rglob('*.py') if path.stem not in ('__init__', 'common', 'sweeps')]
CONFIGS = sorted(path.relative_to(ROOT / 'configs').with_suffix('').as_posix() for path in FILES)
PAGE = (ROOT / 'docs' / 'options.md').read_text()
QUICKSTART = f'--config={ROOT}/configs/quickstart.py:smoke'


def parsed(*flags: str, config: str = QUICKSTART):
  return configs.parse('train', [config, *flags], '')[0].config


def refused(*flags: str) -> str:
  with pytest.raises(UserError) as caught:
    parsed(*flags)
  return str(caught.value)


@pytest.mark.parametrize(('flag', 'value'), [
  ('model.mlp_ratio=2', 2.0),
  ('model.learn_sigma', True),
  ('optimizers.net.weight_decay=0.1', 0.1),
  ('optimizers.net.decay=.*kernel', '.*kernel'),
  ('optimizers.net.parts=(("embed/.*", {"frozen": True}),)', (('embed/.*', {'frozen': True}),)),
  ('objective.evaluation_times=3', 3),
  ('data.content=pixels', 'pixels'),
  ('rules.vocab=None', None),
  ('rules.mlp=tensor,expert', ('tensor', 'expert')),
  ('rules.heads=fsdp', 'fsdp'),
  ('model.dtype=bfloat16', 'bfloat16'),
  ('sampler.interval=0.5,3.0', (0.5, 3.0)),
  ('sampler.rho=5', 5.0),
  ('lora.rank=4', 4),
  ('mesh.fsdp=2', 2),
])
def test_flags_set_what_the_config_spells_and_what_it_does_not(flag, value):
  config = parsed(f'--config.{flag}')
  found = config_lib.flatten(config)[flag.partition('=')[0]]
  assert found == config_lib.plain(value) and type(found) is type(config_lib.plain(value))
  assert not config_lib.difference(config, config_lib.from_plain(json.loads(json.dumps(config_lib.plain(config)))))
  assert config.is_locked and config.model.is_locked and config.optimizers.net.is_locked


def test_a_value_may_stand_apart_and_a_bool_may_be_negated():
  config = parsed('--config.model.mlp_ratio', '3', '--noconfig.model.learn_sigma', '--config.optimizers.net.clip', '-1')
  assert (config.model.mlp_ratio, config.model.learn_sigma, config.optimizers.net.clip) == (3.0, False, -1.0)


def test_options_are_those_of_the_name_that_a_flag_gives():
  config = parsed('--config.sampler.options.eta=0.5', '--config.sampler.name=ddim',
                  '--config.objective.times.std=0.7', '--config.objective.times.name=logit_normal')
  assert config.sampler.options.eta == 0.5
  assert config.objective.times.to_dict() == {'name': 'logit_normal', 'std': 0.7}
  assert 'only with sampler.name=ddim' in refused('--config.sampler.options.eta=0.5')
  assert 'optimizers.net.name=sgd or adafactor' in refused('--config.optimizers.net.momentum=0.9')


def test_a_section_given_anew_takes_further_options():
  config = parsed('--config.optimizers.net={"name": "sgd", "lr": 0.1}', '--config.optimizers.net.momentum=0.9')
  assert config.optimizers.net.to_dict() == {'name': 'sgd', 'lr': 0.1, 'momentum': 0.9}
  config = parsed('--config.optimizers.net.clip=1', '--config.optimizers.net.name=sgd',
                  '--config.optimizers.net={"lr": 0.1}', '--config.optimizers.net.lr=0.2')
  assert config.optimizers.net.to_dict() == {'name': 'sgd', 'lr': 0.2, 'clip': 1.0}
  with pytest.raises(UserError, match=r'''is not an option of UNet.*--config.model="{'name': 'unet'}"'''):
    builders.build(parsed('--config.model.name=unet'))
  config = parsed('--config.model={"name": "unet"}', '--config.model.base=16', '--config.model.multipliers=1,2',
                  '--config.model.attention=()', '--config.model.groups=8', '--config.model.heads=2')
  assert set(builders.build(config).conditions) == {'label'} and config.model.heads == 2


def test_flags_of_sections_given_anew_work_without_a_function_options(tmp_path):
  (tmp_path / 'mine.py').write_text(
    'from genjax.configs import common\n\ndef get_config():\n  config = common.base(steps=1, batch_size=2)\n'
    "  config.model = dict(name='x', width=3)\n  return config\n")
  config = parsed('--config.model={"depth": 2}', '--config.model.depth=4', config=f'--config={tmp_path / "mine.py"}')
  assert config.model.to_dict() == {'depth': 4}


def test_a_condition_is_added_key_by_key():
  captioned = f'--config={ROOT}/configs/diffusion/captioned_flow.py:smoke'
  config = parsed('--config.conditions.extent.high=1', '--config.conditions.extent.kind=numbers',
                  '--config.conditions.extent.column=extent', config=captioned)
  assert config.conditions.extent.to_dict() == {'kind': 'numbers', 'column': 'extent', 'high': 1.0}
  assert 'text' in config.conditions and {'text', 'extent'} <= set(builders.build(config).conditions)
  with pytest.raises(UserError, match="the config has no conditions.extent; to add it, set --config.conditions.extent"
                                      '.kind=KIND as well'):
    parsed('--config.conditions.extent.high=1', config=captioned)
  with pytest.raises(UserError, match="config.conditions.extent.kind must be one of .*'numbers'"):
    builders.build(parsed('--config.conditions.extent.kind=number', config=captioned))
  with pytest.raises(UserError, match="unknown config key 'conditions.extent.kind'"):  # this builder takes none
    parsed('--config.conditions.extent.kind=numbers', config=f'--config={ROOT}/configs/language/gpt2.py:smoke')


@pytest.mark.parametrize(('flag', 'words'), [
  ('model.widht=3', ("'model.widht'", "'model.width'", 'inspect')),
  ('model.mlp_ration=3', ("'model.mlp_ratio'",)),
  ('optimizers.net.wieght_decay=1', ("'optimizers.net.weight_decay'",)),
  ('model.mlp_ratio=wide', ('model.mlp_ratio', 'float', '4.0', "'wide'")),
  ('model.mlp_ratio', ('float', '=VALUE')),
  ('model.frequencies=2.5', ('int', "'2.5'")),
  ('model.learn_sigma=maybe', ('bool', "'maybe'")),
  ('model.shape=(8,8,1)', ('computes', 'config.data.shape')),
  ('model.num_classes=3', ('computes', 'config.data.num_classes')),
  ('objective.net=3', ('computes',)),
  ('nothing.like.it=3', ("'nothing.like.it'",)),
])
def test_what_cannot_be_set(flag, words):
  said = refused(f'--config.{flag}')
  assert all(word in said for word in words), said
  assert len(said) < 300  # not every key that there is


def test_what_may_be_none_and_what_is_a_dict():
  llama = f'--config={ROOT}/configs/language/llama.py:smoke'
  config = parsed('--config.model.rope_scaling={"kind": "linear", "factor": 2}', '--config.model.attention_bias=True',
                  '--config.rules.vocab=None', config=llama)
  assert config.model.rope_scaling.to_dict() == {'kind': 'linear', 'factor': 2} and config.model.attention_bias is True
  known = builders.options(config).options
  assert known['model.norm'].default == 'rms' and known['model.rope_scaling.factor'].kind is float
  names = f'--config={ROOT}/configs/language/gpt2.py:smoke'  # spells None
  assert parsed(config=names).rules.vocab is None
  assert parsed('--config.rules.vocab=tensor', config=names).rules.vocab == 'tensor'


def test_builders_without_a_function_options_take_what_the_config_spells(tmp_path):
  (tmp_path / 'plainly.py').write_text('def build(config):\n  raise NotImplementedError\n')
  (tmp_path / 'mine.py').write_text(
    'from genjax.configs import common\n\ndef get_config():\n  config = common.base(steps=1, batch_size=2)\n'
    "  config.experiment = 'plainly'\n  config.model = dict(width=3)\n  config.optimizers.net = dict(lr=0.1)\n"
    '  return config\n')
  config = parsed('--config.model.width=5', '--config.ema.net=0.9', config=f'--config={tmp_path / "mine.py"}')
  assert (config.model.width, config.ema.net) == (5, 0.9)
  with pytest.raises(UserError, match="unknown config key 'model.depth'"):
    parsed('--config.model.depth=5', config=f'--config={tmp_path / "mine.py"}')


def test_override_reaches_what_a_config_does_not_spell():
  config = parsed()
  for assignment in ('sampler.name=ddim', 'sampler.options.eta=1', 'model.mlp_ratio=2', 'ema.net=0.5',
                     'sampler.interval=0.5,2', 'data.shape=[8, 8, 1]', 'lora.paths=.*/kernel'):
    config_lib.override(config, assignment)
  assert (config.sampler.interval, config.data.shape, config.lora.paths) == ((0.5, 2), (8, 8, 1), ('.*/kernel',))
  assert (config.sampler.options.eta, config.model.mlp_ratio, config.ema.net) == (1.0, 2.0, 0.5)
  with pytest.raises(UserError, match="Did you mean 'model.mlp_ratio'"):
    config_lib.override(config, 'model.mlp_ration=2')


def test_commands_of_the_page_and_what_the_run_keeps(tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (block,) = re.findall(r'```sh\n(.*?)```', PAGE, re.DOTALL)
  commands = [shlex.split(line, comments=True)[1:] for line in block.replace('\\\n', ' ').splitlines()]
  assert [command[0] for command in commands] == ['inspect'] * 3 + ['train'] * 2 + ['sample'] * 2
  for command in commands[:4]:
    assert main(command) == 0, command
  kept = json.loads(pathlib.Path('runs/options/config.json').read_text())
  assert kept['model']['mlp_ratio'] == 2.0 and kept['optimizers']['net']['weight_decay'] == 0.1
  assert kept['objective']['times'] == {'name': 'logit_normal', 'std': 0.8}
  for command in commands[4:]:
    assert main(command) == 0, command
  assert json.loads(pathlib.Path('runs/options/config.json').read_text()) == kept
  assert main(['train', QUICKSTART, '--workdir=runs/options']) == 2
  assert 'model.mlp_ratio' in capsys.readouterr().err
  assert main(['sample', '--workdir=runs/options', '--num=1', '--out=c', '--set=sampler.options.etta=0.5']) == 2


def test_a_section_anew_as_the_page_has_it(capsys):
  (flags,) = re.findall(r'`(--config\.model="[^`]+)`', PAGE)
  assert main(['inspect', QUICKSTART, *shlex.split(flags), '--json']) == 0
  shapes = {row['path']: row['shape'] for row in json.loads(capsys.readouterr().out)['parameters']}
  assert shapes['down/0/0/conv_in/bias'] == [32]


def test_builder_of_the_page(tmp_path, monkeypatch):
  ((name, text),) = re.findall(r'```python\n# (\w+)\.py\n(.*?)```', PAGE, re.DOTALL)
  (tmp_path / f'{name}.py').write_text(text)
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(str(tmp_path))
  config = parsed(f'--config.experiment={name}', '--config.model={}', '--config.model.radius=3')
  assert config.model.radius == 3.0
  rows = {row['option']: row for row in inspect_lib.option_rows(config, builders.options(config))}
  assert rows['model.radius']['meaning'] == 'of the blur, in pixels.' and 'model.shape' not in rows
  assert 'config.data.shape' in refused(f'--config.experiment={name}', '--config.model={}', '--config.model.shape=3')


@pytest.mark.parametrize('name', CONFIGS)
def test_every_key_of_every_config_is_an_option_with_a_meaning(name):
  config = parsed(config=f'--config={ROOT}/configs/{name}.py:smoke')
  known = builders.options(config).options
  assert not [key for key, option in known.items() if not option.meaning]
  spelled = {key: value for key, value in config_lib.flatten(config).items() if value != {}}
  assert not set(spelled) - set(known)
  for key, value in spelled.items():  # of the type that is told
    assert config_lib._frozen(known[key].read(value if isinstance(value, str) else repr(value))) == config_lib._frozen(
      value), key


def test_docstrings_name_options_that_there_are():
  seen = set()
  for name in CONFIGS:
    module = builders.find(config := parsed(config=f'--config={ROOT}/configs/{name}.py:smoke'))
    for section in module.options(config).values():
      seen.update(section.takes, *section.others.values())
      for functions in section.others.values():
        options = options_lib.Section(functions, section.computed).options('')
        assert not [key for key, option in options.items() if not option.meaning]
  assert len(seen) > 40
  for function in seen:
    assert set(options_lib.meanings(function)) - {'options'} <= set(inspect.signature(function).parameters), function


def test_base_tells_every_key():
  told = set(options_lib.meanings(common.base))
  assert told - {'ema', 'parts', 'rules'} == set(config_lib.flatten(common.base(steps=1, batch_size=1)))


def test_inspect_lists_options(capsys):
  assert main(['inspect', QUICKSTART, '--options=sampler', '--config.sampler.name=ddim', '--json']) == 0
  rows = {row['option']: row for row in json.loads(capsys.readouterr().out)['options']}
  assert all(key.startswith('sampler.') for key in rows)
  assert (rows['sampler.steps']['value'], rows['sampler.steps']['source']) == (2, 'config')
  assert (rows['sampler.options.eta']['type'], rows['sampler.options.eta']['source']) == ('float', 'default')
  assert 'ancestral' in rows['sampler.options.eta']['meaning']
  assert main(['inspect', QUICKSTART, '--options']) == 0
  lines = capsys.readouterr().out.splitlines()
  assert 'model' in lines and any(
    line.split()[:3] == ['model.mlp_ratio', 'float', '4.0'] and line.endswith('over the width.') for line in lines)
  assert any(line.split()[:3] == ['model.width*', 'int', '16'] for line in lines)
  names = f'--config={ROOT}/configs/language/names.py:smoke'
  assert main(['inspect', names, '--options=data']) == 0
  assert any(line.split()[:3] == ['data.start*', 'str', repr('\n')] for line in capsys.readouterr().out.splitlines())
  assert main(['inspect', QUICKSTART, '--options=samplr']) == 2
  assert "Did you mean 'sampler'" in capsys.readouterr().err


@pytest.mark.parametrize(('text', 'kind', 'value'), [
  ('3', int, 3), ('3', float, 3.0), ('1e-3', float, 1e-3), ('True', bool, True), ('0', bool, False),
  ('a,b', str, 'a,b'),
  ('None', int | None, None), ('7', int | None, 7), ('1,2', tuple[int, ...], (1, 2)), ('4', tuple[int, ...], (4,)),
  ('[1, 2]', tuple[float, ...], (1.0, 2.0)), ('net,head', tuple[str, ...], ('net', 'head')),
  ('()', tuple[int, ...], ()),
  ('(8, 8, 1)', tuple[int, int, int], (8, 8, 1)), ("{'a': 1}", dict, {'a': 1}), ('2', str | tuple[str, ...], '2'),
  ('(2, 3)', str | tuple[str, ...], ('2', '3')),
])
def test_texts_as_values(text, kind, value):
  found = options_lib.Option('x', kind).read(text)
  assert found == value and type(found) is type(value)


@pytest.mark.parametrize(('text', 'kind'), [
  ('x', int), ('2.5', int), ('9' * 5000, int), ('', float), ('2', bool), ('(1, 2)', tuple[int, int, int]),
  ('1.5', tuple[int, ...]), ('(1', tuple[int, ...]), ('[' * 100_000, tuple), ('3', dict), ('x', int | None),
])
def test_texts_that_are_no_values(text, kind):
  with pytest.raises(UserError, match='config key x takes'):
    options_lib.Option('x', kind).read(text)
