"""What was photographed: an immutable scene in memory, and what may be done to it before training."""
