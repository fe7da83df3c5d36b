"""Attention: layers, the formula and its kernels, and attention of sequences that are split over devices."""
