"""The command `difix3d-enhance`."""
