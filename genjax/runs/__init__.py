"""The run directory as a library: commands, builders and notebooks stand on it."""
