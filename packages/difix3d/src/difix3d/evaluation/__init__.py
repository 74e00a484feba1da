"""Scores by stated protocols, multi-view consistency, and the rows of the method."""
