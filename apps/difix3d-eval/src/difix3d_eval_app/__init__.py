"""The command `difix3d-eval`."""
