"""Training pairs for a fixer: degraded renders of a scene beside the photos that they should look like."""
