"""The command difix3d-pairs."""
