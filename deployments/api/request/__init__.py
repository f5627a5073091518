"""Parsing of requests: bodies, forms, options, and lenient values."""
