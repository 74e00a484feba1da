"""Photos or a video without cameras to a COLMAP folder."""
