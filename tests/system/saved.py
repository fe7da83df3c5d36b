"""The arrays of a checkpoint, whatever devices wrote them."""

import jax
import numpy as np
import orbax.checkpoint as ocp


def arrays(workdir):
  """Every array of the last checkpoint by its path."""
  folder = (workdir / 'checkpoints' / '20' / 'state').absolute()
  with ocp.PyTreeCheckpointer() as checkpointer:
    # As NumPy arrays: they were written from other devices than this process has.
    saved = checkpointer.metadata(folder).item_metadata.tree
    tree = checkpointer.restore(folder, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray),
                                                                  saved))
  return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
