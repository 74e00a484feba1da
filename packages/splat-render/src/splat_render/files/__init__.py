"""Splat files: PLY, compressed PLY, SPZ and .splat, read and written."""
