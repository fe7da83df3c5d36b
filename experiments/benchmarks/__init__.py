"""Measurements of genjax itself: speed, faults, plans, and the picture of the README."""
