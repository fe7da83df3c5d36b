"""Metrics of samples, computed on the host with numpy in double precision."""
