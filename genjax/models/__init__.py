"""Architectures, one a file: a config dataclass, the network, and the table of logical axes of its parameters."""
