"""Objectives: the losses, evaluation and sampling of each model family, one per file."""
