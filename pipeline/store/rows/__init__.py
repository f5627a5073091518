"""Conversion between rows and values of the domain."""
