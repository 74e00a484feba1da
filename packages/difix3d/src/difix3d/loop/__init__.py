"""The method: a splat, and rounds in which fixed novel views join its training. Read `progressive` first."""
