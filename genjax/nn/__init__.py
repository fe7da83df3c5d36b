"""Building blocks of networks. NNX objects live here and in `genjax.models` only; what leaves is
`functional.Network`."""
