"""How the pipeline runs the network: batches, tiles, memory, kept latents of references."""
