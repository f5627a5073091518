"""Recordings: where their bytes lie and how they become prepared audio."""
