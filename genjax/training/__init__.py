"""The training loop, its step, state, optimizers, hooks and checkpoints, independent of model families."""
