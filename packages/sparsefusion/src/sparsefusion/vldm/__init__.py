"""The view-conditioned latent diffusion model (VLDM): network, schedule, loss and samplers."""
