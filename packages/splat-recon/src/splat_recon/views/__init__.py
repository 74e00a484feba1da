"""What the trainer is fed: posed images with weights, and how steps are shared among sets of them."""
