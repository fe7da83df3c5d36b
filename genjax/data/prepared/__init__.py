"""Data sets that are prepared once and read in place: TFDS builders, and readers of the original files."""
