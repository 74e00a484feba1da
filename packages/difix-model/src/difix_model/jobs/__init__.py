"""Files and folders to fix: planned, read, fixed, written."""
