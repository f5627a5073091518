"""Working in-memory twins of every port, shipped so that anyone can test against them."""
