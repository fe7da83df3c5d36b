"""Building blocks of networks. Only `nn` and `models` use NNX; other packages see `functional.Network`."""
