"""Which example of a batch goes with which noise, or with which example of another distribution.

The assignment is exact and computed on the host, where batches are prepared in the background: scipy solves 256 rows in
a fiftieth of a second, and the step of training stays as it is. A coupling in the step would need a callback to the
host, or an approximation by Sinkhorn's iterations, which do not pair rows one to one.
"""

import dataclasses

import numpy as np

from genjax.data.pipeline import Columns, RowRandom


@dataclasses.dataclass(frozen=True)
class OptimalTransport:
  """Minibatch optimal transport (Tong et al. 2023; Pooladian et al. 2023), for `genjax.data.pipeline.Pipeline.joint`.

  It permutes the rows of `source` within a group, so that the sum of the squared distances to the rows of `column` is
  the smallest. What else a row has, such as its label, stays with `column`. Where the last batch of an epoch is padded,
  padding takes part.

  Attributes:
    column: of the data.
    source: of what the data is paired with.
    noise: shape of a row of standard normal noise that is drawn into `source`; None for data that has the column.
  """

  column: str
  source: str
  noise: tuple[int, ...] | None = None

  def __call__(self, columns: Columns, random: RowRandom) -> Columns:
    source_BX = columns[self.source] if self.noise is None else random.normal(*self.noise).astype(np.float32)
    return {**columns, self.source: source_BX[nearest(columns[self.column], source_BX)]}


def nearest(x_BX: np.ndarray, y_BX: np.ndarray) -> np.ndarray:
  """The permutation p with the smallest sum of |x_i - y_p(i)|^2, int64 B.

  That is the permutation with the largest sum of products x_i y_p(i), so neither a scale nor a shift of x matters:
  pixels from 0 to 255 have the permutation of pixels from -1 to 1.
  """
  x_BD, y_BD = (array.reshape(len(array), -1).astype(np.float64) for array in (x_BX, y_BX))
  from scipy import optimize  # half a second, which commands without couplings save
  return optimize.linear_sum_assignment((x_BD - x_BD.mean()) @ y_BD.T, maximize=True)[1]

