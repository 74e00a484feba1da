"""Many independent tasks, one after another, in processes of this machine, or on a Ray cluster."""
