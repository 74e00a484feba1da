"""A few photos of an object to a neural field: the command line of `sparsefusion`."""
