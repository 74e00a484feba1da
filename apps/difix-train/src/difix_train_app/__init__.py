"""Command line of difix-train."""
