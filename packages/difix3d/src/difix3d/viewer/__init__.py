"""A live page of a splat, with the fixer switched on and off."""
