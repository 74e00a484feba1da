"""Training of DiffSplat's networks; needs the extra `train`."""
