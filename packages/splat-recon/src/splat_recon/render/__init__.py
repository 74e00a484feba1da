"""Rendering Gaussians: one contract, a CUDA backend and a CPU backend."""
