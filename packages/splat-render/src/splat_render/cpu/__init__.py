"""The rasterizer for machines without CUDA: numba kernels joined to autograd."""
