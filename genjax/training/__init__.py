"""The one training loop, its step, state, optimizers, hooks and checkpoints. Nothing here knows a model family."""
