"""A whole run: its settings, its folder, plain training beside the loop, and their comparison."""
