"""Weights on disk and on the hub: our checkpoint, the published layout, the released trainer's file."""
