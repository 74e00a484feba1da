"""What improves rendered views: the contract, and those that come with the project."""
