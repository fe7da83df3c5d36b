"""Checkpoints: written, verified, restored, and read by other runs."""
