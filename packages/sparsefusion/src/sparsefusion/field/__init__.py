"""The neural field that an object becomes: a tiled grid, a small network and a volume renderer."""
