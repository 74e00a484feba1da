"""The command `diffsplat`: text or one image to a 3D Gaussian splat."""
