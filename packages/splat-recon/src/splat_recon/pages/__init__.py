"""What people look at: pictures, plots, pages, the live viewer, TensorBoard."""
