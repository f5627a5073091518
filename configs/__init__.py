"""Settings files, shipped as package data."""
