"""Attention: layers, implementations of softmax attention, fused kernels, and ring attention."""
