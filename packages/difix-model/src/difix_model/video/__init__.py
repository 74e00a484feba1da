"""Videos and image sequences as streams."""
