"""Optimizers by name, and separate optimizers for parts of a parameter tree."""
