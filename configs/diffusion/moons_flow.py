"""Flow matching from eight Gaussians to two moons, with or without minibatch optimal transport (Tong et al. 2023).

    genjax train --config=configs/diffusion/moons_flow.py --workdir=runs/moons
    genjax evaluate --workdir=runs/moons

Data, network and batch size are those of the examples of TorchCFM. Arguments: coupling 'ot' or 'independent'; source
'eight_gaussians', another distribution of `genjax.data.points`, or 'noise'.
"""

from genjax.configs import common


def get_config(arg=None):
  arg = common.parse_arg(arg, coupling='ot', source='eight_gaussians', smoke=False)
  config = common.base(steps=10_000, batch_size=256)
  config.experiment = 'genjax.experiments.points'
  config.data = dict(name='moons', source='' if arg.source == 'noise' else arg.source, size=2**22, heldout_size=2048)
  config.model = dict(name='mlp', hidden=(64, 64, 64), activation='selu', time_scale=0.001)
  config.objective = dict(process=dict(name='flow'), parameterization=dict(name='velocity'),
                          times=dict(name='default'), weighting=dict(name='uniform'), stratified=True,
                          evaluation_times=8, coupling=arg.coupling, coupling_size=0)
  config.sampler = dict(name='euler', steps=50, spacing='', clip=0.0, options=dict(), **common.SAMPLING)
  config.evaluation = dict(num_samples=2000, steps=(1, 50))
  config.optimizers = dict(net=dict(name='adam', lr=1e-3))
  config.steps_per_call = 20
  config.log_every = 1000
  config.evaluate_every = 5000
  config.sample_every = 5000
  config.sample_num = 2000
  config.checkpoint.every = 5000
  if arg.smoke:
    common.smoke(config)
    config.model.hidden = (8, 8)
    config.sampler.steps = 2
    config.evaluation.update(num_samples=20, steps=(1, 2))
  return config
