"""Training of the transformer, the diffusion model and the autoencoder. Needs the extra `train`."""
