"""Published GANs by name, for `genjax inspect --variant`: each network of a GAN is a variant of its own.

Tests hold the numbers of `docs/public.md` to these.
"""

from collections.abc import Callable, Mapping
from typing import Any

from genjax.models.adversarial import biggan, r3gan, residual, stargan2, stylegan2, stylegan3
from genjax.nn.functional import Network

# Options of a network without arguments, and options -> the network
Row = tuple[Callable[[], Any], Callable[[Any], Network]]


def rows(kind: type, variants: Mapping[str, Mapping[str, Any]],
         networks: tuple[str, ...] = ('generator', 'discriminator')) -> dict[str, Row]:
  """The networks of GANs that one class of options describes.

  Args:
    kind: the class of options; its methods `networks` make the networks.
    variants: name of a GAN -> options over the defaults of the class.
    networks: names of the methods.

  Returns:
    'GAN_METHOD' -> row.
  """
  return {f'{name}_{network}': (lambda options=options: kind(**options), getattr(kind, network))
          for name, options in variants.items() for network in networks}


ROWS: dict[str, Row] = {
  **rows(residual.ResidualGan, residual.VARIANTS), **rows(biggan.BigGan, biggan.VARIANTS),
  **rows(r3gan.R3Gan, r3gan.VARIANTS), **rows(stargan2.StarGan2, stargan2.VARIANTS, stargan2.NETWORKS),
  **rows(stylegan2.StyleGan2, stylegan2.VARIANTS), **rows(stylegan3.StyleGan3, stylegan3.VARIANTS),
}
