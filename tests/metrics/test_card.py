"""The metric card as JSON."""

import dataclasses
import json
import types
from typing import Any

import numpy as np
import pytest

from genjax.metrics.card import Card
from genjax.types import UserError

FACTS: dict[str, Any] = dict(step=100, data={'name': 'digits', 'split': 'test', 'examples': 360}, examples=360,
                             parameters="averaged ['net']", seed=0, sampler={'name': 'heun', 'steps': 20},
                             measures={'samples': {'feature_extractor': {'heldout_accuracy': 0.98}}},
                             versions={'jax': '0.10.2'}, version=1)


def test_the_card_has_all_its_fields():
  plain = Card(**FACTS).as_json()
  assert plain == FACTS
  assert list(plain) == [field.name for field in dataclasses.fields(Card)]
  assert json.loads(json.dumps(plain)) == plain


def test_a_card_without_a_field_cannot_be_made():
  for name in FACTS.keys() - {'version'}:
    with pytest.raises(TypeError, match=name):
      Card(**{key: value for key, value in FACTS.items() if key != name})


def test_numpy_and_mappings_become_plain():
  sampler = types.MappingProxyType({'times': np.arange(3), 'shape': (8, 8)})
  card = Card(**{**FACTS, 'examples': np.int64(3), 'sampler': sampler})
  plain = card.as_json()
  assert plain['examples'] == 3 and type(plain['examples']) is int
  assert plain['sampler'] == {'times': [0, 1, 2], 'shape': [8, 8]}


@pytest.mark.parametrize('value', [float('nan'), object()])
def test_what_json_lacks_is_an_error_with_the_field(value):
  with pytest.raises(UserError, match='metric card: sampler'):
    Card(**{**FACTS, 'sampler': {'steps': value}}).as_json()
