"""The gate: how much of a network's change to a render is let through, and why."""
