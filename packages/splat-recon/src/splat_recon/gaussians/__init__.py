"""Gaussians: raw parameters, initialization, densification."""
