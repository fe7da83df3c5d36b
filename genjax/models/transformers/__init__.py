"""Transformers: decoders, encoders and encoder-decoders, one per file."""
