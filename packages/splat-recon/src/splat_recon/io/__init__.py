"""Everything that reads or writes files, one format per module."""
