"""Metrics of one's own, which config.evaluation.metrics names."""

from collections.abc import Callable

from genjax.tables import Table

# Name -> function (draw, heldout, seed) -> values by name.
# draw(num, conditions) gives the columns of that many samples, draw.parts(num, conditions, size=1000) the same rows in
# parts. heldout is the held-out data; heldout.epoch(slice(None)) gives its batches. seed is that of `genjax evaluate`.
METRICS: Table[Callable[..., dict[str, float]]] = Table('metric', {}, takes=('draw', 'heldout', 'seed'))
