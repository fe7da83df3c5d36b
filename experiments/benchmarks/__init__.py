"""Benchmarks and checks of genjax itself: speed, fault injection, plans, and the picture of the README."""
