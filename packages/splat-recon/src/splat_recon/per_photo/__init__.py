"""What is learned or known about single photos: poses, exposures, depths."""
