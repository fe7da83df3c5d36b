"""Captioned scenes of coloured shapes, drawn by code: what a caption asks for, how it is drawn, how it is read off."""
