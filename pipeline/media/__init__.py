"""Recordings: storing their bytes, decoding them, and turning them into prepared audio."""
