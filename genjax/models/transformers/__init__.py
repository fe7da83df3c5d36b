"""Transformers: decoders, encoders, and encoder-decoders, each a file."""
