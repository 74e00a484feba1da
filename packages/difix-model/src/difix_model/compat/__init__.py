"""The calls of the released pipeline, for scripts that were written for it."""
