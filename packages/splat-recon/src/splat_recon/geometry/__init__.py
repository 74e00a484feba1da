"""Poses, cameras and camera paths: float64 numpy, no images."""
