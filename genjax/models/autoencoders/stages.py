"""What the options of convolutional autoencoders with stages have in common."""

from genjax import checks


class Stages:
  """A base of options: each stage after the first halves the side of its maps.

  Attributes:
    shape: (H, W, C) of one image.
    latent: channels Z of the latent.
  """

  shape: tuple[int, int, int]
  latent: int

  @property
  def stages(self) -> int:
    """Number of stages."""
    raise NotImplementedError

  @property
  def factor(self) -> int:
    """By how much the latent is smaller than the image, along each side."""
    return 2 ** (self.stages - 1)

  @property
  def latent_shape(self) -> tuple[int, int, int]:
    """(H / factor, W / factor, Z)."""
    return self.shape[0] // self.factor, self.shape[1] // self.factor, self.latent

  def check_size(self, option: str) -> None:
    """Checks that the stages fit the image.

    Args:
      option: the one that has an entry for each stage.

    Raises:
      OutOfRange: the factor does not divide its sides.
    """
    if self.shape[0] % self.factor or self.shape[1] % self.factor:
      raise checks.OutOfRange(
        f'{option} has {self.stages} stages, which need an image size that is a multiple of {self.factor}, got '
        f'{self.shape[:2]}; use fewer stages or another size')
