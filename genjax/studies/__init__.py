"""Experiments on experiments: sweeps of runs, their tables and curves, and the comparison of metric cards."""
