"""The recipe of a small SparseFusion: from generated objects to the file that `sparsefusion reconstruct` takes."""
