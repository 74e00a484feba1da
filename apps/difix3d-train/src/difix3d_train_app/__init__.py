"""The command `difix3d-train`."""
