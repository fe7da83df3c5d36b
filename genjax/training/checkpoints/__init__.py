"""Checkpoints: saving, verification, restoring, and warm starts from other runs."""
