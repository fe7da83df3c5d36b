"""genjax: one training loop for every family of generative models, in JAX."""

__version__ = '0.1.0'
