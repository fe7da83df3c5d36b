"""Architectures, one per file: a config dataclass, the network, and the table of its parameters' logical axes."""
