"""Routes of the task API, one module for each noun."""
