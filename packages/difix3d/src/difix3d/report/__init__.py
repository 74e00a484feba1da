"""What a run shows: results, curves, pictures, the film and the page."""
