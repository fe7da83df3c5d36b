"""Optimizers by name, and by part of a tree of parameters."""
