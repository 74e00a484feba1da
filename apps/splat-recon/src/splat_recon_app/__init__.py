"""Photos to Gaussian splats: the command line of `splat_recon`."""
