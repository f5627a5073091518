"""Client-facing operations on tasks, and their housekeeping."""
