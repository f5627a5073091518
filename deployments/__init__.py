"""Murmuration as a Ray Serve application: one deployment a file, chained in ``app``."""
