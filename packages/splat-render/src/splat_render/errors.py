"""The error that says: what the user gave is wrong."""

from output_files import InputError as InputError
