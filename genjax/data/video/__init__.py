"""Clips: frames over time."""
