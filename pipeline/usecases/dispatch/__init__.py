"""Execution of tasks: claims, attempts, splitting, and scheduling of chunks."""
