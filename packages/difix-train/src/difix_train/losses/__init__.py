"""Loss terms of training, each a pure function or a small module."""
